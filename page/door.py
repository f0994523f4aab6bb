"""What stands between visitors and Gradio: calls are looked at before it works on them, and whatever goes wrong comes
back as one sentence."""

import json
import logging
import re
from collections.abc import AsyncIterator, Iterable
from types import SimpleNamespace
from typing import Any

import gradio as gr
from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musti_model.processing import MAX_BYTES

from .calls import MOST_PICTURES
from .inputs import checked
from .language import NO_ROOM, accepted_by, language_set, later, no_room, refusal, say, wanted
from .visit import MOST_MEGABYTES, MOST_WAITING

LOG = logging.getLogger(__name__)
LARGEST_CALL = 64_000_000  # bytes: a picture of the largest size as a data address, and passages
SMALL_CALL = 1_000_000  # bytes up to which a call is let in whatever waits: as many as may wait take a gigabyte
MOST_BYTES_WAITING = 500_000_000  # in the calls that wait in line
LARGEST_UPLOAD = (MOST_PICTURES + 1) * MAX_BYTES  # bytes of one message
DEEPEST = 16  # lists and objects within one another in a call; the page itself needs four
MOST_VALUES = 100_000  # in a call; the page itself needs some hundred
# Commas and brackets in a call, those of passages too. While JSON is read nobody is answered: a second for a million.
MOST_MARKS = 1_000_000
LONGEST_NAME = 100  # characters of a session's name
LONGEST_ADDRESS = 8000  # bytes
# Parts of Gradio that this page has no use for: they write files, fetch from other servers, or tell on visitors.
UNUSED = re.compile(
    r"/gradio_api/(process_recording|(undo-)?vibe|component_server|proxy=|stream/|deep_link|run-history|runs|file=\s*https?:|file/\s*https?:)",
    re.IGNORECASE,
)
CALLS = re.compile(r"/gradio_api/(call|queue/join|run|api|cancel|reset)\b")
PLAIN = re.compile(r"/gradio_api/(mcp|file=)")  # what is read by machines alone
NO_SUCH = later("There is no such endpoint; “Use via API” on the page lists those there are.")
MISSHAPEN = later("This call does not have the shape that its endpoint takes; “Use via API” on the page shows it.")
TOO_LARGE = later("This is too large; {most:.0f} MB at a time is the limit.")
BUSY = later("Too many questions are waiting already; ask again in a minute.")
LINE = later(
    "{count} questions are waiting in line already. Yours is asked by itself as soon as there is room; please "
    "leave this page open."
)
BROKEN = later("This could not be done; try again.")


def ours(error: BaseException) -> bool:
    """Whether an error is a sentence of this page; Gradio's own name paths and components, and are in English."""
    return isinstance(error, gr.Error) and not error.print_exception


class Page(gr.Blocks):
    """Blocks whose calls are checked, whose errors are sentences in the visitor's language, and which keep nothing of
    those that come without a page."""

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        """As Gradio's, after a look at what came. Raises gr.Error and no other."""
        try:
            given = await run_sync(checked, block_fn.inputs, inputs)
            return await super().preprocess_data(block_fn, given, state, explicit_call)
        except Exception as error:
            if ours(error) or isinstance(error, OSError):
                raise
            LOG.info("a call was misshapen: %s", error)
            raise refusal(MISSHAPEN) from error

    async def process_api(
        self,
        block_fn: Any,
        inputs: list[Any],
        state: Any = None,
        request: Any = None,
        iterator: Any = None,
        session_hash: str | None = None,
        *more: Any,
        **named: Any,
    ) -> dict[str, Any]:
        """As Gradio's. Raises gr.Error and no other."""
        block_fn = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        with language_set(accepted_by(request)):
            try:
                return await super().process_api(
                    block_fn, inputs, state, request, iterator, session_hash, *more, **named
                )
            except Exception as error:
                if ours(error):
                    raise
                LOG.exception("a call could not be answered")
                raise refusal(NO_ROOM if no_room(error) else BROKEN) from error
            finally:
                if block_fn.api_visibility == "public" and state is not None and not state.state_data:
                    self._forget(session_hash)

    @property
    def state_holder(self) -> Any:
        """Gradio's sessions. Each would begin with the settings of every component on the page, for links of a kind
        that this page does not have: a third of a megabyte, and most of the time that a quick question costs. Here a
        session begins empty, and holds what its own calls touch."""
        return self._holder

    @state_holder.setter
    def state_holder(self, holder: Any) -> None:
        holder.blocks, self._holder = SimpleNamespace(default_config=self.default_config, blocks={}), holder

    def waiting(self) -> int:
        """Characters of all that was given in calls which wait in line."""
        queues = self._queue.event_queue_per_concurrency_id.values()
        return sum(_characters(event.data.data) for queue in queues for event in queue.queue if event.data)

    def _forget(self, session: str | None) -> None:
        """The session of a machine holds its last question, and nothing to come back to."""
        holder = self.state_holder
        with holder.lock:
            holder.session_data.pop(session, None)
            holder.time_last_used.pop(session, None)


class Door:
    """The outermost layer of the app: bounds what comes in, and says in one sentence what Gradio answers with a
    code."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or "/gradio_api/" not in scope["path"]:
            await self.app(scope, receive, send)
            return
        with language_set(wanted(Headers(scope=scope))):
            await _Visit(self.app, scope, receive, send).answer()


class _Visit:
    """One message and its answer."""

    def __init__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        self.app, self.scope, self._receive, self._send = app, scope, receive, send
        self.path, self.headers = scope["path"], Headers(scope=scope)
        self.upload = self.path.rstrip("/").endswith("/gradio_api/upload")
        self.most = LARGEST_UPLOAD if self.upload else LARGEST_CALL
        self.came, self.told, self.begun = 0, False, False

    async def answer(self) -> None:
        if len(self.scope.get("query_string", b"")) + len(self.path) > LONGEST_ADDRESS or UNUSED.search(self.path):
            return await self.tell(404)
        if int(self.headers.get("content-length") or 0) > self.most:
            return await self.tell(413)
        receive: Receive = self.receive
        try:
            if self.scope["method"] == "POST" and CALLS.search(self.path):
                body = b"".join([part async for part in self.parts()])
                if not _can_be_a_call(body):
                    return await self.tell(400)
                if len(body) > SMALL_CALL and self.scope["app"].get_blocks().waiting() > MOST_BYTES_WAITING:
                    return await self.tell(503)
                receive = _again(body, self._receive)
            await self.app(self.scope, receive, self.send)
        except ClientDisconnect:
            pass  # nobody is left to be told
        except Exception as error:
            if self.begun:
                raise
            if self.told:
                return None
            status = 413 if isinstance(error, _TooLarge) else 507 if no_room(error) else 404 if _unknown(error) else 500
            if status == 500 and isinstance(error, TypeError | ValueError) and CALLS.search(self.path):
                status = 400  # its functions ran in the queue, if they ran; this is about what was given
            if status in (500, 507):
                LOG.exception("a message could not be answered")
            await self.tell(status)
        return None

    async def receive(self) -> Message:
        message = await self._receive()
        self.came += len(message.get("body", b""))
        if self.came > self.most:
            raise _TooLarge("too large")
        return message

    async def parts(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self.receive()
            more = message.get("more_body", False) and message["type"] == "http.request"
            yield message.get("body", b"")

    async def send(self, message: Message) -> None:
        if self.told:
            return
        # A 500 that Gradio itself sends holds the sentence of a call already.
        if (
            message["type"] == "http.response.start"
            and message["status"] >= 400
            and message["status"] != 500
            and not PLAIN.search(self.path)
        ):
            await self.tell(413 if self.came > self.most else message["status"])
            return
        self.begun = True
        await self._send(message)

    async def tell(self, status: int) -> None:
        """A sentence instead of Gradio's own text. Its client in the browser shows the sentence, but for 503, for which
        it has a text of its own, in English; its client for Python knows a full queue by 503 alone. Browsers name a
        language. On the page a script (``static/queue.js``) asks again, and says so."""
        self.told = True
        if status == 503 and "accept-language" in self.headers:
            status = 429
        whole = self.came > self.most or int(self.headers.get("content-length") or 0) > self.most
        most = MOST_MEGABYTES if self.upload and not whole else self.most / 1e6  # Gradio counts the bytes of each file
        told = (
            say(TOO_LARGE, most=most)
            if status == 413
            else say(_SENTENCES.get(status, BROKEN if status >= 500 else MISSHAPEN))
        )
        line = {"line": say(LINE, count=MOST_WAITING)} if status == 429 else {}
        response = (
            PlainTextResponse(told, status)
            if self.upload
            else JSONResponse({"detail": told, "error": told, **line}, status)
        )
        await response(self.scope, self._receive, self._send)


_SENTENCES = {404: NO_SUCH, 405: NO_SUCH, 403: NO_SUCH, 429: BUSY, 503: BUSY, 507: NO_ROOM}


class _TooLarge(MultiPartException):
    """A message beyond its limit. Gradio deletes what it wrote of an upload that ends with this kind of error."""


def _unknown(error: Exception) -> bool:
    """Whether an error says that there is no such function."""
    return isinstance(error, LookupError) or type(error).__name__ == "FnIndexInferError"


def _can_be_a_call(body: bytes) -> bool:
    """Whether a body is JSON as calls are: an object, not too deep, of not too many values, with a session's name of
    some length at most."""
    if sum(map(body.count, (b",", b"[", b"{"))) > MOST_MARKS:
        return False
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(call, dict) or not _shallow(call, DEEPEST):
        return False
    return all(
        isinstance(name, str | None) and len(name or "") <= LONGEST_NAME
        for name in (call.get("session_hash"), call.get("event_id"))
    )


def _held_by(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _shallow(value: Any, levels: int) -> bool:
    """Whether a value holds others at most that many levels deep, and not too many."""
    held = [value]
    for _ in range(levels + 1):
        held = [inner for v in held for inner in _held_by(v)]
        if not held or len(held) > MOST_VALUES:
            return not held
    return False


def _characters(value: Any) -> int:
    return len(value) if isinstance(value, str) else sum(map(_characters, _held_by(value)))


def _again(body: bytes, receive: Receive) -> Receive:
    """Hands out a body that was read already, then what follows it."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay
