"""The real page in Chromium, for every browser test: ``page``, ``browser``, ``url``, ``starter_url`` and ``flower`` are
fixtures (see conftest.py). Page and browser end with a file: a page that nobody asks takes a twentieth of a core."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.processes import free_port
from tools.chromium import chromium

if TYPE_CHECKING:
    import gradio as gr
    from playwright.sync_api import Browser, BrowserContext, Page

    from musti_model import MustiPipeline

PATIENCE = 120_000  # ms that anything on the page may take on a slow, busy machine


def serve(demo: "gr.Blocks", settings: dict[str, Any]) -> str:
    """Has it served by this process. -> its address."""
    own = {"prevent_thread_lock": True, "quiet": True, "server_name": "127.0.0.1", "server_port": free_port()}
    with pytest.MonkeyPatch.context() as patched:
        # Gradio refuses to go on where its first page takes three seconds, as it may beside other processes.
        patched.setattr("gradio.networking.url_ok", lambda _url: True)
        return str(demo.launch(**own, **settings)[1])


@contextmanager
def served(pipe: "MustiPipeline", problem: str = "") -> Iterator[str]:
    """The address of a page that answers by these weights."""
    import app

    demo = app.build(pipe, problem)
    address = serve(demo, app.launch_settings())
    yield address
    # A worker that is inside PyTorch when Python ends would take the process down with it.
    deadline = time.monotonic() + 60
    while any(demo._queue.active_jobs) and time.monotonic() < deadline:
        time.sleep(0.1)
    demo.close()


@pytest.fixture(scope="session")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Uploads lie in a folder of the tests."""
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("gradio"))


@pytest.fixture(scope="module")
def url(uploads: None, page_pipe: "MustiPipeline") -> Iterator[str]:
    """The page on a tiny random model with a gate of words, which explains in a tenth of the time."""
    with served(page_pipe) as address:
        yield address


@pytest.fixture(scope="module")
def starter_url(uploads: None) -> Iterator[str]:
    """The page on the embedded weights, for tests of what it says of a picture and a passage."""
    import app

    with served(*app.load_pipeline()) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium of this machine; on CI there must be one."""
    from playwright.sync_api import sync_playwright

    if chromium() is None and not os.environ.get("CI"):
        pytest.skip("There is no Chromium on this machine; install it (apt-get install chromium) to test the page.")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        yield launched
        launched.close()


# While the server is at work Gradio draws the page anew in every frame, which takes as much of a machine as the model.
FEW_FRAMES = """
  const next = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (draw) => setTimeout(() => next(draw), 100);
  window.cancelAnimationFrame = clearTimeout;
"""


def new_context(browser: "Browser", **named: Any) -> "BrowserContext":
    """A visitor's browser, with nothing in its cache."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 1100}, "locale": "en-GB"} | named)
    context.set_default_timeout(PATIENCE)
    context.add_init_script(FEW_FRAMES)
    return context


def new_tab(browser: "Browser", **named: Any) -> "Page":
    """A tab of a browser of its own."""
    tab = browser.new_page(**{"viewport": {"width": 1280, "height": 1100}, "locale": "en-GB"} | named)
    tab.set_default_timeout(PATIENCE)
    tab.add_init_script(FEW_FRAMES)
    return tab


@pytest.fixture(scope="module")
def visitor(browser: "Browser") -> Iterator["BrowserContext"]:
    """A browser that has the page's scripts in its cache, which a page is loaded with in half the time."""
    context = new_context(browser)
    yield context
    context.close()


@pytest.fixture
def page(request: pytest.FixtureRequest, visitor: "BrowserContext") -> Iterator["Page"]:
    """A fresh tab on the tiny model, or on the embedded weights in a test that is marked ``starter``; afterwards: no
    outside request, no script error, nothing that the console calls an error."""
    url = request.getfixturevalue("starter_url" if request.node.get_closest_marker("starter") else "url")
    tab = visitor.new_page()
    requests: list[str] = []
    errors: list[str] = []
    tab.on("request", lambda r: requests.append(r.url))
    tab.on("pageerror", lambda e: errors.append(str(e)))
    tab.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    tab.goto(url)
    tab.get_by_role("button", name="Compare", exact=True).wait_for()
    yield tab
    outside = [r for r in requests if not r.startswith((url, "data:", "blob:"))]
    tab.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
    visitor.clear_cookies()
    tab.close()
    assert not outside
    assert not errors


@pytest.fixture(autouse=True)
def few_passes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the tests of the page an explanation takes few passes, and is kept for those that ask the same: what the page
    does with the numbers is tested there, not how good they are. Evidence by the embedded weights is by gradients, in a
    third of the time, but for tests that look at it: ``starter(evidence=True)``."""
    if "browser" in request.fixturenames:
        import page.recent
        from musti_model.methods import QUICK, deletion_insertion, gate_effect, hiding

        starter = request.node.get_closest_marker("starter")
        if (starter and not starter.kwargs.get("evidence")) or "starter_url" in request.fixturenames:
            monkeypatch.setattr("musti_model.pipeline.BEST", QUICK)
        monkeypatch.setattr(page.recent, "MOST", 64)
        monkeypatch.setattr(hiding, "FEW", 8)
        monkeypatch.setattr(gate_effect, "NODES", (3,))
        monkeypatch.setattr(deletion_insertion, "FEW_STEPS", 3)
        monkeypatch.setattr(deletion_insertion, "FEW_RANDOM", 1)


class Slow(NamedTuple):
    """When a call that takes a second longer was begun, and when it had ended."""

    begun: threading.Event
    ended: threading.Event


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Slow]:
    """Has a method of the pipeline take a second longer; the events tell of its first call."""
    from musti_model import MustiPipeline

    def slow_down(step: str) -> Slow:
        real, told = getattr(MustiPipeline, step), Slow(threading.Event(), threading.Event())

        def slow(self: MustiPipeline, *given: Any, **named: Any) -> Any:
            told.begun.set()
            time.sleep(1.0)
            try:
                return real(self, *given, **named)
            finally:
                told.ended.set()

        monkeypatch.setattr(MustiPipeline, step, slow)
        return told

    return slow_down


def wait_for(page: "Page", event: threading.Event) -> None:
    """Waits in the browser, which keeps its messages going."""
    while not event.is_set():
        page.wait_for_timeout(50)


def ask(page: "Page", picture: Path | str, passage: str) -> None:
    page.locator("#picture input[type=file]").set_input_files(str(picture))
    page.locator("#picture img").first.wait_for()
    page.get_by_label("Passage").fill(passage)
    page.get_by_role("button", name="Compare", exact=True).click()


# The line that says what is going on is empty and the board is about the passage in its field; at three looks in a row,
# since what one message brings is not drawn at one stroke.
ALL_TOLD = """() => {
  const [told, board, passage] = ["#told", "#gate-board", "#passage textarea"].map((s) => document.querySelector(s));
  const words = [...document.querySelectorAll(".gate-word")];
  const all = told && board && !told.innerText.trim() && board.innerText.trim() && words.every((w) => \
passage.value.includes(w.innerText));
  return (window.quiet = all ? window.quiet + 1 : 0) >= 3;
}"""


def answered(page: "Page", timeout: float = PATIENCE) -> None:
    """Waits until all is told of the question that was asked: the answer, its explanations, how faithful they are."""
    page.locator("#verdict h2").wait_for(timeout=timeout)
    page.evaluate("() => { window.quiet = 0; }")
    page.wait_for_function(ALL_TOLD, polling=100, timeout=timeout)


def open_section(page: "Page", name: str) -> None:
    """Opens a section below the board, where it is closed; what is in it is built then."""
    button = page.locator(f"#section-{name} > button.label-wrap")
    button.wait_for()
    if "open" not in (button.get_attribute("class") or "").split():
        button.click()
    page.locator(f"#section-{name} [data-testid=accordion-content]").wait_for()


def serious(page: "Page") -> list[str]:
    """What axe-core calls serious or critical, in one line each."""
    from axe_playwright_python.sync_playwright import Axe

    page.wait_for_timeout(300)
    moving = "a.playState === 'running' && a.effect.getTiming().iterations !== Infinity"
    page.wait_for_function(f"() => !document.getAnimations().some((a) => {moving})")  # colours fade in
    found = Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {n['html'][:150]}" for v in found if v["impact"] in ("serious", "critical") for n in v["nodes"]
    ]


@pytest.fixture(scope="session")
def second_branch(page_pipe: "MustiPipeline") -> tuple[str, str]:
    """Name and label of the second branch of the page's weights."""
    from page.names import branch_name

    name = page_pipe.config.branches[1].name
    return name, branch_name(name)


@pytest.fixture(scope="session")
def flower() -> Path:
    return Path(__file__).parents[1] / "assets" / "examples" / "flower.jpg"
