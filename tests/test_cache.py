"""The folder of uploads: the page's own, swept by age, gone when the page stops."""

import os
import signal
import socket
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from urllib.request import urlopen

import pytest

from page import cache
from tests.processes import free_port, start


def written(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_folder_is_the_page_s_own(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    folder = cache.own_folder()
    assert folder.parent == tmp_path.resolve() and os.environ["GRADIO_TEMP_DIR"] == str(folder) and not folder.exists()
    assert cache.own_folder() == folder
    monkeypatch.delenv("GRADIO_TEMP_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "system"))
    assert cache.own_folder().parent == (tmp_path / "system").resolve()


def test_what_is_old_is_swept(tmp_path, monkeypatch):
    own, other, foreign = (tmp_path / name for name in ("page-uploads-1-1", "page-uploads-2-2", "somebody-else"))
    files = [
        written(folder / name)
        for folder in (own, other, foreign)
        for name in ("hash/picture.png", "tmpabcd", ".hidden")
    ]
    example = written(own / "hash2" / "candle.jpg")
    (own / "link").symlink_to(foreign)
    now = time.time()
    cache.sweep(own, 3600, [str(example)])
    assert all(f.exists() for f in files)
    monkeypatch.setattr("time.time", lambda: now + 3601)
    monkeypatch.setattr("os.utime", lambda path: None)
    cache.sweep(foreign, 0)
    assert all(f.exists() for f in files), "a folder that is not ours was swept"
    cache.sweep(own, 3600)
    assert not own.exists() and not other.exists() and len(list(foreign.rglob("*"))) == 4


def test_files_that_are_needed_stay_young(tmp_path):
    example, upload = (written(tmp_path / "page-uploads-1-1" / name) for name in ("candle.jpg", "upload.jpg"))
    time.sleep(0.3)
    cache.sweep(tmp_path / "page-uploads-1-1", 0.2, [str(example)])
    assert example.exists() and not upload.exists()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_page_that_was_stopped(tmp_path, end):
    """Nor, once another one starts, of one that was killed, nor of an upload that was broken off."""
    port = free_port()
    uploads = tmp_path / "uploads"
    page = start("app", [], tmp_path / "log", GRADIO_TEMP_DIR=str(uploads), GRADIO_SERVER_PORT=str(port))
    try:
        _wait_for(port, page)
        body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="p.png"\r\n\r\n'
        with urlopen(
            _request(port, body + b"whole\r\n--b--\r\n", "multipart/form-data; boundary=b"), timeout=20
        ) as answer:
            assert b"p.png" in answer.read()
        with socket.create_connection(("127.0.0.1", port)) as half:
            head = (
                "POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; "
                "boundary=b\r\nContent-Length: 9999\r\n\r\n"
            )
            half.sendall(head.encode() + body + b"half")
            time.sleep(0.5)
        time.sleep(0.5)
        (folder,) = uploads.iterdir()
        assert len([p for p in folder.iterdir() if p.is_file()]) == 1  # of the upload that was broken off
        assert folder.stat().st_mode & 0o077 == 0
        os.kill(page.pid, end)
        page.join(60)
    finally:
        page.kill()
    if end == signal.SIGKILL:
        assert folder.exists()
        time.sleep(0.1)
        cache.sweep(uploads / "page-uploads-next", 0.05)
    assert not list(uploads.iterdir())


def _request(port: int, body: bytes, kind: str):
    from urllib.request import Request

    return Request(f"http://127.0.0.1:{port}/gradio_api/upload", data=body, headers={"Content-Type": kind})


def _wait_for(port: int, page: BaseProcess) -> None:
    for _ in range(240):
        assert page.exitcode is None
        try:
            with urlopen(f"http://127.0.0.1:{port}/config", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("The page did not start.")
