"""PNG, JPEG, TIFF and GIF files without what is not the picture: texts, thumbnails, maker's notes, other pages,
pictures and frames.

Sound pictures are refused, and bombs go off, in what surrounds the pixels: a megabyte of text that unpacks to a
gigabyte, a tag that cannot be read, a million comments. So it is taken out before a decoder sees the file; the little
of it that changes how the picture looks is kept.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_PROFILE = 8_000_000  # bytes of a colour profile; profiles of printers have up to 3 MB
MAX_TEXT = 1_000_000  # bytes read of a text that may say how the picture is turned
MAX_STEPS = 200_000  # blocks before the pixels, entries of a tag
_NO_DIGITS = bytes(set(range(256)) - set(b"0123456789abcdefABCDEF"))
_KNOWN_TEXTS = (b"XML:com.adobe.xmp", b"Raw profile type exif")


@dataclass(frozen=True)
class Plain:
    """A file's bytes, less what is not its picture. info: what was kept of the rest, named as in
    ``PIL.Image.Image.info`` ("exif", "xmp", "icc_profile", "transparency", "gamma", "orientation"), and "white is
    zero", of a TIFF; "frame", the only part of a GIF that has pixels; "opaque", of a PSD. scans: how often a JPEG goes
    through its pixels."""

    data: bytes
    info: dict[str, Any] = field(default_factory=dict)
    scans: int = 1


def plain(data: bytes) -> Plain:
    """Any file -> the same picture; files of other kinds stay as they are. Raises ValueError for what no sound file
    holds."""
    for start, function in _KINDS.items():
        if data.startswith(start):
            try:
                return function(data)
            except (struct.error, IndexError) as error:
                raise ValueError("The file ends too soon.") from error
    return Plain(data)


def orientation_of(exif: bytes) -> int | None:
    """The turn (1 to 8) that an EXIF block asks for, whatever else is wrong with the block; None where it asks for
    none."""
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        entries = list(_entries(exif))
    except (struct.error, ValueError):
        return None
    return next(
        (turn for tag, kind, value, order in entries if tag == 274 and (turn := _turn(kind, value, order))), None
    )


def _turn(kind: int, value: bytes, order: str) -> int | None:
    """Value of the tag of orientation, a short by the book, seen as a byte or a long too."""
    form = {1: "B", 3: "H", 4: "I"}.get(kind)
    turn = struct.unpack_from(order + form, value)[0] if form else 0
    return turn if 1 <= turn <= 8 else None


def _entries(data: bytes) -> Iterator[tuple[int, int, bytes, str]]:
    """(tag, type, value field, byte order) of a TIFF's first directory, as far as it goes. Raises ValueError where
    there is none."""
    for _, tag, kind, _, value, order in _directory(data):
        yield tag, kind, value, order


def _directory(data: bytes) -> Iterator[tuple[int, int, int, int, bytes, str]]:
    """(position, tag, type, count, value field, byte order) of the entries of a TIFF's first directory."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or data[:4] == b"MM\0+":  # which Pillow takes for an ordinary TIFF
        raise ValueError("No TIFF.")
    big = data[2:3] == b"+"
    (start,) = struct.unpack_from(order + "Q", data, 8) if big else struct.unpack_from(order + "I", data, 4)
    (number,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    if number > 65535:
        raise ValueError("More tags than there are.")
    form, first = struct.Struct(order + ("HHQ8s" if big else "HHI4s")), start + (8 if big else 2)
    for position in range(first, min(first + number * form.size, len(data) - form.size + 1), form.size):
        yield position, *form.unpack_from(data, position), order


# Tags that say how the pixels lie and what their numbers mean.
_PIXEL_TAGS = {
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    277,
    278,
    279,
    284,
    292,
    293,
    317,
    320,
    322,
    323,
    324,
    325,
    332,
    338,
    339,
    347,
    512,
    513,
    514,
    515,
    517,
    519,
    520,
    521,
    529,
    530,
    531,
    532,
}


def _plain_tiff(data: bytes) -> Plain:
    """First page only; the other tags get a type that no reader knows. The turn is handed on, not left to the decoder;
    so is whether white is zero, which decoders know of some kinds of numbers only."""
    info: dict[str, Any] = {}
    seen: set[int] = set()
    out, end = bytearray(data), 0
    big = data[2:3] == b"+"
    for position, tag, kind, count, value, order in _directory(data):
        end = position + (20 if big else 12)
        if tag in _PIXEL_TAGS and tag not in seen:
            seen.add(tag)
            if count > MAX_STEPS and tag != 347:
                raise ValueError("More pieces than a picture has.")
            if tag == 262 and kind == 3 and value[:2] == b"\0\0":
                out[position + (12 if big else 8) : position + (14 if big else 10)] = struct.pack(order + "H", 1)
                info["white is zero"] = True
            continue
        if tag == 274:
            info.setdefault("orientation", _turn(kind, value, order))
        elif tag == 34675 and count <= MAX_PROFILE:
            (at,) = struct.unpack(order + ("Q" if big else "I"), value)
            info.setdefault("icc_profile", data[at : at + count])
        elif tag == 700 and count <= MAX_TEXT:
            (at,) = struct.unpack(order + ("Q" if big else "I"), value)
            info.setdefault("xmp", data[at : at + count])
        out[position + 2 : position + 4] = b"\xff\xff"
    if end and len(out) >= end + (8 if big else 4):
        out[end : end + (8 if big else 4)] = bytes(8 if big else 4)  # no next page
    return Plain(bytes(out), info)


_JPEG_KEPT = {b"Exif\0\0": "exif", b"http://ns.adobe.com/xap/1.0/\0": "xmp"}


def _plain_jpeg(data: bytes) -> Plain:
    """Segments before the first scan: tables and sizes, the profile, what JFIF and Adobe say of the colours."""
    info: dict[str, Any] = {}
    out, at = [b"\xff\xd8"], 2
    for _ in range(MAX_STEPS):
        at = data.find(b"\xff", at)
        if at < 0:
            break
        marker = data[at + 1]
        if marker == 0xDA:
            return Plain(b"".join([*out, data[at:]]), info, scans=_scans(data, at))
        if marker == 0xFF or marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD9:  # filling, or without a length
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        segment = data[at : at + 2 + length]
        name = next((n for n in _JPEG_KEPT if segment.startswith(n, 4)), None)
        if name and marker == 0xE1:
            info.setdefault(_JPEG_KEPT[name], segment[4 + len(name) :])
        elif (
            marker in (0xE0, 0xEE)
            or not (0xE0 <= marker <= 0xEF or marker == 0xFE)
            or segment.startswith(b"ICC_PROFILE\0", 4)
        ):
            out.append(segment)
        at += 2 + length
    raise ValueError("A JPEG without pixels.")


# What has a length, or ends the picture: not a byte of the pixels that happens to be ff, nor a restart.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")


def _scans(data: bytes, at: int) -> int:
    """How many scans a JPEG has from ``at`` on, where the first begins, to its end: telephones put films behind it, in
    which any bytes stand."""
    count = 0
    while (found := _MARKER.search(data, at)) and found[0] != b"\xff\xd9":
        count += found[0] == b"\xff\xda"
        at = found.end() + (int.from_bytes(data[found.end() : found.end() + 2]) if len(data) > found.end() + 1 else 0)
    return count


def _plain_psd(data: bytes) -> Plain:
    """Whether the channel after the colours tells what is transparent: only where the number of layers is negative;
    else somebody saved a selection in it."""
    at = 26
    for _ in range(2):  # palette, resources
        at += 4 + struct.unpack_from(">I", data, at)[0]
    layers = struct.unpack_from(">h", data, at + 8)[0] if struct.unpack_from(">I", data, at)[0] >= 6 else 0
    return Plain(data, {"opaque": True} if layers >= 0 else {})


def _plain_gif(data: bytes) -> Plain:
    """Up to the first frame without comments and the like."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
    out, steps = [data[:at]], 0
    while data[at] == 0x21:
        start, at = at, at + 2
        while data[at]:
            at += data[at] + 1
            steps += 1
            if steps > MAX_STEPS:
                raise ValueError("More blocks than a picture has.")
        at += 1
        if data[start + 1] == 0xF9:  # what is transparent
            out.append(data[start:at])
    wide, high = struct.unpack_from("<2H", data, 6)
    left, top, width, height = struct.unpack_from("<4H", data, at + 1)
    frame = (left, top, left + width, top + height)
    inside = frame != (0, 0, wide, high) and frame[2] <= wide and frame[3] <= high
    return Plain(b"".join([*out, data[at:]]), {"frame": frame} if inside else {})


def _plain_png(data: bytes) -> Plain:
    """Header, palette, transparency and pixels, the latter in one piece; of an animation the picture that stands for
    it."""
    rest: dict[bytes, bytes] = {}
    header, palette, pixels, at = b"", b"", [], 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        if name == b"IHDR":
            header = header or body
        elif name == b"PLTE":
            palette = palette or body
        elif name == b"IDAT":
            pixels.append(body)
        elif name in (b"tRNS", b"iCCP", b"eXIf", b"gAMA", b"sRGB"):
            rest.setdefault(name, body)
        elif name in (b"tEXt", b"zTXt", b"iTXt") and body.split(b"\0", 1)[0] in _KNOWN_TEXTS:
            rest.setdefault(body.split(b"\0", 1)[0], name + body)
        elif name == b"IEND":
            break
        elif not re.fullmatch(rb"[A-Za-z]{4}", name):
            break  # nonsense from here on; whether enough pixels were read, the decoder says
        at += 12 + length
    if len(header) < 13:
        raise ValueError("A PNG without a header.")
    depth, colours = header[8], header[9]
    out = [data[:8], _chunk(b"IHDR", header), _chunk(b"PLTE", palette) if palette else b""]
    if colours == 3 and b"tRNS" in rest:
        out.append(_chunk(b"tRNS", rest[b"tRNS"]))
    return Plain(
        b"".join([*out, _chunk(b"IDAT", b"".join(pixels)), _chunk(b"IEND", b"")]), _png_info(rest, depth, colours)
    )


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


def _png_info(rest: dict[bytes, bytes], depth: int, colours: int) -> dict[str, Any]:
    """What the chunks beside the pixels say of the picture."""
    info: dict[str, Any] = {}
    if b"eXIf" in rest:
        info["exif"] = rest[b"eXIf"]
    elif exif := _text(rest.get(_KNOWN_TEXTS[1], b"")):  # ImageMagick's: a name, a length, hexadecimal digits
        digits = exif.split(b"\n", 3)[-1].translate(None, _NO_DIGITS)
        info["exif"] = bytes.fromhex(digits[: len(digits) & ~1].decode())
    if xmp := _text(rest.get(_KNOWN_TEXTS[0], b"")):
        info["xmp"] = xmp
    if b"iCCP" in rest:
        profile = _unpacked(rest[b"iCCP"].partition(b"\0")[2][1:], MAX_PROFILE + 1)
        info |= {"icc_profile": profile} if 0 < len(profile) <= MAX_PROFILE else {}
    elif len(rest.get(b"gAMA", b"")) == 4 and b"sRGB" not in rest:
        info["gamma"] = int.from_bytes(rest[b"gAMA"]) / 100_000
    if colours in (0, 2) and len(rest.get(b"tRNS", b"")) >= 2 + 2 * colours:
        values = struct.unpack(">H" if colours == 0 else ">3H", rest[b"tRNS"][: 2 + 2 * colours])
        values = tuple(v & 2**depth - 1 for v in values)
        if depth < 8:
            values = tuple(v * 255 // (2**depth - 1) for v in values)  # as the decoder spreads them
        info["transparency"] = values[0] if colours == 0 else tuple(v >> depth - 8 for v in values)
    return info


def _text(chunk: bytes) -> bytes:
    """A chunk's name and body -> its text, the first ``MAX_TEXT`` bytes of it."""
    name, body = chunk[:4], chunk[4:].partition(b"\0")[2]
    if name == b"tEXt":
        return body[:MAX_TEXT]
    if name == b"zTXt":
        return _unpacked(body[1:], MAX_TEXT)
    packed, body = body[:1] == b"\1", (body[2:].split(b"\0", 2) + [b""] * 3)[2]
    return _unpacked(body, MAX_TEXT) if packed else body[:MAX_TEXT]


def _unpacked(data: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, most)
    except zlib.error:
        return b""


_KINDS: dict[bytes, Callable[[bytes], Plain]] = {
    b"\x89PNG\r\n\x1a\n": _plain_png,
    b"\xff\xd8\xff": _plain_jpeg,
    b"GIF8": _plain_gif,
    b"II": _plain_tiff,
    b"MM": _plain_tiff,
    b"8BPS": _plain_psd,
}
