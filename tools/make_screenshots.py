"""Takes the README's screenshots from the real page (needs Chromium and playwright).

python -m tools.make_screenshots [FOLDER]
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

import app
from page.examples import EXAMPLES
from tools.chromium import chromium

ROOT = Path(__file__).parents[1]


def shoot(url: str, folder: Path, width: int, scheme: str) -> None:
    """One visit at one width: every section of one answer."""
    example = EXAMPLES[0]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(f"{url}?__theme={scheme}")
        page.locator("#picture input[type=file]").set_input_files(str(example.path))
        page.locator("#picture img").first.wait_for()
        page.get_by_label("Passage").fill(example.passage)
        page.get_by_role("button", name="Compare", exact=True).click()
        page.locator("#verdict h2").wait_for(timeout=120_000)
        page.wait_for_function("() => !document.querySelector('#told').innerText.trim()", timeout=120_000)
        page.screenshot(path=folder / f"page-board-{width}-{scheme}.png")
        marks = {
            "why": "#faithful-evidence-map summary",
            "what-if": "#board .strike",
            "gate": "#gate-map img",
            "attention": "#attention-map img",
            "vote": "#votes table",
        }
        for name, mark in marks.items():
            page.locator(f"#section-{name} > button").click()
            page.locator(mark).first.wait_for()
            page.wait_for_timeout(600)
            page.screenshot(path=folder / f"page-{name.split('-')[0]}-{width}-{scheme}.png", full_page=True)
            page.locator(f"#section-{name} > button").click()
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
