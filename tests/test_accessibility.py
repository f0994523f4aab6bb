"""Keyboard and screen readers: axe-core finds nothing serious, light or dark, narrow or wide; the cells of a board are
one stop."""

from tests.browser import answered, ask, open_section, serious

PASSAGE = "She blew out the candle, and the room went dark."
SECTIONS = ("why", "what-if", "gate", "attention", "vote")


def found(page) -> list[str]:
    """What is serious in light colours or in dark ones."""
    result = []
    for scheme in ("light", "dark"):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", scheme == "dark")
        result += [f"{scheme}: {line}" for line in serious(page)]
    return result


def test_one_pair(page, flower):
    """At first, with a word chosen on the board, with the gate shut and every section open, and on the tour."""
    assert found(page) == []
    ask(page, flower.with_name("candle.jpg"), PASSAGE)
    answered(page)
    page.locator(".gate-word", has_text="candle").click()
    assert found(page) == [], "board"
    page.locator(".gate-switch").get_by_role("radio", name="shut").click()
    for name in SECTIONS:
        open_section(page, name)
        if name == "what-if":
            page.locator("#board .strike", has_text="candle").click()
            page.locator("#altered table").wait_for()
            assert page.locator("#altered").get_attribute("aria-live") == "polite"
    assert found(page) == [], "sections"
    page.locator("#show-around").click()
    page.locator("#tour-next").wait_for()
    answered(page)
    page.wait_for_timeout(800)  # what fades in has its colours then
    assert found(page) == [], "tour"


def test_the_other_tabs(page, flower):
    page.get_by_role("tab", name="Compare many").click()
    page.locator("#many-picture input[type=file]").set_input_files(str(flower))
    page.locator("#many-picture img").first.wait_for()
    page.locator("#many-passages textarea").fill("A rose.\n\nA herring.")
    page.locator("#rank").click()
    page.locator("#ranking tbody tr").first.get_by_role("button").click()
    page.locator("#card-map-1 img").wait_for()
    assert found(page) == []
    for name in ("Batch", "About"):
        page.get_by_role("tab", name=name, exact=True).click()
        assert found(page) == [], name


def test_no_width_scrolls_sideways(page, flower):
    ask(page, flower.with_name("candle.jpg"), PASSAGE)
    open_section(page, "why")
    for width in (390, 768, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        page.locator("#evidence-map").scroll_into_view_if_needed()
        page.locator("#evidence-map img").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        text = page.locator("#evidence .passage").bounding_box()
        assert text["width"] <= 900  # lines that an eye can follow


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
