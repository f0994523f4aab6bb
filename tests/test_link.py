"""Links that reopen an example with its settings."""

import pytest

import app
from page.link import reopened
from tests.browser import answered, ask, new_tab, open_section

FILES = [(e.path, e.passage) for e in app.EXAMPLES]
PASSAGE = "She pressed the nosegay to her face; the roses filled the whole chamber with their scent."


def test_a_link_reopens_an_example_with_its_settings(browser, url, page, second_branch):
    page.get_by_text("What's in a name").first.click()
    answered(page)
    for name in ("vote", "why", "attention"):
        open_section(page, name)
    page.locator("#section-vote > button").click()
    page.locator("#votes").wait_for(state="hidden")
    page.locator("#part").get_by_label(second_branch[1]).check()
    page.get_by_label("Stretch colours").check()
    page.locator("#make-link").click()
    field = page.locator("#link textarea, #link input")
    field.wait_for()
    page.wait_for_function("() => document.querySelector('#link textarea, #link input').value.startsWith('http')")
    address = field.input_value()
    assert "example=1" in address and f"part={second_branch[0]}" in address and "open-vote" not in address
    tab = new_tab(browser)
    tab.goto(address)
    tab.locator("#evidence .word").first.wait_for()
    assert (
        "rose" in tab.get_by_label("Passage").input_value()
        and tab.locator("#part").get_by_label(second_branch[1]).is_checked()
    )
    assert tab.get_by_label("Stretch colours").is_checked() and not tab.locator("#votes").is_visible()
    tab.close()


def link_of(page):
    """Presses the button; -> the link."""
    page.locator("#make-link").click()
    page.wait_for_function("() => document.querySelector('#link :is(textarea, input)')?.value.startsWith('http')")
    return page.locator("#link textarea, #link input").input_value()


@pytest.mark.parametrize("pin", ["word", "place"])
def test_a_link_keeps_how_the_board_stands(browser, page, second_branch, pin):
    page.get_by_text("What's in a name").first.click()
    page.locator(".gate-told", has_text="Point at a word").wait_for()
    page.locator(f"[data-branch={second_branch[0]}]").click()
    if pin == "word":
        page.locator(".gate-word", has_text="rose").first.click()
    else:
        box = page.locator(".gate-picture").bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.4)
    here = page.locator(".gate-told").inner_text()
    assert here.startswith("📌")
    tab = new_tab(browser)
    tab.goto(link_of(page))
    tab.locator(".gate-told", has_text=here).wait_for()
    assert tab.locator(f"[data-branch={second_branch[0]}]").get_attribute("aria-checked") == "true"
    # of the first board only
    tab.get_by_text("What's in a name").nth(1).click()
    tab.locator(".gate-told", has_text="Point at a word").wait_for()
    tab.close()


def test_a_board_stays_as_it_is_for_an_address_that_means_nothing(browser, url):
    tab = new_tab(browser)
    for at in ("9999", "0-0", "1-2-3", "<b>"):
        tab.goto(f"{url}?example=1&board-gate=ajar&board-branch=x&board-at={at}")
        tab.locator(".gate-told").wait_for()
        assert tab.locator(".gate-told").inner_text().startswith("Point at a word"), at
        assert tab.locator("[data-gate=learned]").get_attribute("aria-checked") == "true"
    tab.close()


def test_a_link_waits_for_no_explanation(page, slowly):
    slowly("explain")
    page.get_by_text("What's in a name").first.click()
    page.get_by_text("The explanations follow").wait_for()
    page.locator("#make-link").click()
    page.wait_for_function("() => document.querySelector('#link :is(textarea, input)')?.value.includes('example=1')")
    assert page.get_by_text("uploads are not kept").count() == 1  # on the button, and in no error
    answered(page)


def test_a_link_is_read_as_browsers_write_it():
    choices = {"opacity": [n / 20 for n in range(21)], "head": [1, 2, 3]}
    for text, value in (("1", 1.0), ("0", 0.0), ("0.55", 0.55), ("1.0", 1.0)):
        assert reopened({"example": "1", "opacity": text}, FILES, choices)[1] == {"opacity": value}
    assert reopened({"example": "1", "head": "7", "opacity": "nan"}, FILES, choices)[1] == {}


def test_an_upload_has_no_link(page, flower):
    ask(page, flower, PASSAGE)
    answered(page)
    page.locator("#make-link").click()
    page.get_by_text("uploads are not kept").first.wait_for()


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"example": "0"},
        {"example": "99"},
        {"example": "00019"},
        {"example": "²"},
        {"example": "../x"},
        {"part": "vit"},
    ],
)
def test_other_addresses_reopen_nothing(query):
    assert reopened(query, FILES, {"part": ["vit"]}) == (None, {})


def test_a_link_may_only_set_what_can_be_set():
    example, named = reopened(
        {"example": "1", "part": "<script>", "head": "3", "stretch": "True", "x": "y"},
        FILES,
        {"part": ["vit"], "head": [1, 2, 3], "stretch": [False, True]},
    )
    assert example == FILES[0] and named == {"head": 3, "stretch": True}
