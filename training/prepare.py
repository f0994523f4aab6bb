"""Gets MUSTI's pictures from the museums that show them, politely, and writes a MUSTI file with local paths.

    python -m training.prepare musti-train.json OUT --contact you@example.org

OUT/images holds the pictures, OUT/pairs.json every record of the file in its order, OUT/report.json what is missing and why. Started again, it
fetches only what is not there. Exit code: 0 all there, 1 some missing, 2 bad input, 130 interrupted.
"""

import argparse
import errno
import hashlib
import heapq
import http.client
import json
import os
import queue
import random
import re
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from PIL import Image
from tqdm import tqdm

from musti_model.errors import InputError
from musti_model.processing import MAX_BYTES, open_image

from .data import MustiPair, bare_address, iter_records, parse_records

PROJECT = "olfactory image-text matching (MUSTI research)"
MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
BUSY = (429, 503)  # the host as a whole wants rest
PIECE = 1 << 16  # bytes read at a time
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# Formats of photographs; Pillow reads more, and for some of them starts programs.
EXTENSIONS = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "JPEG2000": ".jp2", "AVIF": ".avif",
}  # fmt: skip


@dataclass(frozen=True)
class FetchSettings:
    """workers: pictures at once; per_host: of these from one host; delay: seconds between two requests to a host; timeout: seconds without a
    byte; total: seconds of transfer a picture may take, all tries together; retries: tries after the first; backoff: seconds before the second
    try, doubled each time, give or take half; max_wait: seconds that no wait exceeds, whatever the host asks; contact: an address for the
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
        return f"{PROJECT}; contact: {self.contact}" if self.contact else PROJECT


@dataclass(frozen=True)
class Missing:
    """A picture that could not be had. reason: a few words to count by; detail: a sentence."""

    reason: str
    detail: str


class FetchError(Exception):
    """One try failed. retry: whether another may help; wait: seconds the host asked for; busy: the whole host wants rest."""

    def __init__(self, reason: str, detail: str, retry: bool = False, wait: float | None = None, busy: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.missing = Missing(reason, detail)
        self.retry, self.wait, self.busy = retry, wait, busy


# Addresses


def clean_url(address: str) -> str:
    """An address as files have it -> one that can be asked for: ends stripped, spaces and letters beyond ASCII percent-encoded (what is encoded
    stays), host in lower case and IDNA, no fragment, no password.

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
        quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text), safe="%/:@!$&'()*+,;=~", errors="replace") for text in (parts.path or "/", parts.query)
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
            extension = EXTENSIONS[image.format]
    except Exception as error:  # Pillow raises almost anything on broken files
        raise InputError("This file is no picture that we can read.") from error
    open_image(path)
    return extension


def retry_after(value: str | None, now: datetime) -> float | None:
    """The header Retry-After, seconds or a date -> seconds from ``now`` (with time zone), at least 0; None when it says nothing."""
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


class _Guard:
    """Shuts a try's sockets at its deadline: a server that sends a byte now and then passes every time limit on silence."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.expired = seconds, False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(max(0.0, seconds), self._expire)
        self._timer.daemon = True

    def __enter__(self) -> "_Guard":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def watch(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.append(connection)
            if self.expired:
                self._shut()

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            self._shut()

    def _shut(self) -> None:
        for connection in self._sockets:
            try:
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not TLS's own, which another thread may be reading from
            except OSError:
                pass  # closed already

    def check(self) -> None:
        if self.expired:
            raise FetchError("too slow", "The picture did not come whole in the time that one picture may take.")


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _opener(guard: _Guard) -> urllib.request.OpenerDirector:
    """http and https, through the proxies of the environment; no redirects, no files, no ftp."""

    def watched(kind: type[http.client.HTTPConnection]) -> Any:
        class Connection(kind):
            def connect(self) -> None:
                super().connect()
                guard.watch(self.sock)

        return Connection

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, request):
            return self.do_open(watched(http.client.HTTPConnection), request)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, request):
            return self.do_open(watched(http.client.HTTPSConnection), request, context=_tls())

    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), Plain(), Secure(context=_tls()), urllib.request.UnknownHandler()):
        opener.add_handler(handler)
    return opener


def _answer(url: str, guard: _Guard, settings: FetchSettings) -> http.client.HTTPResponse:
    """The answer 200 at the end of at most five redirects, each checked. Raises: FetchError, OSError, HTTPException."""
    opener, seen = _opener(guard), {url}
    headers = {"User-Agent": settings.user_agent, "Accept": "image/*, */*;q=0.1"}
    while True:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=settings.timeout)
        if response.status == 200:
            return response
        with response:
            target = response.headers.get("Location")
            if response.status not in REDIRECTS or not target:
                raise _refusal(response)
        try:  # header bytes arrive as Latin-1, whatever they are
            url = clean_url(urljoin(url, target.encode("latin-1", "replace").decode("utf-8", "replace")))
        except (FetchError, ValueError) as error:
            raise FetchError("refused redirect", f"The address leads on to {target[:200]!r}, which is not http or https.") from error
        if url in seen:
            raise FetchError("redirect loop", f"The address leads back to {url[:200]}.")
        if len(seen) > MAX_REDIRECTS:
            raise FetchError("too many redirects", f"The address leads on more than {MAX_REDIRECTS} times.")
        seen.add(url)


def _refusal(response: http.client.HTTPResponse) -> FetchError:
    status = response.status
    wait = retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
    return FetchError(
        f"HTTP {status}",
        f"The host answers {status} {response.reason[:60]}.",
        retry=status in (408, 429) or status >= 500,
        wait=wait,
        busy=status in BUSY,
    )


def _save(response: http.client.HTTPResponse, file: BinaryIO, guard: _Guard, limit: int) -> bool:
    """Writes the body; True when its end was announced, so that a cut would have shown. Raises: FetchError, OSError, HTTPException."""
    too_large = FetchError("too large", f"The picture has more than {limit / 1e6:g} MB.")
    promised, got = response.length, 0
    if promised is not None and promised > limit:
        raise too_large
    while piece := response.read1(PIECE):
        got += len(piece)
        if got > limit:
            raise too_large
        file.write(piece)
    guard.check()
    if got < (promised or 1):
        raise FetchError("cut off", f"{got} bytes came of {promised}." if promised else "No byte came.", retry=True)
    return promised is not None or response.chunked


def fetch(url: str, folder: Path, settings: FetchSettings, seconds: float) -> str:
    """One try to bring the picture of a clean URL into ``folder``, in ``seconds`` at most; its file name there.

    The file appears under its name only when it is whole and decodes.

    Raises: FetchError; InputError when the disk takes no more.
    """
    part = folder / f"{local_stem(url)}.{os.getpid()}-{threading.get_ident()}.part"  # its own, should two runs meet here
    guard = _Guard(seconds)
    try:
        with guard, part.open("wb") as file, _answer(url, guard, settings) as response:
            whole = _save(response, file, guard, settings.max_bytes)
            kind = str(response.headers.get("Content-Type", "nothing"))[:60]
        try:
            name = local_stem(url) + picture_extension(part)
        except InputError as error:
            detail = f"{error} The host calls it {kind!r}."
            raise FetchError("not a picture", detail, retry=not whole) from error
        os.replace(part, folder / name)
        return name
    except (OSError, http.client.HTTPException) as error:
        guard.check()
        raise _network_error(error, folder) from error
    finally:
        part.unlink(missing_ok=True)


def _network_error(error: Exception, folder: Path) -> Exception:
    """What an error of the disk, of a socket, of TLS or of the answer's form means."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, OSError) and (cause.errno in DISK_ERRORS or str(cause.filename).startswith(str(folder))):
        return InputError(f"A picture cannot be written ({cause.strerror}); make room, then start again: what is there is kept.")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return FetchError("bad certificate", f"The host's certificate is not trusted ({cause.verify_message}).")
    if isinstance(cause, TimeoutError):
        return FetchError("no answer", "The host was silent for too long.", retry=True)
    if isinstance(cause, http.client.IncompleteRead):
        return FetchError("cut off", "The connection ended before the picture did.", retry=True)
    if isinstance(cause, http.client.HTTPException) and not isinstance(cause, OSError):
        return FetchError("broken answer", f"The host's answer is not HTTP ({type(cause).__name__}).", retry=True)
    return FetchError("no connection", f"{cause}", retry=True)


# All pictures


@dataclass
class _Job:
    url: str
    host: str
    tries: int = 0
    spent: float = 0.0  # seconds of transfer


@dataclass
class _Host:
    waiting: list[tuple[float, int, _Job]] = field(default_factory=list)  # a heap by the time from which a job may start
    active: int = 0
    ready: float = 0.0  # no request before


class _Jobs:
    """What is fetched next. A job that waits, for its host or for its next try, keeps no thread."""

    def __init__(self, urls: Iterable[str], settings: FetchSettings) -> None:
        self._settings, self._order, self._changed = settings, count(), threading.Condition()
        self._hosts: dict[str, _Host] = defaultdict(_Host)
        self._open = 0
        self.stopped = False
        for url in urls:
            job = _Job(url, urlsplit(url).netloc)
            heapq.heappush(self._hosts[job.host].waiting, (0.0, next(self._order), job))
            self._open += 1

    def take(self) -> _Job | None:
        """The next job, as soon as its host may be asked; None when all are done or the run is stopped."""
        with self._changed:
            while self._open and not self.stopped:
                now = time.monotonic()
                free = [h for h in self._hosts.values() if h.waiting and h.active < self._settings.per_host]
                host = min(free, key=lambda h: max(h.ready, h.waiting[0][0]), default=None)
                start = max(host.ready, host.waiting[0][0]) if host else None
                if start is not None and start <= now:
                    job = heapq.heappop(host.waiting)[2]
                    job.tries += 1
                    host.active += 1
                    host.ready = now + self._settings.delay
                    return job
                self._changed.wait(None if start is None else start - now)
            return None

    def done(self, job: _Job) -> None:
        with self._changed:
            self._hosts[job.host].active -= 1
            self._open -= 1
            self._changed.notify_all()

    def retry(self, job: _Job, error: FetchError) -> bool:
        """Puts the job back for a later try; False when none is left to it, which leaves it to ``done``."""
        s = self._settings
        with self._changed:
            host, now = self._hosts[job.host], time.monotonic()
            wait = s.backoff * 2 ** (job.tries - 1) * random.uniform(0.5, 1.5) if error.wait is None else error.wait
            start = now + min(wait, s.max_wait)
            if error.busy:
                host.ready = max(host.ready, start)
            if not error.retry or job.tries > s.retries or job.spent >= s.total:
                return False
            heapq.heappush(host.waiting, (start, next(self._order), job))
            host.active -= 1
            self._changed.notify_all()
            return True

    def stop(self) -> None:
        with self._changed:
            self.stopped = True
            self._changed.notify_all()


def _work(jobs: _Jobs, folder: Path, settings: FetchSettings, results: queue.SimpleQueue) -> None:
    """A thread: fetches until nothing is left, and hands each result, or the error that ends the run, to the main thread."""
    while job := jobs.take():
        started = time.monotonic()
        try:
            outcome: Any = fetch(job.url, folder, settings, settings.total - job.spent)
        except FetchError as error:
            job.spent += time.monotonic() - started
            if jobs.retry(job, error):
                continue
            outcome = error.missing
        except BaseException as error:
            outcome = error
        jobs.done(job)
        results.put((job.url, outcome))


def fetch_pictures(urls: Sequence[str], folder: Path, settings: FetchSettings) -> dict[str, str | Missing]:
    """Fetches the pictures of different clean URLs; {URL: file name in ``folder``, or what was wrong}.

    Interrupted, it leaves whole pictures and no half ones under their names.

    Raises: InputError when the disk takes no more.
    """
    jobs, results = _Jobs(urls, settings), queue.SimpleQueue()
    outcomes: dict[str, str | Missing] = {}
    for _ in range(min(settings.workers, len(urls))):
        # Daemons: an interrupt does not wait for slow hosts. What they leave is a .part file, which the next run clears away.
        threading.Thread(target=_work, args=(jobs, folder, settings, results), daemon=True).start()
    try:
        with tqdm(total=len(urls), desc="fetching", unit="picture", disable=not urls) as bar:
            while len(outcomes) < len(urls):
                try:
                    url, outcome = results.get(timeout=0.5)
                except queue.Empty:
                    bar.refresh()
                    continue
                if isinstance(outcome, BaseException):
                    raise outcome
                outcomes[url] = outcome
                bar.update()
                bar.set_postfix(missing=sum(isinstance(o, Missing) for o in outcomes.values()), refresh=False)
    finally:
        jobs.stop()
    return outcomes


def pictures_there(urls: Iterable[str], folder: Path, workers: int = 4) -> dict[str, str]:
    """{URL: file name} of the pictures that an earlier run left and that still decode; damaged ones are removed."""
    stems = {local_stem(url): url for url in urls}
    files = [p for p in folder.iterdir() if p.stem in stems and p.suffix in EXTENSIONS.values()]

    def good(path: Path) -> bool:
        try:
            return picture_extension(path) == path.suffix
        except InputError:
            return False

    there = {}
    with ThreadPoolExecutor(workers) as pool:
        for path, fine in zip(files, tqdm(pool.map(good, files), total=len(files), desc="checking", unit="picture", disable=not files)):
            if fine:
                there[stems[path.stem]] = path.name
            else:
                path.unlink()
    return there


# The file


def _address(pair: MustiPair) -> str:
    """Where the picture comes from, also in a file that was prepared before."""
    url = pair.record.get("image_url")
    return bare_address(url) if isinstance(url, str) and url.strip() else pair.image


def _with_picture(pair: MustiPair, outcome: str | Missing) -> dict[str, Any]:
    """The record with its picture's local path, or with the reason why there is none."""
    record = {k: v for k, v in pair.record.items() if k not in ("missing", "image_url")}
    if isinstance(outcome, Missing):
        return record | {"image": _address(pair), "missing": outcome.reason}
    return record | {"image": f"images/{outcome}", "image_url": _address(pair)}


def _write_json(path: Path, content: Any) -> None:
    """Whole or not at all. Half surrogates, which UTF-8 has no place for, are written as JSON's escapes."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
        file.write("\n")
    os.replace(part, path)


def prepare(file: Path, out: Path, settings: FetchSettings) -> dict[str, Any]:
    """Fetches the pictures of a MUSTI file into ``out``/images and writes ``out``/pairs.json and ``out``/report.json.

    pairs.json has every record of the file in its order: ``image`` is a path relative to ``out`` and ``image_url`` the address; where the picture
    is missing, ``image`` stays the address and ``missing`` says why; records that are no pairs are as they were.

    Returns: the report: pairs, bad (sentences), pictures, fetched, there (from before), missing ([{url, ids, reason, detail}]), by_reason
    ({reason: {pictures, pairs}}).

    Raises: InputError for a file that is no MUSTI file or a folder that cannot be written.
    """
    items = list(parse_records(iter_records(file)))
    pairs = [item for item in items if isinstance(item, MustiPair)]
    if not items:
        raise InputError(f"The MUSTI file {file.name} has no records; check that it is the right one.")
    folder = out / "images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob("*.part"):
            part.unlink()
        outcomes, there = _outcomes(pairs, folder, settings)
        records = [_with_picture(i, outcomes[_address(i)]) if isinstance(i, MustiPair) else i.record for i in items]
        report = _report(file, items, outcomes, there)
        _write_json(out / "pairs.json", {"pairs": records})
        _write_json(out / "report.json", report)
    except OSError as error:
        raise InputError(f"The folder {out} cannot be written ({error.strerror or error}); choose another one or make room.") from error
    return report


def _outcomes(pairs: list[MustiPair], folder: Path, settings: FetchSettings) -> tuple[dict[str, str | Missing], int]:
    """{address as in the file: file name or what was wrong}, and how many pictures were there before. Each clean URL is fetched once."""
    clean: dict[str, str | Missing] = {}
    for address in dict.fromkeys(_address(p) for p in pairs):
        try:
            clean[address] = clean_url(address)
        except FetchError as error:
            clean[address] = error.missing
    urls = list(dict.fromkeys(u for u in clean.values() if isinstance(u, str)))
    there = pictures_there(urls, folder, settings.workers)
    by_url = there | fetch_pictures([u for u in urls if u not in there], folder, settings)
    return {address: by_url[u] if isinstance(u, str) else u for address, u in clean.items()}, len(there)


def _report(file: Path, items: list, outcomes: dict[str, str | Missing], there: int) -> dict[str, Any]:
    ids: dict[str, list[str]] = defaultdict(list)
    for item in items:
        if isinstance(item, MustiPair):
            ids[_address(item)].append(item.id)
    names = {o for o in outcomes.values() if isinstance(o, str)}
    lost = {address: o for address, o in outcomes.items() if isinstance(o, Missing)}
    pictures = Counter(m.reason for m in lost.values())
    hit = Counter(lost[address].reason for address in lost for _ in ids[address])
    return {
        "file": str(file),
        "pairs": sum(map(len, ids.values())),
        "bad": [str(item) for item in items if not isinstance(item, MustiPair)],
        "pictures": len(names) + len(lost),
        "fetched": len(names) - there,
        "there": there,
        "missing": [{"url": address, "ids": ids[address], "reason": m.reason, "detail": m.detail} for address, m in lost.items()],
        "by_reason": {reason: {"pictures": n, "pairs": hit[reason]} for reason, n in pictures.most_common()},
    }


def _print_report(report: dict[str, Any], out: Path) -> None:
    print(
        f"{report['pairs']} pairs with {report['pictures']} pictures: {report['fetched']} fetched, {report['there']} there before, "
        f"{len(report['missing'])} missing."
    )
    for reason, n in report["by_reason"].items():
        print(f"  {reason}: {n['pictures']} pictures, {n['pairs']} pairs")
    for words in report["bad"]:
        print(f"  kept as it was, {words}")
    print(f"Pairs: {out / 'pairs.json'}; report: {out / 'report.json'}")


def _arguments(arguments: Sequence[str] | None) -> tuple[Path, Path, FetchSettings]:
    base = FetchSettings()
    parser = argparse.ArgumentParser(prog="python -m training.prepare", description="Fetches MUSTI's pictures.")
    parser.add_argument("file", type=Path, help="a MUSTI file")
    parser.add_argument("out", type=Path, help="folder for pictures, pairs.json and report.json")
    for name, least, words in (
        ("workers", 1, "pictures at once"),
        ("per_host", 1, "pictures at once from one host"),
        ("delay", 0, "seconds between two requests to a host"),
        ("timeout", 0.1, "seconds a host may be silent"),
        ("total", 0.1, "seconds of transfer for one picture"),
        ("max_bytes", 1, "bytes of one picture"),
        ("retries", 0, "tries after the first"),
        ("max_wait", 0, "seconds to wait at most, whatever a host asks"),
    ):
        usual = getattr(base, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=_number(type(usual), least), default=usual, help=f"{words}, {usual:g}")
    parser.add_argument("--contact", type=_header, default="", help="an e-mail or web address for the hosts' keepers")
    values = vars(parser.parse_args(arguments))
    return values.pop("file"), values.pop("out"), FetchSettings(**values)


def _number(kind: type, least: float) -> Any:
    def number(text: str) -> float:
        value = kind(text)
        if not least <= value < 1e12:
            raise argparse.ArgumentTypeError(f"{text} is not {least:g} or more")
        return value

    return number


def _header(text: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]*", text):
        raise argparse.ArgumentTypeError("write the contact in plain ASCII letters")
    return text.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    file, out, settings = _arguments(arguments)
    try:
        report = prepare(file, out, settings)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    _print_report(report, out)
    return 1 if report["missing"] or report["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
