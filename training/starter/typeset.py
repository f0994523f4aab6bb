"""Pages of text as pictures: what a matcher of objects and passages must see nothing in."""

import functools
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
FACES = (
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSansMono",
    "STIXGeneral",
    "STIXGeneralItalic",
)
PAPER = (
    (255, 255, 255),
    (250, 246, 235),
    (240, 230, 205),
    (225, 208, 170),
    (235, 235, 235),
    (205, 190, 160),
    (245, 225, 225),
    (220, 230, 240),
)
INK = ((0, 0, 0), (40, 30, 20), (70, 50, 40), (20, 20, 90), (120, 30, 30), (90, 90, 90))


@functools.cache
def _font(face: str, size: int) -> Font:
    if not face:
        return ImageFont.load_default(size)
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf", size)


def text_pages(texts: list[str], count: int, size: int, seed: int) -> np.ndarray:
    """Pages that carry the given passages: sizes, faces, columns, paper and ink at random; some turned, some blurred.

    Args:
        texts: passages; each page begins at a random word of one and goes on with others.
        count: number of pages. size: side, px.

    Returns: uint8 [count, size, size, 3].
    """
    rng = np.random.default_rng(seed)
    if not texts:
        raise ValueError("Pages of text need at least one passage.")
    return (
        np.stack([_page(texts, size, rng) for _ in range(count)]) if count else np.zeros((0, size, size, 3), np.uint8)
    )


def _page(texts: list[str], size: int, rng: np.random.Generator) -> np.ndarray:
    side = size * 2  # drawn twice as large, so that small print is smooth
    paper, ink = (c[int(rng.integers(len(c)))] for c in (PAPER, INK))
    page = Image.new("RGB", (side, side), paper)
    draw = ImageDraw.Draw(page)
    face = ("", *FACES)[int(rng.integers(len(FACES) + 1))]
    height = int(side * np.exp(rng.uniform(np.log(0.022), np.log(0.12))))
    margin = side * rng.uniform(0.0, 0.14)
    columns = 1 if height > 0.05 * side else int(rng.choice([1, 1, 2, 3]))
    top = margin
    words = _words(texts, rng)
    if rng.random() < 0.3:  # a heading
        large = int(height * rng.uniform(1.4, 2.2))
        draw.text((margin, top), " ".join(next(words) for _ in range(3)), fill=ink, font=_font(face, large))
        top += large * 1.6
    bottom = side - margin if rng.random() < 0.8 else side * rng.uniform(0.3, 0.9)
    gap = side * 0.04
    width = (side - 2 * margin - (columns - 1) * gap) / columns
    for k in range(columns):
        _column(
            draw,
            words,
            (margin + k * (width + gap), top, width, bottom),
            _font(face, height),
            height * rng.uniform(1.15, 1.6),
            ink,
        )
        if k and rng.random() < 0.5:
            x = margin + k * (width + gap) - gap / 2
            draw.line((x, top, x, bottom), fill=ink, width=2)
    if rng.random() < 0.1:  # a ruled frame
        draw.rectangle(
            (margin / 2, margin / 2, side - margin / 2, side - margin / 2), outline=ink, width=int(rng.integers(1, 6))
        )
    if rng.random() < 0.4:
        page = page.rotate(float(rng.uniform(-12, 12)), Image.Resampling.BILINEAR, fillcolor=paper)
    if rng.random() < 0.3:
        page = page.filter(ImageFilter.GaussianBlur(side * rng.uniform(0.002, 0.01)))
    return np.asarray(page.resize((size, size), Image.Resampling.BOX))


def _words(texts: list[str], rng: np.random.Generator) -> Iterator[str]:
    """Words without end, from a random one on."""
    while True:
        words = texts[int(rng.integers(len(texts)))].split()
        yield from words[int(rng.integers(max(1, len(words) // 2))) :]


def _column(
    draw: ImageDraw.ImageDraw,
    words: Iterator[str],
    box: tuple[float, float, float, float],
    font: Font,
    leading: float,
    ink: tuple[int, ...],
) -> None:
    """Fills (left, top, width, bottom) with lines."""
    left, y, width, bottom = box
    carried = ""
    while y + leading <= bottom:
        line = carried
        while True:
            word = next(words)[:40]
            longer = f"{line} {word}" if line else word
            if line and draw.textlength(longer, font=font) > width:
                carried = word
                break
            line = longer
        draw.text((left, y), line, fill=ink, font=font)
        y += leading
