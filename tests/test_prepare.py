"""Fetching pictures from a loopback server that does what hosts do, and worse."""

import _thread
import asyncio
import errno
import gzip
import io
import json
import os
import signal
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import brotli
import numpy as np
import pytest
from PIL import Image

from musti_model.errors import InputError
from musti_model.records import read_pairs
from training.data.fetch import FetchError, FetchSettings, clean_url, fetch, local_stem, picture_extension, retry_after
from training.data.unpacking import BadPacking, TooLarge, Unpacker
from training.prepare import main, prepare

FAST = FetchSettings(delay=0, timeout=0.5, total=1.0, max_bytes=100_000, retries=2, backoff=0.01, max_wait=0.5)

PATIENT = replace(FAST, timeout=20, total=60)  # for a machine that is busy with other things


def picture(kind="JPEG", size=(40, 30)) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return engine.compress(data) + engine.flush()


PACKED = {  # name: (Content-Encoding, how the body is made)
    "gzip": ("gzip", gzip.compress),
    "capitals": ("X-GZIP", gzip.compress),
    "members": ("gzip", lambda data: gzip.compress(data[:300]) + gzip.compress(data[300:]) + bytes(20)),
    "zlib": ("deflate", zlib.compress),
    "deflate": ("deflate", raw_deflate),
    "brotli": ("br", brotli.compress),
    "twice": ("gzip, br", lambda data: brotli.compress(gzip.compress(data))),
    "gzips": ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
    "untrue": ("gzip", bytes),
    "unknown": ("utf-8", bytes),
}


class Host(ThreadingHTTPServer):
    """Answers by path; counts requests by path and how many it serves at once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.requests, self.agents, self.times = Counter(), set(), []
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.quiet = threading.Event()  # set at the end: nobody drips on
        self.interrupt_at = None
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        pass  # clients that leave early are what is tested


class Answer(BaseHTTPRequestHandler):
    server: Host

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        host = self.server
        with host.lock:
            host.requests[self.path] += 1
            host.agents.add(self.headers["User-Agent"])
            host.times.append(time.monotonic())
            host.now += 1
            host.most = max(host.most, host.now)
            self.number = host.requests[self.path]
        try:
            name = self.path.strip("/").split("/")[0].split("?")[0]
            getattr(self, name if hasattr(self, name) and name.isalpha() else "gone")()
        finally:
            with host.lock:
                host.now -= 1

    def send(self, status=200, body=b"", length=None, **headers) -> None:
        self.send_response(status)
        if length != "unsaid":
            self.send_header("Content-Length", str(len(body) if length is None else length))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def gone(self):
        self.send(404, b"not here")

    def ok(self):
        self.send(body=picture(), Content_Type="text/plain")

    def png(self):
        self.send(
            body=picture("PNG"), Content_Type="image/jpeg", Content_Disposition='attachment; filename="../../evil.sh"'
        )

    def shaky(self):
        self.send(500) if self.number == 1 else self.ok()

    def broken(self):
        self.send(500)

    def busy(self):
        self.send(429, Retry_After="0") if self.number == 1 else self.ok()

    def dated(self):
        until = format_datetime(datetime.now(UTC) + timedelta(hours=3), usegmt=True)
        self.send(503, Retry_After=until) if self.number == 1 else self.ok()

    def rest(self):
        """Asks for rest, which holds for all of the host."""
        self.send(429, Retry_After="3600") if self.number == 1 else self.ok()

    def drip(self):
        self.send(length=50_000)
        while not self.server.quiet.wait(0.05):
            self.wfile.write(b"x")
            self.wfile.flush()

    def dripheads(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Long: ")
        while not self.server.quiet.wait(0.05):
            self.wfile.write(b"x")
            self.wfile.flush()

    def silent(self):
        self.server.quiet.wait(3)

    def cut(self):
        self.send(body=picture()[:500], length=len(picture()))

    def cutonce(self):
        self.cut() if self.number == 1 else self.ok()

    def cutunsaid(self):
        self.send(body=picture()[:-300], length="unsaid")

    def hangup(self):
        self.connection.close()

    def chunks(self):
        self.protocol_version = "HTTP/1.1"
        self.send(length="unsaid", Transfer_Encoding="chunked")
        body = picture()
        for start in range(0, len(body), 300):
            piece = body[start : start + 300]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"" if "cut" in self.path else b"0\r\n\r\n")
        self.close_connection = True

    def move(self):
        self.send(302, Location=f"{self.server.url}/ok/moved.jpg")

    def movehere(self):
        self.send(301, Location="../ok/b ä.jpg".encode().decode("latin-1"))

    def round(self):
        self.send(302, Location="/round/b" if self.path == "/round/a" else "/round/a")

    def far(self):
        self.send(302, Location=f"/far/{int(self.path.split('/')[-1]) + 1}")

    def ftp(self):
        self.send(302, Location="ftp://127.0.0.1/a.jpg")

    def file(self):
        self.send(302, Location="file:///etc/passwd")

    def html(self):
        self.send(body=b"<html>Our pictures have moved</html>", Content_Type="image/jpeg")

    def huge(self):
        self.send(body=b"x" * 1000, length=10_000_000)

    def hugeunsaid(self):
        self.send(length="unsaid")
        while not self.server.quiet.is_set():
            self.wfile.write(b"x" * 10_000)

    def empty(self):
        self.send()

    def packed(self):
        """/packed/HOW/..., HOW one of PACKED."""
        encoding, pack = PACKED[self.path.split("/")[2]]
        self.send(body=pack(picture()), Content_Encoding=encoding)

    def bomb(self):
        encoding, pack = PACKED[self.path.split("/")[2]]
        self.send(body=pack(bytes(5_000_000)), Content_Encoding=encoding)

    def cookie(self):
        """Wants back what it set: at once, by way of another page, in two steps, or after a refusal."""
        had, how = self.headers["Cookie"] or "", self.path.split("/")[2]
        if how == "secure":
            self.send(302, Location=self.path, Set_Cookie="a=1; Secure")
        elif how == "new":
            self.send(302, Location=self.path, Set_Cookie=f"a={self.number}; Path=/")
        elif "a=1" in had and ("b=2" in had or how != "twice"):
            self.ok()
        elif "a=1" in had:
            self.send(302, Location=self.path, Set_Cookie="b=2; Path=/; HttpOnly")
        elif how in ("403", "503"):
            self.send(int(how), Set_Cookie="a=1; Path=/")
        else:
            self.send(
                302,
                Location="/setter/" + how if how == "away" else self.path,
                Set_Cookie="c=3" if how == "away" else "a=1; Path=/",
            )

    def setter(self):
        self.send(302, Location="/cookie/away", Set_Cookie="a=1; Path=/; SameSite=Lax")

    def interrupting(self):
        if self.server.interrupt_at == self.path:
            self.server.interrupt_at = None
            _thread.interrupt_main()
            self.server.quiet.wait(1)
        self.ok()


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = Host()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.quiet.set()
    server.shutdown()
    server.server_close()


def write(folder, images, **more):
    """A MUSTI file with one pair an image."""
    file = folder / "musti.json"
    pairs = [
        {"id": i, "image": image, "language": "en", "subtask1_label": "NO", "text": f"passage {i}"}
        for i, image in enumerate(images)
    ]
    file.write_text(json.dumps({"pairs": pairs} | more))
    return file


def records(out):
    return json.loads((out / "pairs.json").read_text())["pairs"]


def files(out):
    return sorted(p.name for p in (out / "images").iterdir())


def one(host, tmp_path, path, settings=PATIENT):
    """What becomes of one picture: its local path, or (reason, detail)."""
    report = prepare(write(tmp_path, [host.url + path]), tmp_path / "out", settings)
    if report["missing"]:
        assert files(tmp_path / "out") == []
        return report["missing"][0]["reason"], report["missing"][0]["detail"]
    return records(tmp_path / "out")[0]["image"]


@pytest.mark.parametrize(
    "path, requests",
    [
        ("/ok/a.jpg", 1),
        ("/shaky/a.jpg", 2),
        ("/busy/a.jpg", 2),
        ("/cutonce/a.jpg", 2),
        ("/chunks/a.jpg", 1),
        ("/move/a.jpg", 2),
        ("/movehere/a.jpg", 2),
    ],
)
def test_pictures_that_come(host, tmp_path, path, requests):
    image = one(host, tmp_path, path)
    assert image == f"images/{local_stem(host.url + path)}.jpg" and (tmp_path / "out" / image).read_bytes() == picture()
    assert sum(host.requests.values()) == requests and files(tmp_path / "out") == [image.split("/")[1]]


@pytest.mark.parametrize(
    "path, reason, detail, requests",
    [
        ("/gone/a.jpg", "HTTP 404", "answers 404", 1),
        ("/broken/a.jpg", "HTTP 500", "answers 500", 3),
        ("/cut/a.jpg", "cut off", "500 bytes came of", 3),
        ("/cutunsaid/a.jpg", "not a picture", "cut off", 3),
        ("/chunks/cut", "cut off", "ended before", 3),
        ("/empty/a.jpg", "cut off", "No byte", 3),
        ("/hangup/a.jpg", "no connection", "", 3),
        ("/round/a", "redirect loop", "leads back", 2),
        ("/far/0", "too many redirects", "more than 5", 6),
        ("/ftp/a.jpg", "refused redirect", "ftp://127.0.0.1", 1),
        ("/file/a.jpg", "refused redirect", "file:///etc/passwd", 1),
        ("/html/a.jpg", "not a picture", "image/jpeg", 1),
        ("/huge/a.jpg", "too large", "0.1 MB", 1),
        ("/hugeunsaid/a.jpg", "too large", "0.1 MB", 1),
    ],
)
def test_pictures_that_do_not_come(host, tmp_path, path, reason, detail, requests):
    found = one(host, tmp_path, path)
    assert found[0] == reason and detail in found[1]
    assert sum(host.requests.values()) == requests


@pytest.mark.parametrize("how", PACKED)
def test_pictures_packed_unasked_come(host, tmp_path, how):
    assert (tmp_path / "out" / one(host, tmp_path, f"/packed/{how}/a.jpg")).read_bytes() == picture()


@pytest.mark.parametrize("how", ["gzip", "members", "zlib", "deflate", "brotli", "twice", "gzips"])
def test_a_small_body_does_not_become_a_huge_one(host, tmp_path, how):
    assert one(host, tmp_path, f"/bomb/{how}/a.jpg")[0] == "too large" and sum(host.requests.values()) == 1


@pytest.mark.parametrize(
    "how", [name for name, (encoding, _) in PACKED.items() if encoding != "utf-8" and name != "untrue"]
)
def test_unpacking_takes_little_room(how):
    """Whatever the pieces that come in, no piece that goes out is big, and no more goes out than may."""
    encoding, pack = PACKED[how]
    content = picture("BMP", (300, 200))
    for size in (1, 999, 10**9):
        unpacker, body = Unpacker(encoding, len(content) + 10_000), pack(content)
        pieces = [piece for at in range(0, len(body), size) for piece in unpacker.feed(body[at : at + size])]
        assert b"".join(pieces) == content and unpacker.finished and max(map(len, pieces)) <= 1 << 18
    with pytest.raises(TooLarge):
        list(Unpacker(encoding, 100_000).feed(pack(content)))
    if how != "members":
        cut = Unpacker(encoding, len(content) + 10_000)
        assert len(b"".join(cut.feed(pack(content)[:-20]))) < len(content) + 1 and not cut.finished
    with pytest.raises(BadPacking):
        Unpacker(", ".join([encoding] * 4), 10)


@pytest.mark.parametrize("how, requests", [("itself", 2), ("away", 3), ("twice", 3), ("403", 2), ("503", 2)])
def test_a_host_gets_its_cookie_back(host, tmp_path, how, requests):
    assert isinstance(one(host, tmp_path, f"/cookie/{how}"), str) and sum(host.requests.values()) == requests


def test_cookies_that_lead_nowhere(host, tmp_path):
    assert one(host, tmp_path, "/cookie/secure")[0] == "redirect loop" and sum(host.requests.values()) == 1
    assert one(host, tmp_path, "/cookie/new")[0] == "too many redirects"


def test_one_picture_by_itself(host, tmp_path):
    assert (tmp_path / fetch(f"{host.url}/ok/a", tmp_path, FAST, 5)).read_bytes() == picture()


def test_copies_are_told(host, tmp_path, capsys):
    images = [f"{host.url}/ok/a", f"{host.url}/packed/gzip/a", f"{host.url}/gone/a"]
    assert main([str(write(tmp_path, images)), str(tmp_path / "out"), "--delay", "0", "--retries", "0"]) == 1
    assert json.loads((tmp_path / "out" / "report.json").read_text())["copies"] == [images[:2]]
    assert "2 of the pictures show only 1 different" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["/drip/a.jpg", "/dripheads/a.jpg"])
def test_a_slow_drip_ends_at_the_deadline(host, tmp_path, path):
    started = time.monotonic()
    reason, _ = one(host, tmp_path, path, replace(FAST, total=0.4))
    assert reason == "too slow" and time.monotonic() - started < 2 and sum(host.requests.values()) == 1


def test_a_silent_host_is_tried_again(host, tmp_path):
    assert one(host, tmp_path, "/silent/a.jpg", replace(FAST, timeout=0.15, retries=1))[0] == "no answer"
    assert sum(host.requests.values()) == 2


def test_a_host_that_is_not_there(host, tmp_path):
    report = prepare(write(tmp_path, ["http://127.0.0.1:1/a.jpg"]), tmp_path / "out", FAST)
    assert report["by_reason"] == {"no connection": {"pictures": 1, "pairs": 1}}


def test_asked_for_rest_is_given_up_to_the_cap(host, tmp_path):
    for path, cap in (("/dated/a.jpg", 0.3), ("/busy/a.jpg", 5)):
        host.times.clear()
        (tmp_path / path[1:4]).mkdir()
        assert isinstance(one(host, tmp_path / path[1:4], path, replace(FAST, max_wait=cap, backoff=0.6)), str)
        waited = host.times[1] - host.times[0]
        # "0" overrules the back-off of .3 to .9 s
        assert 0.28 < waited < 1 if path.startswith("/dated") else waited < 0.25


def test_a_busy_host_gets_rest_from_all_its_pictures(host, tmp_path):
    images = [f"{host.url}/rest/a", *(f"{host.url}/ok/{i}" for i in range(4))]
    prepare(write(tmp_path, images), tmp_path / "out", replace(FAST, per_host=1, workers=4, max_wait=0.4))
    assert host.times[1] - host.times[0] > 0.38 and len(host.times) == 6


def test_at_most_so_many_requests_at_once_and_a_delay_between(host, tmp_path):
    images = [f"{host.url}/ok/{i}" for i in range(12)]
    prepare(write(tmp_path, images), tmp_path / "out", replace(FAST, workers=8, per_host=2, delay=0.03))
    gaps = np.diff(host.times)
    assert host.most <= 2 and len(gaps) == 11 and host.times[-1] - host.times[0] > 0.3


def test_hosts_do_not_wait_for_each_other(host, tmp_path):
    other = f"http://localhost:{host.server_port}"
    images = [f"{host.url}/silent/{i}" for i in range(4)] + [f"{other}/ok/{i}" for i in range(4)]
    prepare(write(tmp_path, images), tmp_path / "out", replace(FAST, workers=3, per_host=2, timeout=0.3, retries=0))
    order = list(host.requests)
    assert all(order.index(f"/ok/{i}") < order.index("/silent/2") for i in range(4))


def test_the_agent_names_project_and_contact(host, tmp_path):
    one(host, tmp_path, "/ok/a.jpg", replace(FAST, contact="me@example.org"))
    assert host.agents == {"olfactory image-text matching (MUSTI research); contact: me@example.org"}


def test_names_and_types_of_the_server_are_not_trusted(host, tmp_path):
    image = one(host, tmp_path, "/png/..%2f..%2fevil.sh")
    assert image == f"images/{local_stem(host.url + '/png/..%2f..%2fevil.sh')}.png"
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {
        "musti.json",
        "pairs.json",
        "report.json",
        image.split("/")[1],
    }


def test_the_same_address_is_asked_once(host, tmp_path):
    images = [
        f"{host.url}/ok/a b.jpg",
        f"  {host.url}/ok/a b.jpg\n",
        f"{host.url}/ok/a%20b.jpg",
        f"{host.url}/ok/a b.jpg#x",
    ]
    report = prepare(write(tmp_path, images), tmp_path / "out", FAST)
    assert host.requests == {"/ok/a%20b.jpg": 1} and report["pictures"] == report["fetched"] == 1
    assert len({r["image"] for r in records(tmp_path / "out")}) == 1
    assert [r["image_url"] for r in records(tmp_path / "out")] == [i.strip() for i in images]


@pytest.mark.parametrize(
    "address, url",
    [
        (" HTTP://Example.ORG/a b/ü.jpg?q=ä b&c=1#top ", "http://example.org/a%20b/%C3%BC.jpg?q=%C3%A4%20b&c=1"),
        (
            "https://media.nga.gov/iiif/8/full/!588,600/0/default.jpg",
            "https://media.nga.gov/iiif/8/full/!588,600/0/default.jpg",
        ),
        ("http://a.org/100%.jpg", "http://a.org/100%25.jpg"),
        ("http://a.org/100%25%C3%BC.jpg", "http://a.org/100%25%C3%BC.jpg"),
        ("http://bücher.example:8080", "http://xn--bcher-kva.example:8080/"),
        ("http://user:secret@a.org/x", "http://a.org/x"),
        ("\u200bhttp://[::1]:80/x\ud800", "http://[::1]:80/x%3F"),
    ],
)
def test_addresses_are_cleaned(address, url):
    assert clean_url(address) == url and clean_url(url) == url


@pytest.mark.parametrize(
    "address",
    [
        "ftp://a.org/x",
        "file:///etc/passwd",
        "images/a.jpg",
        "",
        "http://",
        "http:///x",
        "http://[::1/x",
        "http://a:b/x",
        "javascript:1",
        "http://a b/",
    ],
)
def test_other_addresses_are_refused(address):
    with pytest.raises(FetchError, match="refused address"):
        clean_url(address)


def test_retry_after():
    now = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
    assert retry_after("120", now) == 120 and retry_after(" 0 ", now) == 0
    assert (
        retry_after("Wed, 01 May 2024 12:01:30 GMT", now) == 90
        and retry_after("Wed, 01 May 2024 11:00:00 GMT", now) == 0
    )
    for nothing in (None, "", "soon", "-5", "1e3", "Wed, 99999999999999999999 May 2024 12:00:00 GMT"):
        assert retry_after(nothing, now) is None


def test_a_second_run_asks_only_for_what_is_not_there(host, tmp_path):
    images = [f"{host.url}/ok/a", f"{host.url}/png/b", f"{host.url}/gone/c", f"{host.url}/ok/d"]
    file, out = write(tmp_path, images), tmp_path / "out"
    assert prepare(file, out, FAST)["fetched"] == 3
    damaged = out / records(out)[3]["image"]
    damaged.write_bytes(picture()[:700])
    (out / "images" / f"{local_stem(images[0])}.7-8.part").write_bytes(b"left by a crash")
    before = records(out)
    host.requests.clear()
    report = prepare(file, out, FAST)
    assert host.requests == {"/gone/c": 1, "/ok/d": 1} and (report["fetched"], report["there"]) == (1, 2)
    assert records(out) == before and damaged.read_bytes() == picture() and len(files(out)) == 3


def test_a_prepared_file_can_be_prepared_again(host, tmp_path):
    file = write(tmp_path, [f"{host.url}/ok/a", f"{host.url}/shaky/b"])
    prepare(file, tmp_path / "out", replace(FAST, retries=0))
    assert records(tmp_path / "out")[1]["missing"] == "HTTP 500"
    prepare(tmp_path / "out" / "pairs.json", tmp_path / "out", FAST)
    assert [("missing" in r, r["image"][:7], r["image_url"]) for r in records(tmp_path / "out")] == [
        (False, "images/", f"{host.url}/ok/a"),
        (False, "images/", f"{host.url}/shaky/b"),
    ]


def test_every_record_is_kept_in_order(host, tmp_path, capsys):
    ok, gone = f"{host.url}/ok/a.jpg", f"{host.url}/gone/a.jpg"
    given = [
        {
            "id": 1,
            "image": f" {ok}",
            "text": "é \ud800 one",
            "language": "fr",
            "subtask1_label": "YES",
            "more": [1, None],
        },
        "no record",
        {"id": 2, "image": gone, "text": "two", "subtask2_labels": ["dog"]},
        {"id": 3, "image": ok},
        {"id": 4, "image": "pictures/a.jpg", "text": "four"},
        {"id": 5, "image": gone, "text": "five"},
        {"id": 6, "image": ok, "text": "six"},
    ]
    file, out = tmp_path / "musti.json", tmp_path / "deep" / "out"
    file.write_text(json.dumps(given))
    arguments = [
        str(file),
        str(out),
        "--workers",
        "2",
        "--per-host",
        "2",
        "--timeout",
        "1",
        "--max-bytes",
        "100000",
        "--retries",
        "0",
    ]
    assert main([*arguments, "--delay", "0", "--contact", "me@example.org"]) == 1
    image = f"images/{local_stem(ok)}.jpg"
    assert records(out) == [
        given[0] | {"image": image, "image_url": ok},
        given[1],
        given[2] | {"missing": "HTTP 404"},
        given[3],
        given[4] | {"missing": "refused address"},
        given[5] | {"missing": "HTTP 404"},
        given[6] | {"image": image, "image_url": ok},
    ]
    report = json.loads((out / "report.json").read_text())
    assert report["missing"][0] == {
        "url": gone,
        "ids": ["2", "5"],
        "reason": "HTTP 404",
        "detail": "The host answers 404 Not Found.",
    }
    assert report["by_reason"]["HTTP 404"] == {"pictures": 1, "pairs": 2} and (report["pairs"], report["pictures"]) == (
        5,
        3,
    )
    assert report["bad"] == ["record 2: it is not an object with fields", "id 3: it has no text"]
    printed = capsys.readouterr().out
    assert (
        "HTTP 404: 1 pictures, 2 pairs" in printed
        and "1 fetched, 0 there before, 2 missing" in printed
        and "id 3" in printed
    )
    pairs, bad = read_pairs(out / "pairs.json")
    assert [p.id for p in pairs] == ["1", "2", "4", "5", "6"] and len(bad) == 2


def test_all_there_is_code_0_and_bad_input_2(host, tmp_path, capsys):
    file = write(tmp_path, [f"{host.url}/ok/a.jpg"])
    assert main([str(file), str(tmp_path / "out"), "--delay", "0"]) == 0
    assert main([str(tmp_path / "none.json"), str(tmp_path / "out")]) == 2
    assert main([str(file), str(file)]) == 2
    (tmp_path / "empty.json").write_text("[]")
    assert main([str(tmp_path / "empty.json"), str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert "check the name" in printed and "cannot be written" in printed and "has no records" in printed
    for wrong in (
        ["--workers", "0"],
        ["--timeout", "nan"],
        ["--contact", "a\nb"],
        ["--retries", "-1"],
        ["--max-bytes", "x"],
    ):
        with pytest.raises(SystemExit) as caught:
            main([str(file), str(tmp_path / "out"), *wrong])
        assert caught.value.code == 2


@pytest.fixture
def interrupting():
    """Ctrl-C interrupts, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupting")
def test_an_interrupted_run_goes_on(host, tmp_path, capsys):
    images = [f"{host.url}/interrupting/{i}" for i in range(6)]
    file, out = write(tmp_path, images), tmp_path / "out"
    host.interrupt_at = "/interrupting/3"
    arguments = [str(file), str(out), "--workers", "1", "--delay", "0"]
    assert main(arguments) == 130 and "goes on from here" in capsys.readouterr().err
    assert 1 <= sum(n.endswith(".jpg") for n in files(out)) <= 3
    host.quiet.set()
    time.sleep(0.1)  # the thread that was caught in the middle may still finish its picture
    left = {n[:24] for n in files(out) if n.endswith(".jpg")}
    assert all(picture_extension(out / "images" / n) == ".jpg" for n in files(out) if n.endswith(".jpg"))
    host.requests.clear()
    assert main(arguments) == 0
    assert {local_stem(host.url + path) for path in host.requests} == {local_stem(i) for i in images} - left
    assert len(files(out)) == 6


def test_a_full_disk_ends_the_run_with_a_sentence(host, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = write(tmp_path, [f"{host.url}/ok/{i}" for i in range(5)])
    monkeypatch.setattr(Unpacker, "feed", full)
    with pytest.raises(InputError, match="No space left on device.*start again"):
        prepare(file, tmp_path / "out", FAST)
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    assert prepare(file, tmp_path / "out", FAST)["missing"] == []


@pytest.mark.parametrize(
    "kind, extension",
    [("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp"), ("TIFF", ".tif"), ("GIF", ".gif"), ("BMP", ".bmp")],
)
def test_extensions_come_from_the_content(tmp_path, kind, extension):
    (tmp_path / "a.exe").write_bytes(picture(kind))
    assert picture_extension(tmp_path / "a.exe") == extension


def test_formats_that_are_programs_are_no_pictures(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match="no picture"):
        picture_extension(tmp_path / "a.jpg")


def test_pictures_come_inside_a_running_loop_too(host, tmp_path):
    """A notebook has one."""

    async def cell():
        return one(host, tmp_path, "/ok/a.jpg")

    with ThreadPoolExecutor(1) as other:  # a loop may run in this thread already
        name = other.submit(asyncio.run, cell()).result()
    assert name == f"images/{local_stem(host.url + '/ok/a.jpg')}.jpg"
