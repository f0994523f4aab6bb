"""The real page in Chromium, for every browser test: ``url``, ``browser``, ``page`` and ``flower`` are fixtures (see conftest.py)."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)


@pytest.fixture(scope="session")
def url(tmp_path_factory):
    """The real page on the embedded starter."""
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("gradio"))
    import app

    demo = app.build(*app.load_pipeline())
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", server_port=None, **app.launch_settings())
    yield address
    # A worker that is inside PyTorch when Python ends would take the process down with it.
    deadline = time.monotonic() + 60
    while any(demo._queue.active_jobs) and time.monotonic() < deadline:
        time.sleep(0.1)
    demo.close()


@pytest.fixture(scope="session")
def browser():
    """Chromium of this machine; on CI there must be one."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("There is no Chromium on this machine; install it (apt-get install chromium) to test the page.")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, url):
    """A fresh tab; afterwards: no outside request, no script error, nothing that the console calls an error."""
    tab = browser.new_page(viewport={"width": 1280, "height": 1100}, locale="en-GB")
    requests, errors = [], []
    tab.on("request", lambda r: requests.append(r.url))
    tab.on("pageerror", lambda e: errors.append(str(e)))
    tab.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    tab.goto(url)
    tab.get_by_role("button", name="Compare", exact=True).wait_for()
    yield tab
    outside = [r for r in requests if not r.startswith((url, "data:", "blob:"))]
    tab.close()
    assert not outside
    assert not errors


@pytest.fixture
def slowly(monkeypatch):
    """Has a method of the pipeline take a second longer; -> an event that is set when it is first called."""
    from musti_model import MustiPipeline

    def slow_down(step: str) -> threading.Event:
        real, begun = getattr(MustiPipeline, step), threading.Event()

        def slow(self, *given, **named):
            begun.set()
            time.sleep(1.0)
            return real(self, *given, **named)

        monkeypatch.setattr(MustiPipeline, step, slow)
        return begun

    return slow_down


def wait_for(page, event: threading.Event) -> None:
    """Waits in the browser, which keeps its messages going."""
    while not event.is_set():
        page.wait_for_timeout(50)


def ask(page, picture: Path | str, passage: str) -> None:
    page.locator("#picture input[type=file]").set_input_files(str(picture))
    page.locator("#picture img").first.wait_for()
    page.get_by_label("Passage").fill(passage)
    page.get_by_role("button", name="Compare", exact=True).click()


@pytest.fixture(scope="session")
def flower() -> Path:
    return Path(__file__).parents[1] / "assets" / "examples" / "flower.jpg"
