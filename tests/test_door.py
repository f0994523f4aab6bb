"""What comes from outside: only uploads are opened, calls of any shape get a sentence, sessions of machines are not
kept."""

import base64
import io
import json
import os
import re
import socket
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from gradio.data_classes import FileData, ImageData, ListFiles
from gradio.utils import get_upload_folder
from PIL import Image
from starlette.testclient import TestClient

import app
from musti_model import InputError
from musti_model.processing import MAX_BYTES, open_image
from page.calls import MOST_PICTURES
from page.door import LARGEST_CALL, LINE, MOST_BYTES_WAITING, SMALL_CALL, Door, Page
from page.inputs import SafeFile, SafeImage
from page.language import in_language, say, translations
from page.uploads import upload_of
from page.visit import MOST_WAITING
from tests.browser import new_context

META = {"_type": "gradio.FileData"}
GONE = "There is no such upload; it was deleted meanwhile, or never made. Upload the file again."
PASSAGE = "She blew out the candle."


def png(size: tuple[int, int] = (30, 20)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, "PNG")
    return out.getvalue()


def data_address(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


class Machine:
    """A caller without a page."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=f"{url}gradio_api", timeout=60)

    def upload(self, content: bytes, name: str = "p.png") -> str:
        return self.http.post("/upload", files={"files": (name, content)}).json()[0]

    def ended(self, path: str) -> tuple[str, object]:
        """(event, data) of the end of a stream."""
        lines = self.http.get(path).text.strip().splitlines()
        return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))

    def call(self, name: str, *data: object, **headers: str) -> tuple[str, object]:
        event = self.http.post(
            f"/call/{name}", content=json.dumps({"data": data}), headers={"Content-Type": "application/json"} | headers
        ).json()["event_id"]
        return self.ended(f"/call/{name}/{event}")

    def refused(self, name: str, *data: object, **headers: str) -> str:
        """The sentence that it gets."""
        event, answer = self.call(name, *data, **headers)
        assert event == "error", answer
        return answer["error"]


@pytest.fixture(scope="module")
def machine(url):
    return Machine(url)


@pytest.fixture
def secret(tmp_path):
    """A picture of somebody else on this machine."""
    path = tmp_path / "private.png"
    path.write_bytes(png())
    return path


def disguises(path: Path) -> list[dict]:
    """Ways to name a file that was never uploaded."""
    uploads = Path(get_upload_folder())
    climb = uploads / os.path.relpath(path, uploads)
    return [
        {"path": str(path)},
        {"path": str(path), "meta": META},
        {"path": str(path), "meta": {"_type": "other"}},
        {"path": str(path), "meta": {}},
        {"path": str(path), "url": "http://127.0.0.1/x", "is_stream": True, "meta": META},
        {"path": str(climb), "meta": META},
        {"path": str(climb)},
        {"path": f"file://{path}"},
        {"path": f"{path}\0.png", "meta": META},
        {"path": os.path.relpath(path)},
        {"path": ["/etc/passwd"]},
        {"path": "x" * 5000},
        {"path": str(uploads), "meta": META},
        {"path": f"{uploads}-beside/p.png", "meta": META},
        {"url": f"file://{path}"},
        {"path": "", "url": "", "meta": META},
    ]


def test_only_uploads_are_opened(machine, secret):
    """And one sentence is said of all else, so that nobody learns which files there are."""
    for given in [*disguises(secret), *disguises(secret.with_name("nothing.png"))]:
        assert machine.refused("predict", given, PASSAGE) == GONE, given
        assert machine.refused("rank", [given], [PASSAGE]) == GONE, given
    assert machine.refused("explain", {"path": str(secret)}, PASSAGE) == GONE
    assert machine.refused("rank_passages", {"path": str(secret)}, [PASSAGE]) == GONE
    link = Path(get_upload_folder()) / "link.png"
    link.symlink_to(secret)
    assert machine.refused("predict", {"path": str(link), "meta": META}, PASSAGE) == GONE
    link.unlink()
    event, answer = machine.call("predict", {"path": machine.upload(png()), "meta": META}, PASSAGE)
    assert event == "complete" and answer[0]["label"] in ("YES", "NO")


def test_no_event_of_the_page_opens_anything_else(url, secret):
    """All that the page itself sends can be sent by anybody: every input of every event, by its number."""
    demo, machine, tried = app.build(*app.load_pipeline()), Machine(url), 0
    for number, function in demo.fns.items():
        for at, component in enumerate(function.inputs):
            assert (
                component.data_model is None
                or "path" not in str(component.data_model.model_json_schema())
                or isinstance(component, SafeImage | SafeFile)
            )
            if isinstance(component, SafeImage | SafeFile) and function.queue:
                given = {"path": str(secret)}
                data = [None] * len(function.inputs)
                data[at] = [given] if isinstance(component, SafeFile) and component.most > 1 else given
                name = f"try-{number}-{at}"
                assert (
                    machine.http.post(
                        "/queue/join", json={"data": data, "fn_index": number, "session_hash": name}
                    ).status_code
                    == 200
                )
                assert GONE in machine.http.get("/queue/data", params={"session_hash": name}).text
                tried += 1
    assert tried > 5
    silent = next(n for n, f in demo.fns.items() if f.name == "settle")
    answer = machine.http.post(
        "/run/x", json={"data": [None, None, {"path": str(secret)}, "", 1.0], "fn_index": silent, "session_hash": "try"}
    )
    assert answer.json()["error"] == GONE


def test_inputs_check_for_themselves(secret):
    for component, payload in [
        (SafeImage(type="filepath"), ImageData(path=str(secret))),
        (SafeFile(), FileData(path=str(secret))),
        (SafeFile(file_count="multiple"), ListFiles([FileData(path=str(secret))])),
    ]:
        with pytest.raises(Exception, match="There is no such upload"):
            component.preprocess(payload)
        assert component.preprocess(None) is None


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:1/p.png", "https://example.org/p.png", " HTTP://example.org", "ftp://example.org/p.png"],
)
def test_nothing_is_fetched(machine, address, monkeypatch):
    for given in ({"path": address, "meta": META}, {"path": address}, {"url": address, "meta": META}):
        assert "Nothing is fetched" in machine.refused("predict", given, PASSAGE)
        assert "Nothing is fetched" in machine.refused("rank", [given], [PASSAGE])
    assert machine.http.get(f"/file={address.strip()}").status_code == 404 or not address.lower().strip().startswith(
        "http"
    )


def test_pictures_as_data_addresses(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    component = SafeImage(type="filepath", image_mode=None)
    address = data_address(png())
    for given in (
        address,
        address.replace("data:image/png", "DATA:image/PNG;name=a.png"),
        address.rstrip("="),
        address[:40] + "\n" + address[40:],
        address.replace("+", "%2B"),
    ):
        assert open_image(component.preprocess(ImageData(url=given))).size == (30, 20)
    with pytest.raises(InputError, match="damaged"):
        upload_of(None, "data:image/png;base64,!!!")
    with pytest.raises(InputError, match="limit is 30 MB"):
        upload_of(None, "data:image/png;base64," + "A" * (MAX_BYTES * 4 // 3 + 2000))
    monkeypatch.undo()
    event, answer = machine.call("predict", {"url": address, "meta": META}, PASSAGE)
    assert event == "complete", answer
    event, answer = machine.call("rank", [{"url": address}, {"url": data_address(png((9, 9)))}], [PASSAGE])
    assert event == "complete" and len(answer[0]) == 2
    assert "not a picture" in machine.refused("predict", {"url": "data:text/plain,hello"}, PASSAGE)


def test_calls_of_the_wrong_shape_get_a_sentence(machine):
    picture = {"path": machine.upload(png()), "meta": META}
    cases = [
        ("predict", [], "takes 2 values, not 0"),
        ("predict", [picture], "takes 2 values, not 1"),
        ("predict", [picture, PASSAGE, 1], "takes 2 values, not 3"),
        ("predict", [picture, 5], "“passage” takes a text"),
        ("predict", [picture, {"a": 1}], "“passage” takes a text"),
        ("predict", [picture, [PASSAGE]], "takes a text"),
        ("predict", [picture, None], "text"),
        ("predict", [None, PASSAGE], "Choose a picture"),
        ("predict", [5, PASSAGE], "does not have the shape"),
        ("predict", ["x.png", PASSAGE], "does not have the shape"),
        ("predict", [[picture], PASSAGE], "does not have the shape"),
        ("predict", [{}, PASSAGE], "shape|Choose|no such"),
        ("predict", [picture, "a \ud800 rose"], "broken character"),
        ("predict", [10**400, PASSAGE], "does not have the shape"),
        ("rank", [picture, [PASSAGE]], "does not have the shape"),
        ("rank", [[picture], PASSAGE], "list of texts"),
        ("rank", [[picture], [1, None]], "list of texts"),
        ("rank", [[picture], {"a": 1}], "list of texts"),
        ("rank", [[[picture]], [PASSAGE]], "shape"),
        ("rank", [[picture], None], "list of texts|no passage"),
        ("rank_passages", [picture, "x"], "list of texts"),
        ("explain", [True, PASSAGE], "shape"),
    ]
    for name, data, sentence in cases:
        told = machine.refused(name, *data)
        assert told and re.search(sentence, told), (name, data, told)
        assert "\n" not in told and "/" not in told and "Traceback" not in told, told


def test_messages_that_are_no_calls_get_a_sentence(machine):
    post, get = machine.http.post, machine.http.get
    deep: object = "x"
    for _ in range(200):
        deep = [deep]
    answers = [
        (post("/call/nothing", json={"data": []}), 404),
        (post("/call/v2/nothing", json={}), 404),
        (get("/call/predict"), 405),
        (post("/call/predict", content=b"{"), 400),
        (post("/call/predict", json=[]), 400),
        (post("/call/predict", json={"data": 5}), 422),
        (post("/call/predict", json={}), 422),
        (post("/call/predict", json={"data": deep}), 400),
        (post("/call/predict", content=b'{"data": ' + b"[" * 100_000), 400),
        (post("/call/predict", json={"data": [[]] * 200_000}), 400),
        (post("/call/predict", content=b'{"data": [' + b"0," * 2_000_000 + b"0]}"), 400),
        (post("/queue/join", json={"data": [], "fn_index": 99999, "session_hash": "a"}), 404),
        (post("/queue/join", json={"data": [], "fn_index": "x", "session_hash": "a"}), 422),
        (post("/queue/join", json={"data": [], "fn_index": 1}), 400),
        (post("/queue/join", json={"data": [], "fn_index": 1, "session_hash": "s" * 200}), 400),
        (post("/queue/join", json={"data": [], "fn_index": 1, "session_hash": 5}), 400),
        (post("/call/predict", json={"data": [], "session_hash": "s" * 10**6}), 400),
        (post("/run/predict", json={"data": []}), 404),
        (post("/call/v2/predict", json={"nobody": 1}), 400),
        (get("/upload_progress", params={"upload_id": "u" * 10_000}), 404),
        (post("/process_recording", files={"video": b"x"}), 404),
        (get("/proxy=http://127.0.0.1/"), 404),
        (get("/deep_link", params={"session_hash": "a"}), 404),
        (post("/component_server", json={"data": 1, "component_id": 1, "fn_name": "x", "session_hash": "a"}), 404),
        (post("/vibe-edit/", json={}), 404),
        (get("/file=https://example.org/x"), 404),
    ]
    for answer, status in answers:
        told = answer.json()["detail"]
        assert answer.status_code == status and told.endswith(".") and "\n" not in told, (
            answer.request.url,
            answer.status_code,
            answer.text,
        )
    assert b"Invalid" not in post("/upload", content=b"x").content and "shape" in post("/upload", content=b"x").text


def test_what_is_too_large_is_not_read(machine):
    answer = machine.http.post("/call/predict", content=(b" " * 10**6 for _ in range(LARGEST_CALL // 10**6 + 2)))
    assert answer.status_code == 413 and "64 MB" in answer.json()["detail"]
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; "
        f"boundary=b\r\nContent-Length: {10**12}\r\n\r\n"
    )
    with socket.create_connection((machine.http.base_url.host, machine.http.base_url.port)) as connection:
        connection.sendall(head.encode())
        assert b" 413 " in connection.recv(1000)


def test_the_limit_that_is_told_is_the_one_that_was_passed():
    async def strict(scope, receive, send):
        await send({"type": "http.response.start", "status": 413, "headers": []})

    # Gradio itself counts the bytes of each file, the door those of the whole message.
    assert "200 MB" in TestClient(Door(strict)).post("/gradio_api/upload", content=b"x").text
    assert "630 MB" in TestClient(Door(strict)).post("/gradio_api/upload", headers={"Content-Length": str(10**12)}).text


def test_too_many_files_are_refused_before_any_is_touched(machine, monkeypatch):
    from page import uploads

    looked_at = []
    monkeypatch.setattr(
        "page.inputs.with_uploads", lambda value: looked_at.append(value) or uploads.with_uploads(value)
    )
    picture = {"path": machine.upload(png()), "meta": META}
    assert (
        machine.refused("rank", [picture] * 10_000, [PASSAGE])
        == f"There are 10000 files; at most {MOST_PICTURES} can be given at a time."
    )
    assert not looked_at


def test_sentences_are_in_the_caller_s_language(machine):
    said = translations()["de"]
    assert (
        machine.refused("predict", {"path": "/etc/passwd"}, PASSAGE, **{"Accept-Language": "de-AT,en;q=0.3"})
        == said[GONE]
    )
    answer = machine.http.post("/call/nothing", json={"data": []}, headers={"Accept-Language": "de"})
    assert (
        answer.json()["detail"] == said["There is no such endpoint; “Use via API” on the page lists those there are."]
    )
    assert (
        machine.refused("predict", None, PASSAGE, **{"Accept-Language": 'xx;q=9,"<script>' * 300})
        == "Choose a picture first."
    )


def test_a_full_queue_is_told_in_a_sentence(machine, monkeypatch):
    from gradio.queueing import Queue

    monkeypatch.setattr(Queue, "__len__", lambda self: 10**6)
    answer = machine.http.post("/call/predict", json={"data": [None, PASSAGE]})
    # by which Gradio's client for Python knows it
    assert answer.status_code == 503 and "waiting already" in answer.json()["detail"]
    assert "line" not in answer.json()
    answer = machine.http.post("/call/predict", json={"data": [None, PASSAGE]}, headers={"Accept-Language": "fr"})
    assert (
        answer.status_code == 429
        and answer.json()["detail"]
        == translations()["fr"]["Too many questions are waiting already; ask again in a minute."]
    )
    assert (
        answer.json()["line"] == in_language("fr", lambda: say(LINE, count=MOST_WAITING))
        and f"{MOST_WAITING} questions attendent" in answer.json()["line"]
    )


def test_large_calls_are_turned_away_while_many_wait(machine, monkeypatch):
    picture = {"url": data_address(png() + bytes(SMALL_CALL)), "meta": META}

    def posted(image) -> httpx.Response:
        return machine.http.post("/call/predict", json={"data": [image, PASSAGE]})

    assert posted(picture).status_code == 200
    monkeypatch.setattr(Page, "waiting", lambda self: MOST_BYTES_WAITING + 1)
    answer = posted(picture)
    assert answer.status_code == 503 and "waiting already" in answer.json()["detail"]
    assert posted(None).status_code == 200


def test_what_waits_in_line_is_counted():
    def event(*data):
        return SimpleNamespace(data=SimpleNamespace(data=list(data)))

    lines = [
        [event({"url": "12345", "meta": {"_type": "67"}}, ["8", None, 9]), SimpleNamespace(data=None)],
        [event("0")],
    ]
    queues = {n: SimpleNamespace(queue=line) for n, line in enumerate(lines)}
    assert Page.waiting(SimpleNamespace(_queue=SimpleNamespace(event_queue_per_concurrency_id=queues))) == 9


def test_a_question_waits_for_room_and_goes_on_by_itself(browser, url, flower, monkeypatch):
    from gradio.queueing import Queue

    context = new_context(browser, locale="sl")
    page = context.new_page()
    page.goto(url)
    page.wait_for_function("() => document.documentElement.lang === 'sl'")
    refused = []
    page.on("response", lambda response: refused.append(response.status) if "/queue/join" in response.url else None)
    with monkeypatch.context() as patched:
        patched.setattr(Queue, "__len__", lambda self: 10**6)
        page.locator("#picture input[type=file]").set_input_files(str(flower))
        page.locator("#picture img").first.wait_for()
        page.locator("#passage textarea").fill("She smelled the roses.")
        page.locator("#run").click()
        page.locator("#line:visible").wait_for()
        assert page.locator("#line").inner_text() == in_language("sl", lambda: say(LINE, count=MOST_WAITING))
        while len(refused) < 2:
            page.wait_for_timeout(100)
        assert set(refused) == {429} and page.locator("#verdict h2").count() == 0
        assert (
            page.get_by_text(
                translations()["sl"]["Too many questions are waiting already; ask again in a minute."]
            ).count()
            == 0
        )
    page.locator("#verdict h2").wait_for()
    assert page.locator("#line:visible").count() == 0 and 200 in refused
    context.close()


def test_a_full_disk_is_told_in_a_sentence(machine, monkeypatch):
    import errno

    def full(*_given, **_named):
        raise OSError(errno.ENOSPC, "No space left on device")

    picture = {"path": machine.upload(png()), "meta": META}
    with monkeypatch.context() as patched:
        patched.setattr("gradio.processing_utils.save_pil_to_cache", full)
        assert "no room left" in machine.refused("explain", picture, PASSAGE)
    with monkeypatch.context() as patched:
        patched.setattr("page.uploads.save_bytes_to_cache", full)
        assert "no room left" in machine.refused("predict", {"url": data_address(png())}, PASSAGE)
    with monkeypatch.context() as patched:
        patched.setattr("gradio.route_utils.NamedTemporaryFile", full)
        answer = machine.http.post("/upload", files={"files": ("p.png", png())})
    assert answer.status_code == 507 and "no room left" in answer.text


def test_sessions_are_small_and_those_of_machines_are_not_kept(pipe, monkeypatch):
    demo = app.build(pipe)
    assert isinstance(demo, Page)
    holder = demo.state_holder
    assert not list(holder["visitor"].config_values), (
        "Gradio copies the settings of every component into every session again"
    )
    demo._forget("visitor")
    assert "visitor" not in holder and "visitor" not in holder.time_last_used


def test_a_machine_leaves_no_session_behind(machine, url, monkeypatch):
    from gradio.state_holder import StateHolder

    held = []
    real = StateHolder.__getitem__
    monkeypatch.setattr(StateHolder, "__getitem__", lambda self, name: held.append(self) or real(self, name))
    machine.call("predict", {"path": machine.upload(png()), "meta": META}, PASSAGE)
    before = len(held[0].session_data)
    for _ in range(5):
        machine.call("predict", {"path": machine.upload(png()), "meta": META}, PASSAGE)
    assert len(held[0].session_data) == before
