"""A zip of pictures: the right picture for a record or none, whatever the zip and the names in it."""

import io
import random
import stat
import struct
import tracemalloc
import unicodedata
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

from musti_model import InputError
from page import archive
from page.archive import LARGEST, PictureZip

MUSEUM = "https://museum.example/"


def drawn(colour: str, size: tuple[int, int] = (6, 4)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


RED, BLUE = drawn("red"), drawn("blue")


@pytest.fixture
def zipped(tmp_path):
    """Makes a zip of (name, bytes)."""

    def make(*members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
        with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for member in members:
                file.writestr(*member)
        return tmp_path / "p.zip"

    return make


def taken(pictures: PictureZip, address: str, record_id: str = "") -> str:
    """Colour, with ? where it was found in another folder by its name; or the sentence."""
    try:
        found = pictures.find(address, record_id)
        colour = {(255, 0, 0): "red", (0, 0, 255): "blue"}[pictures.read(found).getpixel((0, 0))]
        return colour + ("" if found.sure else "?")
    except InputError as error:
        return str(error)


@pytest.mark.parametrize(
    ("red", "blue", "address", "expected"),
    [
        ("a/rose.png", "b/rose.png", MUSEUM + "b/rose.png?size=full#top", "blue"),
        ("a\\rose.png", "b\\rose.png", "C:\\scans\\b\\rose.png", "blue"),
        ("p/rose.png", "p/lily.png", MUSEUM + "images/rose.png", "red"),  # a folder around all
        ("p/rose.png", "q/lily.png", MUSEUM + "images/rose.png", "red?"),
        ("p/rose.png", "p/lily.png", "../p/./lily.png", "blue"),
        ("rose#1.png", "rose#2.png", "rose#2.png", "blue"),
        ("50% rose.png", "50%25 rose.png", "50% rose.png", "red"),
        ("rose%20red.png", "x.png", MUSEUM + "rose%20red.png", "red"),
        ("rose red.png", "x.png", MUSEUM + "rose%20red.png", "red"),
        ("get.php?id=1", "get.php?id=2", MUSEUM + "get.php?id=2", "blue"),
        ("get.php?id=1", "get.php?id=2", MUSEUM + "get.php?id=3", "The zip holds no picture"),
        ("NGA_1937.png", "x.png", "NGA:1937.png", "red"),  # as Windows has to write it
        (
            "https%3A%2F%2Fmuseum.example%2Fa%2Fdefault.jpg",
            "https%3A%2F%2Fmuseum.example%2Fb%2Fdefault.jpg",
            MUSEUM + "b/default.jpg",
            "blue",
        ),
        ("museum.example/a/default.jpg", "museum.example/b/default.jpg", MUSEUM + "a/default.jpg", "red"),
        ("copy/a/full/0/default.jpg", "copy/b/full/0/default.jpg", MUSEUM + "iiif/b/full/0/default.jpg", "blue"),
        (
            "copy/a/full/0/default.jpg",
            "copy/b/full/0/default.jpg",
            MUSEUM + "iiif/c/full/0/default.jpg",
            "only in another folder",
        ),
        ("a/default.jpg", "b/default.jpg", "default.jpg", "several pictures"),
        ("a/default.jpg", "x.png", MUSEUM + "b/default.jpg", "only in another folder"),
        ("book1/0001.jpg", "book1/0002.jpg", MUSEUM + "book2/0001.jpg", "only in another folder"),
        ("a/images/rose.png", "a/images/lily.png", MUSEUM + "b/images/rose.png", "only in another folder"),
        ("Rose.PNG", "x.png", "rose.png", "red"),
        ("Rose.png", "rose.png", "rose.png", "blue"),
        ("Rose.png", "rose.png", "ROSE.png", "several pictures"),
        (unicodedata.normalize("NFD", "rosé.png"), "x.png", "rosé.png", "red"),
        ("SK-A-12.jpg", "x.png", MUSEUM + "objects/SK-A-12", "red"),
        ("rose.png", "__MACOSX/._rose.png", "rose.png", "red"),
        ("a.png", "x.png", "http://[", "The zip holds no picture"),
        ("a.png", "x.png", "a\ud800.png", "The zip holds no picture"),
        ("a.png", "x.png", MUSEUM + "a/" * 100_000 + "a.png", "The zip holds no picture"),
        ("a.png", "x.png", "a" + "\u0f72\u0f71" * 80_000, "The zip holds no picture"),
    ],
)
@pytest.mark.timeout(20)
def test_addresses_and_names(zipped, red, blue, address, expected):
    got = taken(PictureZip(zipped((red, RED), (blue, BLUE))), address)
    assert got == expected if expected.rstrip("?") in ("red", "blue") else expected in got


@pytest.mark.parametrize(
    ("red", "blue", "address", "expected"),
    [
        ("15.jpg", "16.jpg", MUSEUM + "a/full/0/default.jpg", "red"),
        ("p/15.jpg", "p/16.jpg", MUSEUM + "rose.jpg", "red"),
        ("15.jpg", "15.png", MUSEUM + "rose.jpg", "several pictures"),
        ("15.jpg", "16.jpg", MUSEUM + "a/16.jpg", "several pictures"),  # by its id, or as its address ends?
        ("15.jpg", "16.jpg", "16.jpg", "blue"),
        ("15.jpg", "rose.jpg", MUSEUM + "a/rose.jpg", "blue"),
    ],
)
def test_ids_as_names(zipped, red, blue, address, expected):
    got = taken(PictureZip(zipped((red, RED), (blue, BLUE))), address, "15")
    assert got == expected if expected in ("red", "blue") else expected in got


@pytest.mark.parametrize("page", ["utf-8", "cp437", "cp850", "cp852", "cp1250"])
def test_names_of_other_code_pages(zipped, page):
    name = ("rosée.png" if page in ("cp437", "cp850") else "češnja.png").encode(page)
    path = zipped(("X" * len(name), RED))
    path.write_bytes(path.read_bytes().replace(b"X" * len(name), name))
    assert taken(PictureZip(path), MUSEUM + name.decode(page)) == "red"


@pytest.mark.parametrize(
    ("name", "addresses", "expected"),
    [
        ("default.jpg", [MUSEUM + "a/default.jpg", MUSEUM + "b/default.jpg"], [False, False]),
        ("a/rose.jpg", [MUSEUM + "a/rose.jpg", MUSEUM + "b/rose.jpg"], [True, False]),
        ("rose.jpg", [MUSEUM + "a/rose.jpg", "http://museum.example/a/rose.jpg?w=9", "rose.jpg"], [True, True, True]),
        ("rose.jpg", ["http://museum.example/rose.jpg", "https://www.museum.example/rose.jpg"], [True, True]),
        ("rose.php", [MUSEUM + "rose.php?id=1", MUSEUM + "rose.php?id=2"], [False, False]),
        ("101.jpg", [MUSEUM + "a/rose.jpg", MUSEUM + "b/101.jpg"], [True, True]),
        ("100.jpg", [MUSEUM + "a/rose.jpg", MUSEUM + "b/100.jpg"], [False, False]),  # by id and by name
    ],
)
def test_two_objects_do_not_share_a_picture(zipped, name, addresses, expected):
    pictures, asked = (
        PictureZip(zipped((name, RED))),
        [(address, str(n)) for n, address in enumerate(addresses, start=100)],
    )
    if name == "101.jpg":
        asked, expected = asked[1:], expected[1:]
    pictures.know(asked)
    copied = type(pictures)(*pictures.__reduce__()[1])  # as a borrowed GPU gets it
    for each in (pictures, copied):
        got = [taken(each, *pair) for pair in asked]
        assert [g == "red" for g in got] == expected and all(g == "red" or "Several addresses" in g for g in got)


def test_names_that_say_nothing_are_found_as_if_all_were_looked_through(zipped, monkeypatch):
    """Of thousands of a name only those are looked at whose folders fit."""
    rng = random.Random(0)

    def path(deepest: int) -> str:
        folders = rng.choices(["a", "B", "full", "0"], k=rng.randint(0, deepest))
        return "/".join([*folders, rng.choice(["default.jpg", "1.jpg", "2", "rose.jpg"])])

    for _ in range(30):
        names = list(dict.fromkeys(rng.choice(["", "pics/"]) + path(3) for _ in range(rng.randint(1, 8))))
        asked = [(rng.choice(["", MUSEUM, "https://x.org/"]) + path(4), rng.choice(["1", "2", ""])) for _ in range(40)]
        few = PictureZip(zipped(*((name, b"x") for name in names)), asked)
        with monkeypatch.context() as patch:
            patch.setattr(PictureZip, "_candidates", lambda self, name, wanted, host: self._by_name.get(wanted[-1], []))
            told = [str(found) for found in PictureZip(few.path, asked)._asked.values()]
        assert [str(found) for found in few._asked.values()] == told
        assert any("member=" in found for found in told)


def test_one_name_twice(zipped):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = zipped(("a.png", RED), ("a.png", BLUE))
    assert "several pictures" in taken(PictureZip(path), "a.png")


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "C:\\a.png", "x/../../a.png", "\\\\server\\a.png"])
def test_names_that_lead_out(zipped, name):
    assert "leads out of the zip" in taken(PictureZip(zipped((name, RED))), "a.png")


def patched(path: Path, at: int, value: bytes) -> Path:
    """Changes a field of the only member, both in its header and in the list of files; at: offset in the header."""
    data = bytearray(path.read_bytes())
    listed = data.rindex(b"PK\1\2") + 2
    for start in (at, listed + at):
        data[start : start + len(value)] = value
    path.write_bytes(data)
    return path


def test_a_zip_that_lies(zipped):
    path = patched(zipped(("a.png", bytes(200_000_000))), 22, struct.pack("<I", 1000))
    tracemalloc.start()
    assert "damaged in the zip" in taken(PictureZip(path), "a.png")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_what_is_not_read(zipped):
    link = zipfile.ZipInfo("a.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    assert "only a link" in taken(PictureZip(zipped((link, b"/etc/passwd"))), "a.png")
    assert "locked" in taken(PictureZip(patched(zipped(("a.png", RED)), 6, b"\1")), "a.png")
    for method in (12, 14, 99):  # bzip2, LZMA, none: they unpack without bounds
        assert "unusual way" in taken(PictureZip(patched(zipped(("a.png", RED)), 8, bytes([method, 0]))), "a.png")
    assert "over 30 MB" in taken(PictureZip(zipped(("a.png", bytes(30_000_001)))), "a.png")
    assert "cannot be read: This file is not a picture" in taken(PictureZip(zipped(("a.png", b"text"))), "a.png")
    assert "damaged" in taken(PictureZip(patched(zipped(("a.png", RED)), 14, bytes(4))), "a.png")  # another checksum


def test_files_that_share_bytes(zipped):
    path = zipped(("a.png", RED), ("b.png", RED))
    data = bytearray(path.read_bytes())
    second = data.rindex(b"PK\1\2")
    data[second + 42 : second + 46] = bytes(4)  # where it begins
    path.write_bytes(data)
    with pytest.raises(InputError, match="lie over each other"):
        PictureZip(path)


def test_too_many_files(zipped, tmp_path, monkeypatch):
    entry = b"PK\1\2" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    count = 400_000
    (tmp_path / "many.zip").write_bytes(
        entry * count + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, len(entry) * count, 0, 0)
    )
    tracemalloc.start()
    with pytest.raises(InputError, match="more than 10000 files"):
        PictureZip(tmp_path / "many.zip")
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()
    monkeypatch.setattr(archive, "MOST_FILES", 1)
    with pytest.raises(InputError, match="more than 1 files"):
        PictureZip(zipped(("a.png", RED), ("b.png", RED)))


def test_zips_with_the_fields_of_large_ones_and_with_something_before(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as file, file.open("a.png", "w", force_zip64=True) as member:
        member.write(RED)
    data = (tmp_path / "p.zip").read_bytes()
    for before in (b"", b"#!/bin/sh\n"):
        (tmp_path / "p.zip").write_bytes(before + data)
        assert taken(PictureZip(tmp_path / "p.zip"), "a.png") == "red"


def test_any_damage_is_told(zipped, tmp_path):
    data = zipped(("a.png", RED), ("b/c.png", BLUE)).read_bytes()
    for seed in range(200):
        damaged = bytearray(data)
        at = zlib.crc32(seed.to_bytes(2, "big"))
        damaged[at % len(data)] = at >> 24
        (tmp_path / "d.zip").write_bytes(damaged[: len(data) if seed % 4 else at % len(data)])
        try:
            got = taken(PictureZip(tmp_path / "d.zip"), "a.png")
        except InputError as error:
            got = str(error)
        assert got in ("red", "red?") or got.endswith("."), seed


def test_large_pictures_are_shrunk(zipped):
    assert PictureZip(zipped(("a.png", drawn("red", (4000, 1000))))).open("a.png").size == (LARGEST, LARGEST // 4)
