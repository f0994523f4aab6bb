"""Which weights answer, where the host offers several: each has a page of its own, loaded and built when it is first
asked for."""

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anyio import CancelScope, CapacityLimiter, create_task_group, sleep
from anyio.abc import TaskGroup
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from musti_model import MustiPipeline, WeightsError
from musti_model.weights import EMBEDDED, STARTER

from .language import language, language_set, later, say, wanted
from .markup import render

LOG = logging.getLogger(__name__)
BELOW = "/weights/"  # the addresses of all pages but the first
PATIENCE = 1  # seconds until a browser is told that weights are being loaded
AGAIN = 30  # seconds for which a failed load is told to whoever asks, before it is tried again
LOADING = later("These weights are being loaded …")
FAILED = later("These weights could not be loaded on this machine; choose others.")
STARTING = later("embedded starter")  # as people read EMBEDDED


@dataclass(frozen=True)
class Offer:
    """Weights to choose. source: as for ``MustiPipeline.from_pretrained``; name: what they are called before they are
    loaded; path: where their page is below the page's root, "" for the first."""

    source: str
    name: str
    path: str


def listed(text: str) -> list[str]:
    """Sources of weights, separated by commas or white space."""
    return re.findall(r"[^,\s]+", text)


def offers_of(sources: Iterable[str]) -> list[Offer]:
    """What there is to choose, in the order given, each once."""
    named: dict[str, str] = {}
    for source in sources:
        named.setdefault(EMBEDDED if Path(source).is_dir() and Path(source).samefile(STARTER) else source, source)
    offers: dict[str, Offer] = {}
    for at, (name, source) in enumerate(named.items()):
        path = BELOW + re.sub(r"[^\w@]+", "-", name).strip("-")
        # two folders whose names differ by signs alone
        unlike = path if path not in {BELOW, *offers} else f"{path}~{at}"
        offers[unlike] = Offer(source, name, unlike if at else "")
    return list(offers.values())


def choice_html(offers: Iterable[Offer], here: Offer | None, root: str) -> str:
    """Links to the page of each. root: address of the first page, without a slash at its end."""
    links = [(say(STARTING) if o.name == EMBEDDED else o.name, f"{root}{quote(o.path)}/", o == here) for o in offers]
    return render("choice.html", links=links, loading=LOADING, failed=FAILED)


class Choice:
    """ASGI: hands the messages below the path of an offer to the page of its weights, all others to the page of the
    first.

    Whoever asks for weights that are not loaded waits for the one load; a browser that asks for the page is told so,
    and asks again by itself.

    load: offer -> pipeline, in a thread, one after the other; open_page: offer, pipeline -> their page, in the thread
    of the server, where nobody else makes components meanwhile (Gradio keeps the page that is being built, and the
    number of the next component, in one place for all threads). All visitors wait for it, a second for each weights.
    """

    def __init__(
        self,
        app: ASGIApp,
        offers: Iterable[Offer],
        load: Callable[[Offer], MustiPipeline],
        open_page: Callable[[Offer, MustiPipeline], Starlette],
    ) -> None:
        self.app, self.load, self.open_page = app, load, open_page
        self.offers = {o.path: o for o in offers if o.path}
        self.pages: dict[Offer, asyncio.Future[Starlette]] = {}
        self.one_by_one = CapacityLimiter(1)
        self.running: TaskGroup | None = None
        self.stopped = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            async with create_task_group() as self.running:
                await self.app(scope, receive, send)
                self.stopped.set()
                self.running.cancel_scope.cancel()
            return
        offer = self.offers.get("/".join(scope.get("path", "").split("/", 3)[:3]))
        if offer is None:
            await self.app(scope, receive, send)
            return
        page, headers = self._page(offer), Headers(scope=scope)
        for_people = "text/html" in headers.get("accept", "")
        await asyncio.wait([page], timeout=PATIENCE if for_people else None)
        if page.done() and page.exception() is None:
            answer: ASGIApp = page.result()
        else:
            # The address may name the language, as that of the page does.
            asked = {
                "referer": "?" + scope["query_string"].decode("latin-1"),
                "accept-language": headers.get("accept-language", ""),
            }
            with language_set(wanted(asked)):
                answer = _told(page, for_people)
        await answer(scope, receive, send)

    def _page(self, offer: Offer) -> "asyncio.Future[Starlette]":
        if offer not in self.pages:
            if self.running is None:
                raise RuntimeError("Pages are opened while the server runs.")
            self.pages[offer] = asyncio.get_running_loop().create_future()
            self.running.start_soon(self._keep, offer, self.pages[offer])
        return self.pages[offer]

    async def _keep(self, offer: Offer, page: "asyncio.Future[Starlette]") -> None:
        """Opens a page, and keeps it open until the server stops."""
        try:
            pipe = await run_sync(self.load, offer, limiter=self.one_by_one, abandon_on_cancel=True)
            app = self.open_page(offer, pipe)
            with CancelScope(shield=True):  # a load is given up when the server stops, an open page is closed
                async with app.router.lifespan_context(app):
                    page.set_result(app)
                    await self.stopped.wait()
        except Exception as error:
            LOG.warning(
                "the weights %s could not be loaded", offer.source, exc_info=not isinstance(error, WeightsError)
            )
            if not page.done():
                page.set_exception(error)
                await sleep(AGAIN)
                del self.pages[offer]


def _told(page: "asyncio.Future[Starlette]", for_people: bool) -> Response:
    """That weights are being loaded, or why they could not be, in the visitor's language."""
    error = page.exception() if page.done() else None
    told = say(LOADING if error is None else error.args[0] if isinstance(error, WeightsError) else FAILED)
    status = 202 if error is None else 503
    if not for_people:
        return JSONResponse({"detail": told, "error": told}, status)
    values: dict[str, Any] = {"told": told, "loading": error is None, "language": language()}
    return HTMLResponse(render("loading.html", **values), status, {"Cache-Control": "no-store"})
