"""Odd picture files: each opens as people see it, or is refused in one sentence; nothing else, and in bounded time and
memory."""

import io
import random
import resource
import struct
import subprocess
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from musti_model import InputError, pictures
from musti_model.pictures import open_image
from tests.processes import ended, start

WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (255, 0, 0)


def saved(image: Image.Image, kind: str, **how) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def opened(data: bytes, **how) -> Image.Image:
    return open_image(io.BytesIO(data), **how)


def row(data: bytes) -> list[tuple[int, ...]]:
    image = opened(data)
    return [image.getpixel((x, 0)) for x in range(image.width)]


def ifd(entries: list[tuple[int, int, list[int]]], order: str, start: int) -> bytes:
    """A TIFF directory that begins at byte ``start``: (tag, type, values)."""
    forms = {1: "B", 3: "H", 4: "I"}
    out, extra = struct.pack(order + "H", len(entries)), b""
    for tag, kind, values in sorted(entries):
        value = struct.pack(f"{order}{len(values)}{forms[kind]}", *values)
        if len(value) > 4:
            at = start + 2 + 12 * len(entries) + 4 + len(extra)
            extra, value = extra + value, struct.pack(order + "I", at)
        out += struct.pack(order + "HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    return out + bytes(4) + extra


def tiff(data: bytes, size, bits, photometric, order="<", samples=1, form=1, planes=1, packed=False, more=()) -> bytes:
    """One strip a plane, in the file's byte order; packed: by deflate."""
    parts = [
        data[len(data) * i // (samples if planes == 2 else 1) :][: len(data) // (samples if planes == 2 else 1)]
        for i in range(samples if planes == 2 else 1)
    ]
    parts = [zlib.compress(p) for p in parts] if packed else parts
    starts = [8 + sum(map(len, parts[:i])) for i in range(len(parts))]
    entries = [
        (256, 3, [size[0]]),
        (257, 3, [size[1]]),
        (258, 3, [bits] * samples),
        (259, 3, [8 if packed else 1]),
        (262, 3, [photometric]),
        (273, 4, starts),
        (277, 3, [samples]),
        (278, 3, [size[1]]),
        (279, 4, [len(p) for p in parts]),
        (284, 3, [planes]),
        (339, 3, [form] * samples),
        *more,
    ]
    start = 8 + sum(map(len, parts))
    return (
        (b"II*\0" if order == "<" else b"MM\0*")
        + struct.pack(order + "I", start)
        + b"".join(parts)
        + ifd(entries, order, start)
    )


@pytest.mark.parametrize(
    ("bits", "photometric", "order", "form", "values", "seen"),
    [
        (8, 0, "<", "B", (0, 128, 255), (255, 127, 0)),
        (16, 0, "<", "H", (0, 32768, 65535), (255, 127, 0)),
        (16, 1, ">", "H", (0, 32768, 65535), (0, 127, 255)),
        (16, 1, "<", "h", (0, 16384, 32767), (0, 127, 255)),
        (16, 1, ">", "h", (-1000, 0, 1000), (0, 127, 255)),
        (32, 1, "<", "I", (0, 2**31, 2**32 - 1), (0, 127, 255)),
        (32, 1, ">", "i", (0, 100, 200), (0, 100, 200)),
        (32, 1, "<", "f", (0.0, 0.5, 1.0), (0, 127, 255)),
        (32, 0, ">", "f", (0.0, 0.5, 1.0), (255, 127, 0)),
        (32, 1, ">", "f", (float("nan"), 51.0, 255.0), (0, 51, 255)),
        (32, 1, "<", "f", (0.0, float("inf"), 1.0), (0, 255, 255)),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_grey_tiffs_are_neither_negative_nor_clipped(bits, photometric, order, form, values, seen, packed):
    kind = {"h": 2, "i": 2, "f": 3}.get(form, 1)
    data = tiff(struct.pack(f"{order}3{form}", *values), (3, 1), bits, photometric, order, form=kind, packed=packed)
    assert [r for r, _, _ in row(data)] == pytest.approx(seen, abs=1)


def test_tiff_of_12_bits_has_its_own_white():
    assert [r for r, _, _ in row(tiff(bytes([0x80, 0x0F, 0xFF]), (2, 1), 12, 1))] == [127, 255]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("packed", [False, True])
def test_tiff_in_planes_of_16_bits(order, packed):
    data = struct.pack(order + "6H", 65535, 0, 0, 65535, 32768, 0)  # red, green, blue of two pixels
    assert np.allclose(
        row(tiff(data, (2, 1), 16, 2, order, samples=3, planes=2, packed=packed)), [(255, 0, 128), (0, 255, 0)], atol=1
    )


def test_tiff_of_luminance_without_compression():
    pixel = Image.new("RGB", (1, 1), (200, 60, 30)).convert("YCbCr").tobytes()
    assert np.allclose(
        row(tiff(pixel * 4, (4, 1), 8, 6, samples=3, more=[(530, 3, [1, 1])])), [(200, 60, 30)] * 4, atol=3
    )


def test_tiff_palette_of_8_bits_a_value():
    palette = [200, *[0] * 255, 60, *[0] * 255, 30, *[0] * 255]
    for factor in (1, 257):
        data = tiff(b"\0", (1, 1), 8, 3, more=[(320, 3, [v * factor for v in palette])])
        assert row(data) == [(200, 60, 30)]


def test_pages_and_tags_beside_the_picture_do_no_harm():
    pages = saved(
        Image.new("RGB", (2, 1), "red"), "TIFF", save_all=True, append_images=[Image.new("RGB", (2, 1), "blue")]
    )
    assert row(pages) == [RED, RED]
    # directories that are none
    assert row(tiff(b"\x07", (1, 1), 8, 1, more=[(34665, 4, [2**31]), (34853, 4, [3]), (330, 4, [8])])) == [(7, 7, 7)]


ODD_TAGS = {
    "a rational over zero": ((0x9204, 10, 1, 38), struct.pack("<ii", -1, 0)),
    "text kept as a rational": ((0x010F, 5, 1, 38), struct.pack("<II", 1, 3)),
    "a date kept as a float": ((0x0132, 11, 1, 5), b""),
    "a place outside of the file": ((0x010F, 2, 99, 2**31), b""),
    "a type that there is not": ((0x010F, 99, 1, 0), b""),
    "a pointer to itself": ((0x8769, 4, 1, 8), b""),
}


def exif(turn: int, tag=None, extra=b"", order="<", kind=3) -> bytes:
    field = struct.pack(order + {1: "Bxxx", 3: "Hxx", 4: "I"}[kind], turn)
    own = struct.pack(order + "HHI", 0x0112, kind, 1) + field
    entries = sorted(
        [own] + ([struct.pack(order + "HHII", *tag)] if tag else []), key=lambda e: struct.unpack_from(order + "H", e)
    )
    return (
        (b"II*\0" if order == "<" else b"MM\0*")
        + struct.pack(order + "IH", 8, len(entries))
        + b"".join(entries)
        + bytes(4)
        + extra
    )


def with_exif(block: bytes, kind: str) -> bytes:
    how = {"PNG": {}, "WEBP": {"lossless": True}, "JPEG": {}}[kind]
    return saved(Image.new("RGB", (40, 20), "red"), kind, exif=b"Exif\0\0" + block, **how)


@pytest.mark.parametrize("odd", ODD_TAGS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_odd_tags_do_not_hide_how_a_picture_is_turned(odd, kind):
    assert opened(with_exif(exif(6, *ODD_TAGS[odd]), kind)).size == (20, 40)


def test_broken_metadata_is_as_none():
    for block in (b"", b"II", b"XX*\0abcdefgh", exif(6)[:-10], b"II*\0\xff\xff\xff\xff", exif(9), exif(0)):
        assert opened(with_exif(block, "JPEG")).size == (40, 20)
    assert (
        opened(with_exif(exif(6, order=">"), "JPEG")).size == opened(with_exif(exif(6, kind=4), "PNG")).size == (20, 40)
    )


SIGHT = Image.new("RGB", (48, 32), "white")
for box, colour in {(0, 0, 24, 16): "red", (24, 0, 48, 16): "blue", (0, 16, 24, 32): "green"}.items():
    SIGHT.paste(colour, box)
STORED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # how a camera stores what has to be turned so


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "TIFF packed"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_turn_once_and_not_twice(kind, turn):
    stored = SIGHT.transpose(Image.Transpose(STORED[turn])) if turn > 1 else SIGHT
    tags = Image.Exif()
    tags[0x0112] = turn
    how = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "TIFF packed": {"compression": "tiff_lzw"}}.get(
        kind, {}
    )
    data = saved(stored, kind.split()[0], exif=tags, **how)
    for source in (io.BytesIO(data), Image.open(io.BytesIO(data))):
        seen = open_image(source)
        assert np.abs(np.asarray(seen)[4::8, 4::8].astype(int) - np.asarray(SIGHT)[4::8, 4::8]).max() < 40
        assert open_image(seen).size == seen.size and not seen.info


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, depth: int, colours: int, line: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """One line high."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colours, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(chunk(*c) for c in chunks)
        + chunk(b"IDAT", zlib.compress(b"\0" + line))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (png(4, 2, 0, b"\x1b", (b"tRNS", b"\0\1")), [0, 255, 170, 255]),
        (png(2, 4, 0, b"\x37", (b"tRNS", b"\0\3")), [255, 119]),
        (png(2, 1, 0, b"\x40", (b"tRNS", b"\0\0")), [255, 255]),
        (png(2, 8, 0, b"\3\x09", (b"tRNS", b"\0\x09")), [3, 255]),
        (png(3, 16, 0, struct.pack(">3H", 0, 30000, 30001), (b"tRNS", struct.pack(">H", 30000))), [0, 255, 116]),
        (
            png(
                2,
                16,
                2,
                struct.pack(">6H", 999, 2000, 3000, 60000, 0, 0),
                (b"tRNS", struct.pack(">3H", 999, 2000, 3000)),
            ),
            [255, 234],
        ),
        (png(2, 16, 4, struct.pack(">4H", 0, 65535, 0, 32768)), [0, 127]),
        (png(2, 16, 6, struct.pack(">8H", 65535, 0, 0, 65535, 0, 0, 0, 0)), [255, 255]),
        (png(2, 8, 3, b"\0\1", (b"PLTE", b"\x09\0\0\0\xff\0"), (b"tRNS", b"\xff\x80")), [9, 127]),
        (png(1, 8, 0, b"\x37", (b"gAMA", struct.pack(">I", 100_000))), [127]),  # linear light
        (png(1, 8, 0, b"\x37", (b"gAMA", struct.pack(">I", 45_455))), [55]),
        (png(1, 8, 0, b"\x37", (b"gAMA", struct.pack(">I", 100_000)), (b"sRGB", b"\0")), [55]),
        (png(1, 8, 0, b"\x37", (b"abCd", b"private")) + b"and more", [55]),
        (png(1, 8, 0, b"\x37", (b"tEXt", b"a\0b")).replace(b"tEXta\0b", b"tEXta\0c"), [55]),  # its checksum is wrong
    ],
)
def test_png_of_every_depth(data, seen):
    assert [r for r, _, _ in row(data)] == pytest.approx(seen, abs=1)


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "80 texts", "iCCP", "XMP"])
def test_much_text_in_a_png_is_no_fault(kind):
    info = PngInfo()
    for n in range(80 if kind == "80 texts" else 1):
        info.add_text(f"k{n}", "x" * 2_000_000, zip=True)
    if kind == "iTXt":
        info.add_itxt("k", "x" * 2_000_000, zip=True)
    if kind == "XMP":
        info.add_itxt("XML:com.adobe.xmp", 'tiff:Orientation="6"' + "x" * 2_000_000, zip=True)
    data = saved(Image.new("RGB", (8, 4), "red"), "PNG", pnginfo=info)
    if kind == "iCCP":
        data = data[:33] + chunk(b"iCCP", b"big\0\0" + zlib.compress(bytes(2_000_000))) + data[33:]
    image = opened(data)
    assert image.getpixel((1, 1)) == RED and image.size == ((4, 8) if kind == "XMP" else (8, 4))


def test_what_unpacks_to_a_gigabyte_is_not_unpacked():
    much = zlib.compressobj(9)
    packed = b"".join(much.compress(bytes(1_000_000)) for _ in range(200)) + much.flush()
    known = [
        (b"zTXt", b"Raw profile type exif\0\0"),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
        (b"iCCP", b"n\0\0"),
        (b"zTXt", b"k\0\0"),
    ]
    data = png(1, 8, 0, b"\x37", *((name, start + packed) for name, start in known))
    tracemalloc.start()
    assert row(data) == [(55, 55, 55)]
    assert tracemalloc.get_traced_memory()[1] < 40_000_000
    tracemalloc.stop()


def profile(gamma: float, primaries=None, space=b"RGB ", lut=b"") -> bytes:
    """A small ICC profile: of three primaries (D50) and a gamma, of grey with a gamma, or of a table."""
    xyz = lambda values: b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))  # noqa: E731
    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    tags = [
        (b"desc", b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(83)),
        (b"cprt", b"text\0\0\0\0none\0\0\0\0"),
        (b"wtpt", xyz((0.9642, 1, 0.8249))),
    ]
    if lut:
        tags.append((b"A2B0", lut))
    elif primaries:
        tags += [(name, xyz(v)) for name, v in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries)] + [
            (name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")
        ]
    else:
        tags.append((b"kTRC", curve))
    table, body, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags:
        table, body = table + name + struct.pack(">II", at + len(body), len(data)), body + data + bytes(-len(data) % 4)
    head = (
        struct.pack(">I", 128 + len(table) + len(body))
        + b"lcms\x02\x40\0\0"
        + (b"prtr" if lut else b"mntr")
        + space
        + (b"Lab " if lut else b"XYZ ")
    )
    head += (
        struct.pack(">6H", 2024, 1, 1, 0, 0, 0)
        + b"acspAPPL"
        + bytes(24)
        + struct.pack(">3i", 63190, 65536, 54061)
        + b"lcms"
    )
    return head.ljust(128, b"\0") + table + body


def ink_table() -> bytes:
    """A printer of four inks whose every ink but the third leaves a dark red."""
    ramp = bytes(range(256))
    colours = b"".join(
        bytes([255, 128, 128]) if not any(inks) else bytes([100, 180, 160]) for inks in np.ndindex(2, 2, 2, 2)
    )
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    return b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + colours + ramp * 3


ADOBE = profile(2.2, [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)])
PROPHOTO = profile(1.8, [(0.7977, 0.2880, 0), (0.1352, 0.7119, 0), (0.0313, 0.0001, 0.8249)])
GREY = profile(1.0, space=b"GRAY")
INK = profile(1.0, space=b"CMYK", lut=ink_table())


@pytest.mark.parametrize(
    ("icc", "picture", "kinds"),
    [
        (ADOBE, Image.new("RGB", (8, 8), (200, 60, 60)), ("PNG", "TIFF", "JPEG", "WEBP")),
        (PROPHOTO, Image.new("RGB", (8, 8), (150, 110, 90)), ("PNG", "TIFF", "JPEG", "WEBP")),
        (GREY, Image.new("L", (8, 8), 55), ("PNG", "TIFF", "JPEG")),
        (INK, Image.new("CMYK", (8, 8), (0, 0, 0, 0)), ("TIFF", "JPEG")),
        (INK, Image.new("CMYK", (8, 8), (0, 255, 0, 0)), ("TIFF", "JPEG")),
    ],
    ids=["Adobe RGB", "ProPhoto", "linear grey", "paper", "ink"],
)
def test_colours_are_those_of_the_profile(icc, picture, kinds):
    people = ImageCms.profileToProfile(
        picture, ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    for kind in kinds:
        seen = opened(
            saved(
                picture,
                kind,
                icc_profile=icc,
                **({"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}),
            )
        )
        assert np.allclose(seen.getpixel((1, 1)), people.getpixel((1, 1)), atol=6), kind
        again = opened(saved(seen, "PNG"))  # the profile is not there to be applied twice
        assert again.getpixel((1, 1)) == seen.getpixel((1, 1))


def test_profiles_of_other_modes():
    grey = chunk(b"iCCP", b"n\0\0" + zlib.compress(GREY))[4:-4]
    assert row(png(1, 16, 0, b"\x37\x37", (grey[:4], grey[4:])))[0] == pytest.approx((127, 127, 127), abs=3)
    assert row(png(1, 16, 4, b"\x37\x37\xff\xff", (grey[:4], grey[4:])))[0] == pytest.approx((127, 127, 127), abs=3)
    over = Image.new("RGBA", (2, 1), (200, 60, 60, 255))
    over.putpixel((1, 0), (200, 60, 60, 0))
    solid, nothing = row(saved(over, "PNG", icc_profile=ADOBE))
    assert nothing == WHITE and solid == opened(saved(over.convert("RGB"), "PNG", icc_profile=ADOBE)).getpixel((0, 0))
    palette = saved(over.convert("RGB").quantize(4), "PNG", icc_profile=ADOBE)
    assert row(palette)[0] == solid


def test_profiles_that_are_none_or_of_something_else_change_nothing():
    dark = profile(2.2, [(0, 0, 0)] * 3)
    bright = profile(0.0, [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)])
    for icc in (b"x", b"x" * 500, ADOBE[:200], GREY, INK, dark, bright, bytes(9_000_000)):
        assert row(saved(Image.new("RGB", (1, 1), (200, 60, 60)), "TIFF", icc_profile=icc)) == [(200, 60, 60)], len(icc)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert row(saved(Image.new("RGB", (1, 1), (200, 60, 60)), "PNG", icc_profile=srgb))[0] == pytest.approx(
        (200, 60, 60), abs=1
    )


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
        (b"<?xml version='1.0'?>\n<svg>", "SVG"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"PK\3\4", "ZIP"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"\0\0\0\x18ftypisom", "video"),
    ],
)
def test_what_is_no_picture_file_is_named(start, kind, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)  # Pillow has Ghostscript draw an EPS
    with pytest.raises(InputError, match=f"This {kind} file is not a picture we can read"):
        opened(start + bytes(200))


def test_an_eps_is_never_run(monkeypatch):
    data = saved(Image.new("RGB", (9, 9)), "EPS")
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("something was run"))
    with pytest.raises(InputError, match="EPS"):
        opened(data)


def strips(number: int, size: tuple[int, int], rows: int) -> bytes:
    """A TIFF whose strips are all the same bytes."""
    start = 8 + size[0] * rows
    entries = [
        (256, 4, [size[0]]),
        (257, 4, [size[1]]),
        (258, 3, [8]),
        (259, 3, [1]),
        (262, 3, [1]),
        (273, 4, [8] * number),
        (277, 3, [1]),
        (278, 4, [rows]),
        (279, 4, [size[0] * rows] * number),
    ]
    return b"II*\0" + struct.pack("<I", start) + bytes(size[0] * rows) + ifd(entries, "<", start)


def hostile() -> dict[str, bytes]:
    segment = lambda marker, body: b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body  # noqa: E731
    jpeg = saved(Image.new("L", (16, 16)), "JPEG")
    scans = saved(Image.new("L", (4000, 4000)), "JPEG", progressive=True)
    scan = scans[scans.rindex(b"\xff\xda") : -2]
    gif = saved(Image.new("L", (4, 4)), "GIF")
    tags = (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", 20_000)
        + b"".join(struct.pack("<HHII", 33_000 + n, 7, 2_000_000, 0) for n in range(20_000))
        + bytes(4)
    )
    tile = [
        (256, 3, [9]),
        (257, 3, [9]),
        (258, 3, [8]),
        (259, 3, [8]),
        (262, 3, [1]),
        (277, 3, [1]),
        (322, 4, [40_000]),
        (323, 4, [40_000]),
        (324, 4, [8]),
        (325, 4, [9]),
    ]
    return {
        "a JPEG gone through 2,000 times": scans[:-2] + scan * 2000 + b"\xff\xd9",
        "a JPEG of 300,000 comments": jpeg[:2] + segment(0xFE, b"a") * 300_000 + jpeg[2:],
        "a GIF of 300,000 comments": gif[:13]
        + gif[13 : 13 + (3 << (gif[10] & 7) + 1)]
        + b"!\xfe\1a\0" * 300_000
        + gif[13 + (3 << (gif[10] & 7) + 1) :],
        "a JPEG of much EXIF": jpeg[:2]
        + segment(0xE1, b"Exif\0\0" + tags[:60_000])
        + segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 200
        + jpeg[2:],
        "a TIFF of tags of 2 MB": tags + bytes(2_000_000),
        "a TIFF of a million strips": strips(1_000_000, (1, 1_000_000), 1),
        "a TIFF drawn 10,000 times over": strips(20_000, (2000, 1000), 999),
        "a TIFF in a tile of gigabytes": b"II*\0\x11\0\0\0"
        + zlib.compress(bytes(9))[:9].ljust(9, b"\0")
        + ifd(tile, "<", 17),
        "a PNG of 300,000 pieces": png(1, 8, 0, b"\x37", *[(b"abCd", b"")] * 3)[:-12] + chunk(b"IDAT", b"") * 300_000,
        "a slow picture": b"P6 2200 2200 65535\n" + bytes(2200 * 2200 * 6),
    }


@pytest.fixture(scope="module")
def hostile_files():
    return hostile()


@pytest.mark.parametrize("number", range(10))
def test_hostile_files_cost_little(hostile_files, number):
    name, data = list(hostile_files.items())[number]
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        opened(data)
    except InputError:
        pass
    assert time.process_time() - start < 4, name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, name  # kB


def test_the_list_of_hostile_files_is_tried_whole(hostile_files):
    assert len(hostile_files) == 10


def seeds() -> dict[str, bytes]:
    base = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)).resize(
        (45, 30), Image.Resampling.BICUBIC
    )
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = 6, "Maker"
    files = {
        f"{m} {k}": saved(base.convert(m), k, exif=tags) for m in ("RGB", "L") for k in ("JPEG", "PNG", "WEBP", "TIFF")
    }
    files |= {
        f"{m} {k}": saved(base.convert(m), k)
        for m, k in (("P", "GIF"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("P", "TIFF"), ("F", "TIFF"), ("LAB", "TIFF"))
    }
    files |= {f"TIFF {c}": saved(base, "TIFF", compression=c) for c in ("tiff_lzw", "jpeg", "packbits", "tiff_deflate")}
    files |= {k: saved(base, k) for k in ("BMP", "JPEG2000", "ICO", "QOI", "TGA", "SGI", "PPM")}
    return files | {
        "planes": tiff(bytes(45 * 30 * 6), (45, 30), 16, 2, samples=3, planes=2),
        "progressive": saved(base, "JPEG", progressive=True, icc_profile=ADOBE),
    }


@pytest.mark.parametrize("name", list(seeds()))
def test_damaged_files_open_or_are_refused(name):
    data, chance = seeds()[name], random.Random(name)
    whole = np.asarray(opened(data))
    for _ in range(12):
        cut = chance.randrange(len(data))
        try:
            assert np.array_equal(np.asarray(opened(data[:cut])), whole)  # nothing of the picture was missing
        except InputError as error:
            assert str(error).count(".") == 1 and len(str(error)) < 120
    for _ in range(25):
        broken = bytearray(data)
        for _ in range(chance.randrange(1, 5)):
            broken[chance.randrange(len(data) if chance.random() < 0.5 else min(len(data), 150))] = chance.choice(
                (0, 1, 127, 128, 255, chance.randrange(256))
            )
        try:
            assert opened(bytes(broken)).mode == "RGB"
        except InputError as error:
            assert str(error).count(".") == 1 and len(str(error)) < 120


def test_odd_files_leave_standard_error_empty(tmp_path):
    """Warnings of Python, of Pillow's log, and what libtiff writes by itself."""
    lzw = bytearray(saved(Image.effect_noise((90, 60), 50), "TIFF", compression="tiff_lzw"))
    lzw[200:900:7] = bytes(len(lzw[200:900:7]))
    many = tiff(b"\0", (1, 1), 8, 1, more=[(259, 3, [1, 2, 3])])
    (tmp_path / "a.tif").write_bytes(lzw)
    (tmp_path / "b.jpg").write_bytes(with_exif(exif(6)[:-6], "JPEG"))
    (tmp_path / "c.tif").write_bytes(many)
    (tmp_path / "d.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 9999, 9999, 8, 0, 0, 0, 0)) + chunk(b"IDAT", b"")
    )
    (tmp_path / "seen").mkdir()
    log = tmp_path / "seen" / "log"
    opening = start("tests.opening_job", [str(path) for path in sorted(tmp_path.glob("*.*"))], log)
    assert ended(opening) == 0 and log.read_text() == "4 looked at\n"


def test_shrunk_when_opened(tmp_path):
    photograph = Image.effect_noise((1200, 800), 50).convert("RGB")
    for kind in ("JPEG", "PNG", "TIFF"):
        data = saved(photograph, kind)
        assert opened(data, largest=300).size == (300, 200)
        assert opened(data, largest=5000).size == opened(data).size == (1200, 800)
    for size in ((3000, 1), (1, 3000)):
        assert max(open_image(Image.new("RGB", size), largest=100).size) == 100
    assert photograph.size == (1200, 800) and open_image(photograph, largest=10).size == (10, 7)  # what was given stays


def test_strips_agree_with_the_whole(monkeypatch):
    values = np.random.default_rng(0).integers(0, 65536, (37, 23), dtype=np.uint16)
    whole = np.asarray(open_image(Image.fromarray(values)))
    monkeypatch.setattr(pictures, "STRIP", 50)
    assert np.array_equal(np.asarray(open_image(Image.fromarray(values))), whole)
    assert np.array_equal(whole[..., 0], (values / 65535 * 255).astype(np.uint8))


def test_icons_and_other_files_under_a_wrong_name(tmp_path):
    icon = saved(Image.new("RGB", (64, 64), "red"), "ICO", sizes=[(16, 16), (64, 64), (32, 32)])
    (tmp_path / "picture.jpg").write_bytes(icon)
    assert open_image(tmp_path / "picture.jpg").size == (64, 64)
    layers = struct.pack(">HIIHH", 3, 1, 1, 8, 3) + bytes(8)
    psd = b"8BPS\0\1" + bytes(6) + layers + bytes(4) + b"\0\0" + bytes(RED)
    assert row(psd) == [RED] and open_image(Image.open(io.BytesIO(psd))).getpixel((0, 0)) == RED


@pytest.mark.parametrize("kind", ["ICO", "ICNS"])
@pytest.mark.parametrize("inside", ["PNG", "JPEG2000"])
def test_an_icon_that_holds_a_huge_picture_is_refused_before_it_is_decoded(kind, inside, monkeypatch):
    huge = {  # their heads alone: nothing of them is read
        "PNG": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII5B", 13, b"IHDR", 30_000, 30_000, 1, 0, 0, 0, 0),
        "JPEG2000": b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I4sIIH4B", 22, b"ihdr", 30_000, 30_000, 1, 7, 7, 0, 0),
    }[inside] + bytes(100)
    file = {
        "ICO": struct.pack("<3H4B2H2I", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(huge), 22) + huge,
        "ICNS": b"icns" + struct.pack(">I4sI", 16 + len(huge), b"ic08", 8 + len(huge)) + huge,
    }[kind]
    loaded = []
    monkeypatch.setattr(Image.Image, "load", lambda *_: loaded.append("decoded"))
    with pytest.raises(InputError, match="50 megapixels"):
        open_image(io.BytesIO(file))
    assert loaded == []


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("packed", [False, True])
def test_white_is_zero_whatever_the_order_of_bytes(order, packed):
    numbers = struct.pack(order + "3H", 0, 0x4000, 0xFFFF)
    assert [p[0] for p in row(tiff(numbers, (3, 1), 16, 0, order, packed=packed))] == [255, 191, 0]
    with_alpha = tiff(
        bytes([0, 255, 64, 255, 255, 255]), (3, 1), 8, 0, order, samples=2, packed=packed, more=[(338, 3, [2])]
    )
    assert [p[0] for p in row(with_alpha)] == [255, 191, 0]


def test_a_fourth_value_of_zeros_hides_no_picture():
    red = bytes([0, 0, 255, 0])  # blue, green, red, and what would be alpha
    header = struct.pack(
        "<IiiHHIIiiII4I", 124, 1, 1, 1, 32, 3, 4, 0, 0, 0, 0, 0xFF0000, 0xFF00, 0xFF, 0xFF000000
    ).ljust(124, b"\0")
    assert row(b"BM" + struct.pack("<IHHI", 142, 0, 0, 138) + header + red) == [RED]
    assert row(saved(Image.new("RGBA", (1, 1), (255, 0, 0, 0)), "TGA")) == [RED]
    assert row(saved(Image.new("RGBA", (2, 1), (255, 0, 0, 128)), "TGA")) == [(255, 127, 127)] * 2
    assert row(saved(Image.new("RGBA", (1, 1), (255, 0, 0, 0)), "PNG")) == [WHITE]


def psd(mode: int, channels: list[bytes], depth: int = 8, layers: int = 0) -> bytes:
    """Eight by one."""
    section = struct.pack(">IIhH", 8, 4, layers, 0) if layers else bytes(4)
    return (
        b"8BPS"
        + struct.pack(">H6sHIIHH", 1, bytes(6), len(channels), 1, 8, depth, mode)
        + bytes(8)
        + section
        + bytes(2)
        + b"".join(channels)
    )


def test_a_saved_selection_of_a_psd_hides_nothing():
    red = [b"\xff" * 8, bytes(8), bytes(8)]
    assert set(row(psd(3, [*red, bytes(8)]))) == {RED}
    assert set(row(psd(3, [*red, bytes(8)], layers=1))) == {RED}
    assert set(row(psd(3, [*red, bytes(8)], layers=-1))) == {WHITE}


def test_one_is_black_in_a_psd_of_one_bit():
    assert row(psd(0, [b"\xf0"], depth=1)) == [BLACK] * 4 + [WHITE] * 4


def test_what_a_gifs_first_frame_leaves_empty_is_white():
    grey = Image.new("P", (2, 1), 1)
    grey.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
    file = bytearray(saved(grey, "GIF"))
    at = file.index(b"\x2c\0\0\0\0\2\0\1\0")
    struct.pack_into("<2H", file, 6, 4, 1)
    struct.pack_into("<2H", file, at + 1, 1, 0)
    assert row(bytes(file)) == [WHITE, RED, RED, WHITE]


def test_what_lies_behind_a_jpeg_is_not_counted_as_its_scans():
    jpeg = saved(Image.new("RGB", (4000, 3000), "red"), "JPEG")
    assert opened(jpeg + b"\xff\xda" * 1000, largest=64).size == (64, 48)  # a telephone's film
    header, pixels = jpeg[: jpeg.index(b"\xff\xda")], jpeg[jpeg.index(b"\xff\xda") : -2]
    with pytest.raises(InputError):
        opened(header + pixels * 200 + b"\xff\xd9")
    with pytest.raises(InputError):
        opened(header + (pixels + b"\xff\x01\xff\xff") * 200 + b"\xff\xd9")
