"""Keyboard and screen readers: axe-core finds nothing serious, light or dark, narrow or wide; the cells of a board are
one stop."""

import pytest

from tests.browser import answered, ask, new_tab, open_section, serious

PASSAGE = "She blew out the candle, and the room went dark."
SECTIONS = ("why", "what-if", "gate", "attention", "vote")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_one_pair(page, url, flower, scheme):
    """At first, with a word chosen on the board, with the gate shut and every section open, and on the tour."""
    page.goto(f"{url}?__theme={scheme}")
    page.get_by_role("button", name="Compare", exact=True).wait_for()
    assert serious(page) == []
    ask(page, flower.with_name("candle.jpg"), PASSAGE)
    answered(page)
    page.locator(".gate-word", has_text="candle").click()
    assert serious(page) == [], "board"
    page.locator(".gate-switch").get_by_role("radio", name="shut").click()
    for name in SECTIONS:
        open_section(page, name)
        if name == "what-if":
            page.locator("#board .strike", has_text="candle").click()
            page.locator("#altered table").wait_for()
            assert page.locator("#altered").get_attribute("aria-live") == "polite"
    assert serious(page) == [], "sections"
    page.locator("#show-around").click()
    page.locator("#tour-next").wait_for()
    answered(page)
    page.wait_for_timeout(800)  # what fades in has its colours then
    assert serious(page) == [], "tour"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_other_tabs(page, url, flower, scheme):
    page.goto(f"{url}?__theme={scheme}")
    page.get_by_role("tab", name="Compare many").click()
    page.locator("#many-picture input[type=file]").set_input_files(str(flower))
    page.locator("#many-picture img").first.wait_for()
    page.locator("#many-passages textarea").fill("A rose.\n\nA herring.")
    page.locator("#rank").click()
    page.locator("#ranking tbody tr").first.get_by_role("button").click()
    page.locator("#card-map-1 img").wait_for()
    assert serious(page) == []
    for name in ("Batch", "About"):
        page.get_by_role("tab", name=name, exact=True).click()
        assert serious(page) == [], name


@pytest.mark.parametrize("width", [390, 768, 1920])
def test_no_width_scrolls_sideways(browser, url, flower, width):
    tab = new_tab(browser, viewport={"width": width, "height": 900})
    tab.goto(url)
    tab.get_by_role("button", name="Compare", exact=True).wait_for()
    ask(tab, flower.with_name("candle.jpg"), PASSAGE)
    open_section(tab, "why")
    tab.locator("#evidence-map").scroll_into_view_if_needed()
    tab.locator("#evidence-map img").wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    text = tab.locator("#evidence .passage").bounding_box()
    assert text["width"] <= 900  # lines that an eye can follow
    tab.close()


def test_the_cells_of_the_board_are_one_stop(page, flower):
    ask(page, flower.with_name("candle.jpg"), PASSAGE)
    answered(page)
    open_section(page, "what-if")
    cells = page.locator("#board .cells button")
    page.locator("#board .strike").last.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "row 1, column 1"
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "row 2, column 1"
    page.keyboard.press("Enter")
    page.locator("#altered table").wait_for()
    assert cells.nth(8).get_attribute("aria-pressed") == "true"
    cells.nth(8).focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.cells')") is None
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "row 2, column 1"
