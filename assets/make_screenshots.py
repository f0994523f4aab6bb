"""Takes the README's screenshots from the real page (needs Chromium and playwright).

    python assets/make_screenshots.py [FOLDER]
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import app  # noqa: E402


def open_tab(page: Page, name: str) -> None:
    """A tab; on a narrow screen those that find no room stand in a menu."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.count() or not tab.first.is_visible():
        page.locator(".overflow-menu > button:visible").last.click()
        page.locator(".overflow-dropdown button", has_text=name).click()
    else:
        tab.first.click()


def shoot(url: str, folder: Path, width: int, scheme: str) -> None:
    """One visit at one width: every tab of one answer."""
    example = app.EXAMPLES[0]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(f"{url}?__theme={scheme}")
        page.locator("#picture input[type=file]").set_input_files(str(example.path))
        page.locator("#picture img").first.wait_for()
        page.get_by_label("Passage").fill(example.passage)
        page.get_by_role("button", name="Compare", exact=True).click()
        page.locator("#faithful li").first.wait_for(timeout=120_000)
        for tab, mark in (("Why", "#evidence-map img"), ("What if", "#board .strike"), ("Vote", "#votes table"), ("Gate effect", "#gate-map img"), ("Overlays", "#attention-map img"), ("Words", "#words .word")):
            open_tab(page, tab)
            page.locator(mark).first.wait_for()
            page.wait_for_timeout(600)
            page.screenshot(path=folder / f"page-{tab.split()[0].lower()}-{width}-{scheme}.png", full_page=True)
        browser.close()


def main(folder: Path) -> None:
    """All widths and schemes."""
    folder.mkdir(parents=True, exist_ok=True)
    demo = app.build(*app.load_pipeline())
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.launch_settings())
    for width, scheme in ((1280, "light"), (390, "dark")):
        shoot(url, folder, width, scheme)
    demo.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "assets" / "figures")
