"""The page: upload a picture and a historical passage, see whether both evoke the same smell, and why. Wires components
to the pipeline.

Importing this module starts and downloads nothing; ``python app.py`` does.
"""

import contextlib
import ctypes
import os
import signal

from page.cache import own_folder, swept

# All of this must be set before gradio and torch are imported.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing phones home
# Gradio would make a table of the last 10,000 answers after every answer; nobody looks at it.
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
# Threads of PyTorch that wait for one another sleep: spinning, they take the cores from the other lane and from the
# server, and under load one answer then costs twenty times as much.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
own_folder()

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

try:  # a ZeroGPU Space lends its GPU to functions marked like this; elsewhere the mark does nothing
    import spaces

    on_gpu = spaces.GPU(duration=30)
except ImportError:

    def on_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
        """No ZeroGPU here: the function as it is."""
        return function


import gradio as gr
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware

from musti_model import MustiPipeline, Sentence, WeightsError
from musti_model.weights import STARTER
from page.calls import Lanes, calls_of, new_lanes
from page.choice import Choice, Offer, choice_html, listed, offers_of
from page.door import Door, Page
from page.endpoints import endpoints
from page.examples import EXAMPLES
from page.language import Told, later, switch_html, translate_on_load, translations
from page.markup import script
from page.tabs.about import about_tab, measured_scores
from page.tabs.batch import BatchTab
from page.tabs.many import ManyTab
from page.tabs.pair import PairTab
from page.theme import theme
from page.visit import LIFETIME, MOST_MEGABYTES, MOST_VISITS, MOST_WAITING, SILENT
from page.weights import weights_banner

ROOT = Path(__file__).parent
ASSETS = ROOT / "assets"
DONE = later("done")


def load_pipeline(source: str | None = None) -> tuple[MustiPipeline, str | None]:
    """The weights that are asked for (see ``MustiPipeline.from_pretrained``); if they cannot be had, the embedded
    starter and the sentence that says so."""
    try:
        return MustiPipeline.from_pretrained(source), None
    except WeightsError as error:
        told = Sentence("{problem} The page runs on the embedded starter weights instead.", problem=error.args[0])
        return MustiPipeline.from_pretrained(STARTER), told


# The page -------------------------------------------------------------------------------------------------------------


def build(
    pipe: MustiPipeline,
    problem: str | None = None,
    lanes: Lanes | None = None,
    offers: Sequence[Offer] = (),
    here: Offer | None = None,
) -> gr.Blocks:
    """The page for one pipeline.

    problem: why it is not the one asked for; lanes: see ``calls_of``; offers, here: what there is to choose, and which
    of it this is.
    """
    calls, scores = calls_of(pipe, on_gpu, lanes or new_lanes()), measured_scores(ASSETS)
    with Page(title=later("Do picture and passage smell alike?"), delete_cache=(LIFETIME, LIFETIME)) as demo:
        switch = Told(switch_html, js_on_load=script("languages.js"), elem_id="languages")
        gr.Markdown(
            "# Do this picture and this passage evoke the same smell?\nUpload a picture, paste a historical "
            "passage (English, German, French, Italian, Slovenian), and see the model's answer and why. Uploads "
            "and answers are deleted within two hours."
        )
        if len(offers) > 1:
            Told(lambda: choice_html(offers, here, demo.root_path.rstrip("/")), js_on_load=script("choice.js"))
        banner = Told(lambda: weights_banner(pipe, problem), js_on_load=script("banner.js"))
        with gr.Tabs(overflow_behavior="wrap") as pages:
            with gr.Tab("One pair", id="pair"):
                pair = PairTab(calls, [(e.path, e.passage) for e in EXAMPLES], scores, demo)
            with gr.Tab("Compare many"):
                ManyTab(calls)
            with gr.Tab("Batch"):
                BatchTab(calls)
            with gr.Tab("About", id="about"):
                about_tab(pipe, scores, pages, pair)
        shown = banner.click(lambda: gr.update(selected="about"), None, pages, **SILENT)
        shown.then(None, js=script("show_card.js"), api_visibility="private")
        demo.load(None, js=script("page.js"), api_visibility="private")
        demo.load(None, js=script("queue.js"), api_visibility="private")
        translate_on_load(demo, switch)
        pair.tour.speaks(switch)
        endpoints(calls)
    return demo.queue(status_update_rate=2, api_open=False, max_size=MOST_WAITING, default_concurrency_limit=1)


def launch_settings() -> dict[str, Any]:
    """Arguments of ``launch``, the same for people and for tests."""
    return {
        "theme": theme(),
        "css_paths": [ROOT / "page" / "static" / "style.css"],
        "max_file_size": f"{MOST_MEGABYTES}mb",
        "run_history": False,
        "enable_monitoring": False,
        "mcp_server": find_spec("mcp") is not None,  # a tool for language models, where gradio[mcp] is installed
        "ssr_mode": False,  # a Space would switch it on; the page is tried without
        "footer_links": ["api"],
        # Gradio announces to screen readers that something is done by a text that its dictionaries lack; Slovenian
        # visitors get the English one.
        "i18n": gr.I18n(
            **{
                tag: {"common.complete": words}
                for tag, words in {"en": DONE, **{t: said[DONE] for t, said in translations().items()}}.items()
            }
        ),
        "allowed_paths": [str(ASSETS / "examples")],
        "state_session_capacity": MOST_VISITS,
        "app_kwargs": {"middleware": [Middleware(Door)], "lifespan": swept(LIFETIME)},
    }


def pages(sources: Sequence[str]) -> tuple[gr.Blocks, dict[str, Any]]:
    """The page of the first weights, and arguments of its ``launch`` by which those of the others are served below it,
    each once it is asked for.

    sources: as for ``MustiPipeline.from_pretrained``; without any it is asked what that takes.
    """
    (pipe, problem), lanes, settings = load_pipeline(next(iter(sources), None)), new_lanes(), launch_settings()
    offers = offers_of([str(STARTER), *sources] if problem else sources)
    first = build(pipe, problem, lanes, offers, next(iter(offers), None))

    def open_page(offer: Offer, pipe: MustiPipeline) -> Starlette:
        demo, path = build(pipe, None, lanes, offers, offer), first.root_path.rstrip("/") + offer.path
        # The first page sweeps the folder of uploads for all, and is the one that language models ask.
        own = launch_settings() | {"mcp_server": False, "app_kwargs": {"middleware": [Middleware(Door)]}}
        demo.state_session_capacity = own.pop("state_session_capacity")
        page = gr.mount_gradio_app(FastAPI(openapi_url=None), demo, offer.path, root_path=path, show_error=False, **own)
        # else open pages would keep the server from stopping
        page.routes[-1].app.stop_event = first.server_app.stop_event
        return page

    if len(offers) > 1:
        settings["app_kwargs"]["middleware"].insert(
            0, Middleware(Choice, offers=offers, load=loading(offers), open_page=open_page)
        )
    return first, settings


def loading(offers: Sequence[Offer]) -> Callable[[Offer], MustiPipeline]:
    """What loads weights when they are asked for. Where a GPU is lent all are loaded now: ZeroGPU lends only to what
    the main thread loaded before the start."""
    loaded = {}
    if on_gpu(_probe) is not _probe:
        for offer in offers[1:]:
            with contextlib.suppress(WeightsError):  # it is told to whoever chooses them
                loaded[offer] = MustiPipeline.from_pretrained(offer.source)
    return lambda offer: loaded.get(offer) or MustiPipeline.from_pretrained(offer.source)


def _probe() -> None:
    """Tells whether ``on_gpu`` does anything."""


def share_memory() -> None:
    """Has the threads of this process share their memory, where the C library lets them (glibc's M_ARENA_MAX). Else
    each of Gradio's forty keeps what it had of a burst of visitors: 160 MB after one of ``benchmarks.load``, against 45
    MB."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(-8, 2)


if __name__ == "__main__":
    share_memory()
    # stopped as by Ctrl+C: uploads are deleted on the way out
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    demo, settings = pages(listed(os.environ.get("MUSTI_MODELS", "")))
    demo.launch(**settings)
