"""Looks at every picture of a file before anything is trained on it: which cannot be used, and which show the same.

A picture may stand under several addresses: http and https, two sizes of a museum's thumbnail, two museums. It is one
picture for a split. Two are taken for one when their addresses differ in nothing but that, or when they look alike
(``alike``): most neighbouring places are brighter or darker than each other in the same way, and the colours are near.
Among 4,986 photographs and paintings that found 178 copies (the same picture compressed anew, or in another size) and
else only some photographs of one person before one wall. A copy that was cropped, turned or recoloured is not found.
"""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import numpy as np
from tqdm import tqdm

from musti_model.errors import InputError
from musti_model.processing import open_image
from musti_model.records import MustiPair

from .fetch import FetchError, clean_url
from .ties import tied

SIDE = 16  # places a side at which pictures are compared
STEP = 0.1  # of a picture's contrast, by which a place must be brighter than its neighbour to count as brighter
TURNED = 0.18  # share of neighbours that may be otherwise in a copy; of unlike pictures it is about .5
APART = 0.35  # of the contrast, how far a copy's colours may lie from the other's
_ROUNDING = 1e-3  # grey levels: what arithmetic makes of 0
_BLOCK = 1000  # pictures compared at a time with all others
_SIZES = {"w", "h", "width", "height", "maxwidth", "maxheight", "size", "quality"}  # parameters that choose a size
# Ways of museums to write the size into a path, and what is left of it.
_THUMBNAILS = (
    (r"/full/[^/]+/([^/]+)/\w+\.\w+$", r"/full/\1"),  # IIIF: region/size/rotation/quality.format
    (r"/thumb/(\w/\w\w/[^/]+)/[^/]+$", r"/\1"),  # Wikimedia
    (r"/\d{2,5}x\d{0,5}(?=/)", ""),  # .../650x650/...
    (r"-+thumb-[a-z]{1,3}(?=\.\w+$)", ""),  # ...--thumb-xl.jpg
)


@dataclass(frozen=True)
class Findings:
    """pairs: all that were given, each with ``picture`` set; unusable: {image: what is wrong}; copies: images that show
    the same, two or more in each list."""

    pairs: list[MustiPair]
    unusable: dict[str, str]
    copies: list[list[str]]

    @property
    def notices(self) -> list[str]:
        """Sentences on pictures that cannot be used, and on copies."""
        said = []
        if self.unusable:
            hit = sum(p.image in self.unusable for p in self.pairs)
            said.append(
                f"{len(self.unusable)} pictures, of {hit} pairs, cannot be used; training leaves them out until "
                f"training.prepare has brought them again: {self.reasons()}."
            )
        if self.copies:
            shown = few([" = ".join(same[:3]) + (" = ..." if len(same) > 3 else "") for same in self.copies])
            what = f"{sum(map(len, self.copies))} files or addresses show only {len(self.copies)} different pictures"
            said.append(f"{what} ({shown}); a split takes copies for one picture.")
        return said

    def reasons(self, most: int = 5) -> str:
        """The first pictures that cannot be used, each with the reason, and how many more there are."""
        return few([f"{image} ({words.split(';')[0].rstrip('.')})" for image, words in self.unusable.items()], most)


def few(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def recognise(pairs: Sequence[MustiPair], quiet: bool = False) -> Findings:
    """Decodes each local picture of the pairs, once, and finds out which are one; of a picture on the web only the
    address is looked at.

    ``picture`` of a pair becomes the image of the first pair that shows the same. quiet: no progress bar.
    """
    first = {p.image: p for p in reversed(pairs)}
    images = list(dict.fromkeys(p.image for p in pairs))
    local = [image for image in images if "://" not in image]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        looks = pool.map(partial(_look, pairs_of=first), local)
        seen = dict(
            zip(
                local,
                tqdm(looks, total=len(local), desc="looking at", unit="picture", leave=False, disable=quiet or None),
            )
        )
    good = [image for image in local if not isinstance(seen[image], str)]
    keys: dict[str, list[tuple[object, ...]]] = {image: [("image", image)] for image in images}
    for pair in pairs:
        keys[pair.image].append(("address", address_key(_address(pair))))
    for a, b in alike(np.array([seen[image] for image in good]).reshape(len(good), SIDE, SIDE, 3)):
        for image in (good[a], good[b]):
            keys[image].append(("look", a, b))
    groups: dict[int, list[str]] = {}
    for image, number in zip(images, tied(list(keys.values()))):
        groups.setdefault(number, []).append(image)
    name = {image: same[0] for same in groups.values() for image in same}
    unusable = {image: str(seen[image]) for image in local if isinstance(seen[image], str)}
    return Findings(
        [replace(p, picture=name[p.image]) for p in pairs],
        unusable,
        [same for same in groups.values() if len(same) > 1],
    )


def _look(image: str, pairs_of: dict[str, MustiPair]) -> np.ndarray | str:
    """What a picture looks like, or what is wrong with it."""
    try:
        return colours(pairs_of[image].path)
    except InputError as error:
        return str(error)


def colours(path: Path) -> np.ndarray:
    """A picture file -> the mean colour of each place, float64 [SIDE, SIDE, 3] in grey levels of 0 to 255. Raises:
    InputError."""
    image = open_image(path)
    image = image.reduce(max(1, min(image.size) // 512))  # exact enough, and takes little memory
    pixels = np.asarray(image, dtype=np.float32)
    down, across = (_shares(size) for size in pixels.shape[:2])
    return np.einsum("yi,ijc,xj->yxc", down, pixels, across, optimize=True).astype(np.float64)


def _shares(size: int) -> np.ndarray:
    """The share of each of ``size`` pixels in the mean of each place, float32 [SIDE, size]: a pixel on a border counts
    in part on both sides."""
    borders, pixel = np.arange(SIDE + 1) * size / SIDE, np.arange(size)
    inside = np.minimum(borders[1:, None], pixel + 1) - np.maximum(borders[:-1, None], pixel)
    return (np.clip(inside, 0, None) * SIDE / size).astype(np.float32)


def alike(looks: np.ndarray) -> list[tuple[int, int]]:
    """Which of some pictures' ``colours``, [N, SIDE, SIDE, 3], show the same: (i, j) with i < j.

    Of neighbours, beside and below each other, at most TURNED may be otherwise (one is brighter than the next in one
    picture and not in the other), and the colours, in squares of four places, may differ by at most APART of the weaker
    contrast (both root mean squares).
    """
    if not len(looks):
        return []
    n = len(looks)
    grey, coarse = looks.mean(-1), looks.reshape(n, SIDE // 2, 2, SIDE // 2, 2, 3).mean((2, 4)).reshape(n, -1, 3)
    contrast = np.sqrt(coarse.var(1).mean(1))
    step = (STEP * contrast + _ROUNDING)[:, None, None]
    brighter = [
        (grey[:, :, 1:] - grey[:, :, :-1] > step).reshape(n, -1),
        (grey[:, 1:] - grey[:, :-1] > step).reshape(n, -1),
    ]
    signs, flat = np.where(np.concatenate(brighter, axis=1), 1.0, -1.0).astype(np.float32), coarse.reshape(n, -1)
    squares, found = (flat**2).sum(1), []
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        turned = (1 - signs[rows] @ signs.T / signs.shape[1]) / 2
        apart = np.sqrt(np.maximum(squares[rows, None] + squares[None] - 2 * flat[rows] @ flat.T, 0) / flat.shape[1])
        near = apart <= np.maximum(_ROUNDING, APART * np.minimum(contrast[rows, None], contrast[None]))
        found += [(start + int(i), int(j)) for i, j in np.argwhere(near & (turned <= TURNED)) if start + i < j]
    return found


def _address(pair: MustiPair) -> str:
    url = pair.record.get("image_url") if isinstance(pair.record, dict) else None
    return url if isinstance(url, str) and url.strip() else pair.image


def address_key(address: str) -> str:
    """The same for the addresses of one picture: without http or https, www, encoding, and size. A local path is left
    as it is."""
    try:
        parts = urlsplit(clean_url(address))
    except FetchError:
        return address
    path = unquote(parts.path)
    for form, rest in _THUMBNAILS:
        path = re.sub(form, rest, path)
    query = urlencode([(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if k.lower() not in _SIZES])
    host = parts.netloc.removeprefix("www.").removesuffix(":80" if parts.scheme == "http" else ":443")
    return f"//{host}{path}?{query}"
