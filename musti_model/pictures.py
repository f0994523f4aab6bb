"""A picture, whatever file it lies in -> what people see: RGB, upright, in sRGB; or a clear InputError. In bounded time
and memory."""

import ctypes
import io
import logging
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageChops, ImageCms

from .containers import MAX_PROFILE, orientation_of, plain
from .errors import InputError

MAX_PIXELS = 50_000_000
MAX_BYTES = 30_000_000
SLOW_PIXELS = 4_000_000  # where Pillow decodes in Python, a microsecond or so a pixel
MAX_WORK = 1_500_000_000  # pixels times how often a file goes through them
STRIP = 4_000_000  # pixels converted at a time
# What Pillow decodes by itself. Not: what runs other programs (EPS) or only knows a header (WMF, HDF5), and formats of
# video, science and icons of old that nobody has pictures in.
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "TIFF",
    "BMP",
    "AVIF",
    "JPEG2000",
    "PPM",
    "ICO",
    "ICNS",
    "DIB",
    "PSD",
    "QOI",
    "DDS",
    "SGI",
    "SUN",
    "TGA",
)
# Width and height, or height and width, of a PNG or JPEG 2000 file that lies in an icon.
_INSIDE = re.compile(rb"\x89PNG\r\n\x1a\n.{8}(.{4})(.{4})|ihdr(.{4})(.{4})|\xff\x4f\xff\x51.{4}(.{4})(.{4})", re.DOTALL)
_UNREAD = {  # by how they begin
    rb"%PDF": "PDF",
    rb"%!PS|\xc5\xd0\xd3\xc6": "EPS",
    rb"\s*<[^\0]{0,1500}<svg|\s*<svg": "SVG",
    rb"\s*<(!doctype )?html": "HTML",
    rb"....ftyp(hei|hev|mif1|msf1)": "HEIC",
    rb"....ftypcrx|FUJIFILMCCD-RAW": "RAW",
    rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI": "video",
    rb"\xff\x0a|....JXL ": "JPEG XL",
    rb"AT&TFORM": "DjVu",
    rb"PK\x03\x04": "ZIP",
    rb"\xd7\xcd\xc6\x9a|.{40} EMF": "WMF",
}


def open_image(source: str | Path | BinaryIO | Image.Image, largest: int | None = None) -> Image.Image:
    """Opens a picture as people see it: RGB, upright, in sRGB, without metadata.

    JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, JPEG 2000 and a dozen more, whatever the file's name ends in. EXIF rotation
    applied; colour profile converted; alpha over white; palette, CMYK, LAB, 16-bit and grey converted, also where white
    is zero; 32-bit and float by what their values suggest; of an animation, or of several pages, the first picture.

    Args:
        source: a file's name, an open binary file that can be rewound (as io.BytesIO), or a PIL image, which stays as
            it is.
        largest: px that the longest side has at most, larger pictures are shrunk; None: as it is.

    Raises: InputError for a missing, empty, corrupt or truncated file, one that is no picture we read, or one over 50
        megapixels or 30 MB.
    """
    _quiet_warnings()
    if not isinstance(source, Image.Image):
        return _from_bytes(_bytes_of(source), largest)
    try:
        if source.format != "PSD" and source.tell():  # a PSD's layers are no frames
            source.seek(0)
        return _as_seen(source, largest)
    except InputError:
        raise
    except Exception as error:
        raise _no_picture() from error


def _bytes_of(source: str | Path | BinaryIO) -> bytes:
    if hasattr(source, "read") and hasattr(source, "seek"):
        size = source.seek(0, io.SEEK_END)
        source.seek(0)
        return _checked(size, source.read)
    if not isinstance(source, (str, Path)):
        raise InputError("A picture is a file name or a PIL image, not {kind}.", kind=type(source).__name__)
    path = Path(source)
    try:
        size = path.stat().st_size if path.is_file() else -1
    except (OSError, ValueError):  # a name too long for a file, or with a zero in it
        size = -1
    if size < 0:
        raise InputError("There is no picture file {name!r}; check the name.", name=path.name[:60])
    return _checked(size, path.read_bytes)


def _checked(size: int, read: Callable[[], bytes]) -> bytes:
    if size == 0:
        raise InputError("The picture file is empty; choose another one.")
    if size > MAX_BYTES:
        raise InputError(
            "The picture file has {size:.0f} MB; the limit is {limit:.0f} MB.", size=size / 1e6, limit=MAX_BYTES / 1e6
        )
    try:
        return read()
    except OSError as error:
        raise _no_picture() from error


def _from_bytes(data: bytes, largest: int | None) -> Image.Image:
    """All that Pillow may raise becomes an InputError."""
    try:
        file = plain(data)
        if file.data.startswith((b"\0\0\1\0", b"icns")):
            _check_inside(file.data)
        with Image.open(io.BytesIO(file.data), formats=FORMATS) as image:
            if file.info:
                image.info = {k: v for k, v in image.info.items() if k not in ("exif", "xmp")}
                image.info.update(file.info)
            return _as_seen(image, largest, file.scans)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large() from error
    except Exception as error:  # Pillow's decoders raise almost anything on broken files
        kind = next(
            (k for pattern, k in _UNREAD.items() if re.match(pattern, data[:2000], re.DOTALL | re.IGNORECASE)), None
        )
        if kind:
            raise InputError(
                "This {kind} file is not a picture we can read; save the picture as JPEG or PNG.", kind=kind
            ) from error
        raise _no_picture() from error


def _no_picture() -> InputError:
    return InputError("This file is not a picture we can read, or it is damaged; try a JPEG or PNG.")


def _damaged() -> InputError:
    return InputError("The picture is damaged or cut off; try another copy of it.")


def _too_large(limit: int = MAX_PIXELS) -> InputError:
    return InputError("The picture is too large; the limit is {limit} megapixels.", limit=limit // 1_000_000)


def _as_seen(image: Image.Image, largest: int | None, scans: int = 1) -> Image.Image:
    """An open picture -> a new one: RGB, upright, in sRGB."""
    _check_size(image)
    _check_work(image, scans)
    _set_straight(image)
    if largest:
        # a JPEG is decoded at a half, a quarter, an eighth of its size; others are not
        image.draft(None, (2 * largest, 2 * largest))
    try:
        image.load()
    except Exception as error:
        raise _damaged() from error
    _check_size(image)  # an icon in a PIL image may hold another size than it says
    turn, profile, gamma = _turn_of(image), image.info.get("icc_profile"), image.info.get("gamma")
    colours, alpha = _without_alpha(_repaired(image))
    seen = _in_srgb(colours, profile, gamma)
    if alpha is not None:
        white = Image.new("RGB", seen.size, "white")
        white.paste(seen, mask=alpha)
        seen = white
    if "frame" in image.info:  # a GIF's first frame may leave some of the picture empty
        white = Image.new("RGB", seen.size, "white")
        white.paste(seen.crop(image.info["frame"]), image.info["frame"][:2])
        seen = white
    if largest and max(seen.size) > largest:
        seen.thumbnail((largest, largest), Image.Resampling.BICUBIC)
    seen = seen.transpose(turn) if turn is not None else seen
    seen.info = {}  # a profile or a turn that was applied is not to be applied again
    return seen


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large()
    if min(image.size) < 1:
        raise InputError("The picture has no pixels; choose another one.")


def _check_inside(icon: bytes) -> None:
    """Before an icon is opened, which Pillow may decode at once: the size of the pictures in it, which may be another
    than it says. Raises InputError."""
    for found in _INSIDE.finditer(icon):
        if math.prod(int.from_bytes(side) for side in found.groups() if side is not None) > MAX_PIXELS:
            raise _too_large()


def _check_work(image: Image.Image, scans: int) -> None:
    """Before a file is decoded: how much work it asks for, which its size and its pixels do not tell."""
    pixels, tiles = image.width * image.height, getattr(image, "tile", ())
    if pixels > SLOW_PIXELS and any(tile[0] in Image.DECODERS for tile in tiles):
        raise _too_large(SLOW_PIXELS)
    tags = getattr(image, "tag_v2", {})
    block = math.prod(tags.get(tag, 0) for tag in (322, 323))
    covered = sum(
        (right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in tiles if right > left and bottom > top
    )
    if scans * pixels > MAX_WORK or covered > 8 * pixels or block > max(4 * pixels, 2**22):
        raise _damaged()


_NATIVE = {
    "I;16S": "I;16NS",
    "I;16BS": "I;16NS",
    "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
}


def _set_straight(image: Any) -> None:
    """Before a TIFF or a PSD is decoded: where Pillow takes its numbers for others without a word. image: a picture of
    Pillow's; what those of its plugins hold beside it is declared nowhere."""
    if image.format == "PSD" and image.mode == "1":  # one is black there
        image.tile = [(name, box, offset, "1;I") for name, box, offset, _ in image.tile]
    if image.format != "TIFF" or not image.tile:
        return
    planes, luminance = _tag(image, 284, 1) == 2, _tag(image, 262, 1) == 6 and image.mode == "RGB"
    if planes and image.mode in ("LA", "PA", "LAB"):
        raise _no_picture()
    # Pillow itself reads other bytes than these
    if not image.use_load_libtiff and (luminance or (planes and _tag(image, 258, 8) == 16)):
        form = (
            "RGBX"
            if luminance
            else ("RGBa" if image.mode == "RGBA" and _tag(image, 338, 0) == 1 else image.mode) + ";16N"
        )
        box = (0, 0, image.tag_v2[256], image.tag_v2[257])
        image.use_load_libtiff, image.tile = True, [("libtiff", box, 0, (form, "raw", False, image.tag_v2.offset))]
    elif image.use_load_libtiff:  # which gives numbers in the machine's own order, whatever the file's is
        name, box, offset, (form, *rest) = image.tile[0]
        image.tile = [(name, box, offset, (_NATIVE.get(form, form), *rest))]


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """How the picture has to be turned to stand upright: by its EXIF, else by its XMP. Pillow's own way stumbles over
    other tags, and rewrites them."""
    exif, xmp = image.info.get("exif"), image.info.get("xmp")
    if "orientation" in image.info:
        told: Any = image.info["orientation"]
        return _TURNS.get(told)
    if isinstance(exif, bytes) and (found := orientation_of(exif)):
        return _TURNS.get(found)
    if isinstance(xmp, bytes) and (match := re.search(rb'tiff:Orientation(?:="|>)([1-8])', xmp)):
        return _TURNS.get(int(match[1]))
    if exif or xmp:
        return None
    set_on_it: Any = image.getexif().get(274)  # of an open picture
    return _TURNS.get(set_on_it)


def _repaired(image: Image.Image) -> Image.Image:
    """Modes whose numbers Pillow's ``convert`` takes for others: more than 8 bits a value, a TIFF's palette of 8 bits a
    value, its grey where white is zero."""
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8_bit(image)
    if image.info.get("white is zero") and image.mode in ("1", "L", "LA"):
        grey = ImageChops.invert(image.convert("L"))
        return Image.merge("LA", (grey, image.getchannel("A"))) if image.mode == "LA" else grey
    tags = getattr(image, "tag_v2", {})
    if image.mode == "P" and 0 < max(tags.get(320, (0,))) < 256:  # a palette has 16 bits a value, by the book
        image = image.copy()
        image.putpalette(np.array(tags[320], dtype=np.uint8).reshape(3, -1).T.tobytes())
    return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Grey of 12, 16, 32 bits or float -> L, or LA where one value is transparent, in strips: the whole in float would
    take 8 bytes a pixel."""
    with np.errstate(all="ignore"):  # numbers that are none, or too large for any picture, end as black or white
        return _levels(image, *_ends(image))


def _levels(image: Image.Image, black: float, white: float) -> Image.Image:
    transparent = image.info.get("transparency")
    result = Image.new("L" if transparent is None else "LA", image.size)
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        values = _values(image.crop((0, top, image.width, min(top + rows, image.height))), image)
        level = (np.nan_to_num(values.astype(np.float64), nan=min(black, white)) - black) / (white - black) * 255
        part = Image.fromarray(np.clip(level, 0, 255).astype(np.uint8))
        if transparent is not None:
            part.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
        result.paste(part, (0, top))
    return result


def _tag(image: Image.Image, tag: int, default: int) -> int:
    """First value of a TIFF's tag."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return value[0] if isinstance(value, tuple) else value


def _values(part: Image.Image, image: Image.Image) -> np.ndarray:
    """Numbers of a part of a grey picture, without sign where the whole has none."""
    values = np.asarray(part)
    unsigned = image.mode == "I" and _tag(image, 258, 0) == 32 and _tag(image, 339, 1) == 1
    return values.view(np.uint32) if unsigned else values


def _ends(image: Image.Image) -> tuple[float, float]:
    """The numbers that are black and white: by the range of the format where it says one; of 32 bits and float by what
    the values suggest (0 to 1, 255 or 65535 where nearly all lie between; else, as with measurements below zero, from
    the least to the greatest)."""
    if image.mode.startswith("I;16"):
        ends = (0.0, 4095.0 if _tag(image, 258, 16) == 12 else 65535.0)
    elif image.format == "PPM" and image.mode == "I":
        ends = (0.0, 65535.0)
    else:
        sample = _values(image.resize([min(n, 1000) for n in image.size], Image.Resampling.NEAREST), image).astype(
            np.float64
        )
        sample = sample[np.isfinite(sample)]
        if not sample.size:
            raise _damaged()
        low, high = np.percentile(sample, (0.1, 99.9))
        scale = (
            (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 32767.0 if _tag(image, 339, 1) == 2 else 65535.0)
        )
        tops = [top for top in scale if high <= top]
        ends = (
            (0.0, tops[0]) if tops and low > -0.1 * max(high, 0.0) - 1e-9 else (float(low), float(max(high, low + 1)))
        )
    return ends[::-1] if image.info.get("white is zero") or _tag(image, 262, 1) == 0 else ends


# where programs leave a fourth value of zeros, and mean a picture that can be seen
_MAY_BE_UNSET = ("BMP", "DIB", "ICO", "TGA", "DDS", "SGI", "TIFF")


def _without_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """(picture in a mode without alpha, its alpha as L or None)."""
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    elif image.mode in ("P", "PA", "1", "L", "RGB") and (image.mode == "PA" or "transparency" in image.info):
        image = image.convert("RGBA")
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
        unset = image.info.get("opaque") or (image.format in _MAY_BE_UNSET and not alpha.getextrema()[1])
        return image.convert(image.mode[:-1]), None if unset else alpha
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _in_srgb(image: Image.Image, profile: bytes | None, gamma: float | None) -> Image.Image:
    """L, RGB, CMYK or LAB -> RGB as the profile means it, else as the gamma of a PNG means it; a profile that is
    broken, or made for other colours than these, is as none."""
    if isinstance(profile, bytes) and 0 < len(profile) <= MAX_PROFILE:
        try:
            return _by_profile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    elif isinstance(gamma, float) and 0.1 < gamma < 5 and abs(gamma - 1 / 2.2) > 0.03 and image.mode in ("L", "RGB"):
        curve = [round(255 * (value / 255) ** (1 / gamma / 2.2)) for value in range(256)]
        image = image.point(curve * len(image.mode))
    return image.convert("RGB")


def _by_profile(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    """Raises ValueError for a profile that is not of such pictures, or turns their white dark or their black bright."""
    space, of = profile.profile.xcolor_space.strip(), profile.profile.device_class.strip()
    if (
        space == "GRAY"
        and image.mode == "RGB"
        and ImageChops.difference(image.getchannel("R"), image.getchannel("B")).getbbox() is None
    ):
        image = image.getchannel("G")  # grey with alpha, of 16 bits, opens as RGB
    if space != {"L": "GRAY"}.get(image.mode, image.mode) or of not in ("scnr", "mntr", "prtr", "spac"):
        raise ValueError("A profile of something else.")
    change = ImageCms.ImageCmsTransform(
        profile, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")), image.mode, "RGB"
    )
    inks = image.mode == "CMYK"  # which may be pale, all of them together
    # R, G, B
    black, white = (
        change.apply(Image.new(image.mode, (1, 1), colour)).tobytes() for colour in ("black", 0 if inks else "white")
    )
    if min(white) < 128 or (max(black) > 128 and not inks):
        raise ValueError("A profile without a white, or without a black.")
    return change.apply(image)


def _quiet_warnings() -> None:
    """What Pillow says of odd files is not for those who gave them: a file is opened, or refused in one sentence of
    ours. The filter comes last, so that whoever asks for warnings gets them; set anew with each picture, as this module
    may have been imported where filters are put back."""
    warnings.filterwarnings("ignore", module=r"PIL\.", append=True)


def _quiet_logs() -> None:
    """The same of Pillow's log, where nobody listens to it, and of libtiff, which writes straight to standard error:
    its handlers are taken away, where its functions can be reached. Whether it failed, Pillow knows by what it
    returns."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    for name in ("TIFFSetWarningHandler", "TIFFSetErrorHandler"):
        try:
            setter = getattr(ctypes.CDLL(Image.core.__file__), name)
        except (AttributeError, OSError):  # linked in, without names
            continue
        setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
        setter(None)


_quiet_logs()
