"""Brings pictures from their hosts: politely, each whole and decoded or not at all.

httpx does the asking. By hand, because it leaves them to its caller, are redirects that are checked one by one, the
pace of each host, the bounds on what is unpacked, and what each error means.
"""

import asyncio
import errno
import hashlib
import os
import random
import re
import ssl
import time
import warnings
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import httpx
from PIL import Image
from tqdm import tqdm

from musti_model.errors import InputError
from musti_model.processing import MAX_BYTES, open_image
from musti_model.records import bare_address

from .unpacking import BadPacking, TooLarge, Unpacker

Result = TypeVar("Result")
PROJECT = "olfactory image-text matching (MUSTI research)"
MAX_REDIRECTS = 5
FOUND = (200, 203)  # 203: by way of a proxy that changed something
REDIRECTS = (301, 302, 303, 307, 308)
BUSY = (429, 503)  # the host as a whole wants rest
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# Formats of photographs; Pillow reads more, and for some of them starts programs.
EXTENSIONS = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "GIF": ".gif",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "JPEG2000": ".jp2",
    "AVIF": ".avif",
}
_parts = count()


@dataclass(frozen=True)
class FetchSettings:
    """workers: pictures at once; per_host: of these from one host; delay: seconds between two requests to a host;
    timeout: seconds without a byte; total: seconds of transfer a picture may take, all tries together; max_bytes: of a
    picture, packed or not; retries: tries after the first; backoff: seconds before the second try, doubled each time,
    give or take half; max_wait: seconds that no wait exceeds, whatever the host asks; contact: an address for the
    host's keepers."""

    workers: int = 8
    per_host: int = 2
    delay: float = 0.2
    timeout: float = 30.0
    total: float = 120.0
    max_bytes: int = MAX_BYTES
    retries: int = 3
    backoff: float = 1.0
    max_wait: float = 300.0
    contact: str = ""

    @property
    def user_agent(self) -> str:
        """What a host is told of who asks."""
        return f"{PROJECT}; contact: {self.contact}" if self.contact else PROJECT


@dataclass(frozen=True)
class Missing:
    """A picture that could not be had. reason: a few words to count by; detail: a sentence."""

    reason: str
    detail: str


class FetchError(Exception):
    """One try failed. retry: whether another may help; wait: seconds the host asked for; busy: the whole host wants
    rest."""

    def __init__(
        self, reason: str, detail: str, retry: bool = False, wait: float | None = None, busy: bool = False
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.missing = Missing(reason, detail)
        self.retry, self.wait, self.busy = retry, wait, busy


# Addresses


def clean_url(address: str) -> str:
    """An address as files have it -> one that can be asked for: ends stripped, spaces and letters beyond ASCII
    percent-encoded (what is encoded stays), host in lower case and IDNA, no fragment, no password.

    Raises: FetchError for anything but http and https with a host.
    """
    try:
        parts = urlsplit(bare_address(address))
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError as error:  # also UnicodeError, of idna
        raise FetchError("refused address", f"{address[:200]!r} is not an address.") from error
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f]", host):
        raise FetchError("refused address", f"{address[:200]!r} is not an http or https address.")
    host = f"[{host}]" if ":" in host else host
    path, query = (
        quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text), safe="%/:@!$&'()*+,;=~", errors="replace")
        for text in (parts.path or "/", parts.query)
    )
    return urlunsplit((parts.scheme, f"{host}:{port}" if port else host, path, query, ""))


def local_stem(url: str) -> str:
    """The name of a clean URL's picture on the disk, without its extension: nothing of it comes from the server."""
    return hashlib.sha256(url.encode()).hexdigest()[:24]


def picture_extension(path: Path) -> str:
    """Decodes a picture and says what it is, by its content. Raises: InputError."""
    try:
        Image.init()
        with Image.open(path, formats=[f for f in EXTENSIONS if f in Image.OPEN]) as image:
            extension = EXTENSIONS[str(image.format)]
    except Exception as error:  # Pillow raises almost anything on broken files
        raise InputError("This file is no picture that we can read.") from error
    open_image(path)
    return extension


def retry_after(value: str | None, now: datetime) -> float | None:
    """The header Retry-After, seconds or a date -> seconds from ``now`` (with time zone), at least 0; None when it says
    nothing."""
    if not value:
        return None
    if re.fullmatch(r"\s*\d{1,9}\s*", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


# One try


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _client(settings: FetchSettings, cookies: httpx.Cookies) -> httpx.AsyncClient:
    """Asks as the settings say, through the proxies of the environment. Raises: InputError for a proxy that cannot be
    used."""
    headers = {"User-Agent": settings.user_agent, "Accept": "image/*, */*;q=0.1", "Accept-Encoding": "identity"}
    try:
        return httpx.AsyncClient(headers=headers, cookies=cookies, timeout=settings.timeout, verify=_tls())
    except (ImportError, ValueError) as error:
        raise InputError(
            f"The proxy that the environment names cannot be used ({error}); change http_proxy, https_proxy or "
            "all_proxy."
        ) from error


async def _answer(url: str, client: httpx.AsyncClient) -> httpx.Response:
    """The answer that brings the picture, its body still to be read, at the end of at most five redirects, each
    checked. Cookies are given back on the way, so an address may lead back to itself as long as it sets new ones.
    Raises: FetchError, httpx.TransportError."""
    seen = set()
    for _ in range(MAX_REDIRECTS + 1):
        request = client.build_request("GET", url)
        step = (url, request.headers.get("Cookie"))
        if step in seen:
            raise FetchError("redirect loop", f"The address leads back to {url[:200]}.")
        seen.add(step)
        response = await _send(request, client)
        if response.status_code in FOUND:
            return response
        await response.aclose()
        if response.status_code in REDIRECTS and "Location" in response.headers:
            url = _target(url, response)
        elif (
            response.status_code not in (401, 403) or client.build_request("GET", url).headers.get("Cookie") == step[1]
        ):
            raise _refusal(response)  # a host that refuses but sets a cookie may let in who brings it
    raise FetchError("too many redirects", f"The address leads on more than {MAX_REDIRECTS} times.")


async def _send(request: httpx.Request, client: httpx.AsyncClient) -> httpx.Response:
    try:
        return await client.send(request, stream=True, follow_redirects=False)
    except (httpx.InvalidURL, httpx.RemoteProtocolError) as error:
        # it reads where a redirect leads, though it does not follow
        if isinstance(error, httpx.InvalidURL) or "location header" in str(error):
            raise FetchError(
                "refused redirect", f"The address leads on to one that is none ({str(error)[:200].rstrip('.')})."
            ) from error
        raise


def _target(url: str, response: httpx.Response) -> str:
    """Where a redirect leads. Raises: FetchError for anything but http and https."""
    raw = next(value for name, value in response.headers.raw if name.lower() == b"location")
    try:
        target = raw.decode()
    except UnicodeDecodeError:  # bytes of another encoding are asked for as they are
        target = quote(raw, safe=bytes(range(33, 127)))
    try:
        return clean_url(urljoin(url, target))
    except (FetchError, ValueError) as error:
        raise FetchError(
            "refused redirect", f"The address leads on to {target[:200]!r}, which is not http or https."
        ) from error


def _refusal(response: httpx.Response) -> FetchError:
    status = response.status_code
    wait = retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
    return FetchError(
        f"HTTP {status}",
        f"The host answers {status} {response.reason_phrase[:60]}.",
        retry=status in (408, 429) or status >= 500,
        wait=wait,
        busy=status in BUSY,
    )


async def _save(response: httpx.Response, file: BinaryIO, limit: int) -> bool:
    """Writes the body, unpacked; True when its end was announced or marked, so that a cut would have shown. Raises:
    FetchError, OSError, httpx.TransportError."""
    too_large = FetchError("too large", f"The picture has more than {limit / 1e6:g} MB.")
    chunked = "Transfer-Encoding" in response.headers
    promised = None if chunked or "Content-Length" not in response.headers else int(response.headers["Content-Length"])
    if promised is not None and promised > limit:
        raise too_large
    got = 0
    try:
        unpacker = Unpacker(response.headers.get("Content-Encoding", ""), limit)
        async for piece in response.aiter_raw():
            got += len(piece)
            if got > limit:
                raise too_large
            file.writelines(unpacker.feed(piece))
    except TooLarge as error:
        raise too_large from error
    except BadPacking as error:
        raise FetchError(
            "broken answer", f"The host packed the picture in a way that cannot be undone ({error}).", retry=True
        ) from error
    except httpx.RemoteProtocolError as error:
        if not str(error).startswith(("peer closed", "Server disconnected")):
            raise
        words = f"{got} bytes came of {promised}." if promised else "The connection ended before the picture did."
        raise FetchError("cut off", words, retry=True) from error
    if not got:
        raise FetchError("cut off", "No byte came.", retry=True)
    return unpacker.finished if unpacker.packed else promised is not None or chunked


async def bring(url: str, folder: Path, settings: FetchSettings, seconds: float, cookies: httpx.Cookies) -> str:
    """One try to bring the picture of a clean URL into ``folder``, in ``seconds`` at most; its file name there.

    The file appears under its name only when it is whole and decodes. cookies: what earlier tries were given; new ones
    are added.

    Raises: FetchError; InputError when the disk takes no more, or for a proxy that cannot be used.
    """
    part = folder / f"{local_stem(url)}.{os.getpid()}-{next(_parts)}.part"  # its own, should two runs meet here
    clock = asyncio.timeout(seconds)  # a host that sends a byte now and then passes every limit on silence
    try:
        async with _client(settings, cookies) as client, clock:
            try:
                response = await _answer(url, client)
            finally:
                cookies.update(client.cookies)
            async with aclosing(response):
                with part.open("wb") as file:
                    whole = await _save(response, file, settings.max_bytes)
        try:
            name = local_stem(url) + await asyncio.to_thread(picture_extension, part)
        except InputError as error:
            raise FetchError("not a picture", f"{error} {_as_called(response)}", retry=not whole) from error
        os.replace(part, folder / name)
        return name
    except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        if clock.expired():
            raise FetchError(
                "too slow", "The picture did not come whole in the time that one picture may take."
            ) from error
        raise _network_error(error, folder) from error
    finally:
        part.unlink(missing_ok=True)


def _as_called(response: httpx.Response) -> str:
    kind, packing = (response.headers.get(name, "")[:60] for name in ("Content-Type", "Content-Encoding"))
    return f"The host calls it {kind or 'nothing'!r}" + (f", packed in {packing!r}." if packing else ".")


def fetch(url: str, folder: Path, settings: FetchSettings, seconds: float) -> str:
    """``bring`` for whoever does not wait for anything else."""
    return _finished(bring(url, folder, settings, seconds, httpx.Cookies()))


def _finished(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine, also for a caller inside of a running event loop, such as a notebook's. An interrupt
    cancels the work."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    cancel: list[Callable[[], object]] = []

    async def held() -> Result:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is not None:  # there is one inside of a running loop
            cancel.append(partial(loop.call_soon_threadsafe, task.cancel))
        return await work

    with ThreadPoolExecutor(1) as pool:
        try:
            done = pool.submit(asyncio.run, held())
            while not wait([done], timeout=0.1).done:  # in between, an interrupt is noticed
                pass
            return done.result()
        except KeyboardInterrupt:
            with suppress(RuntimeError):  # it was done just then
                for stop in cancel:
                    stop()
            raise


def _network_error(error: Exception, folder: Path) -> Exception:
    """What an error of the disk, of the connection, of TLS or of the answer's form means."""
    chain = _causes(error)
    if isinstance(error, httpx.InvalidURL):
        return FetchError("refused address", f"The address cannot be asked for ({error}).")
    if isinstance(error, OSError) and (error.errno in DISK_ERRORS or str(error.filename).startswith(str(folder))):
        return InputError(
            f"A picture cannot be written ({error.strerror}); make room, then start again: what is there is kept."
        )
    for cause in chain:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return FetchError("bad certificate", f"The host's certificate is not trusted ({cause.verify_message}).")
    if isinstance(error, httpx.TimeoutException):
        return FetchError("no answer", "The host was silent for too long.", retry=True)
    if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
        return FetchError("broken answer", f"The host's answer is not HTTP ({str(error)[:100]}).", retry=True)
    words = next(
        (c.strerror for c in reversed(chain) if isinstance(c, OSError) and c.strerror),
        str(error) or type(error).__name__,
    )
    return FetchError("no connection", f"{words}.".replace("..", "."), retry=True)


def _causes(error: BaseException | None) -> list[BaseException]:
    """An error and what it came from, the first cause last."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        error = inner or error.__cause__ or error.__context__
    return found


# All pictures


@dataclass
class _Host:
    """rooms: requests at once; line: who asks next; ready: no request before (seconds of ``time.monotonic``)."""

    rooms: asyncio.Semaphore
    line: asyncio.Lock = field(default_factory=asyncio.Lock)
    ready: float = 0.0


class _Visits:
    """Who may ask which host when. A picture that waits, for its host or for its next try, keeps no worker."""

    def __init__(self, settings: FetchSettings) -> None:
        self.settings = settings
        self._workers = asyncio.Semaphore(settings.workers)
        self._hosts: dict[str, _Host] = defaultdict(lambda: _Host(asyncio.Semaphore(settings.per_host)))

    @asynccontextmanager
    async def to(self, url: str) -> AsyncIterator[_Host]:
        """Waits until the host of a URL may be asked, and holds the place."""
        host = self._hosts[urlsplit(url).netloc]
        async with host.rooms:
            async with host.line:
                while True:
                    await asyncio.sleep(max(0.0, host.ready - time.monotonic()))
                    await self._workers.acquire()
                    if host.ready <= time.monotonic():
                        break
                    self._workers.release()  # meanwhile the host asked for rest
                host.ready = time.monotonic() + self.settings.delay
            try:
                yield host
            finally:
                self._workers.release()


async def _had(url: str, folder: Path, visits: _Visits) -> str | Missing:
    """The picture of a URL, in as many tries as it may take: its file name, or what was wrong. Raises: InputError."""
    s, spent, cookies = visits.settings, 0.0, httpx.Cookies()
    for number in count(1):
        async with visits.to(url) as host:
            started = time.monotonic()
            try:
                return await bring(url, folder, s, s.total - spent, cookies)
            except FetchError as failed:
                error = failed
            now = time.monotonic()
            spent += now - started
            wait = min(
                s.backoff * 2 ** (number - 1) * random.uniform(0.5, 1.5) if error.wait is None else error.wait,
                s.max_wait,
            )
            if error.busy:
                host.ready = max(host.ready, now + wait)
        if not error.retry or number > s.retries or spent >= s.total:
            return error.missing
        await asyncio.sleep(wait)
    raise AssertionError("count() has no end")


async def _all(urls: Sequence[str], folder: Path, settings: FetchSettings, bar: tqdm) -> dict[str, str | Missing]:
    visits, missing = _Visits(settings), count(1)

    async def one(url: str) -> str | Missing:
        outcome = await _had(url, folder, visits)
        if isinstance(outcome, Missing):
            bar.set_postfix(missing=next(missing), refresh=False)
        bar.update()
        return outcome

    async def tick() -> None:
        while True:  # shows the time; also lets an interrupt through that came while nothing happened
            await asyncio.sleep(0.5)
            bar.refresh()

    clock = asyncio.create_task(tick())
    try:
        return dict(zip(urls, await asyncio.gather(*map(one, urls)), strict=True))
    finally:
        clock.cancel()


def fetch_pictures(urls: Sequence[str], folder: Path, settings: FetchSettings) -> dict[str, str | Missing]:
    """Fetches the pictures of different clean URLs; {URL: file name in ``folder``, or what was wrong}.

    Interrupted, it leaves whole pictures and no half ones under their names.

    Raises: InputError when the disk takes no more, or for a proxy that cannot be used.
    """
    with tqdm(total=len(urls), desc="fetching", unit="picture", disable=not urls) as bar, warnings.catch_warnings():
        # anyio's, of connections that an interrupt ends at once
        warnings.filterwarnings("ignore", "coroutine .*connect_tcp", RuntimeWarning)
        return _finished(_all(urls, folder, settings, bar))
