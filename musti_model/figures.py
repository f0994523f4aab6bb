"""Maps and scores -> what people look at. Raw values are scaled here and nowhere else; no torch in this file."""

from html import escape

import matplotlib
import numpy as np
from PIL import Image

COLOURS = "viridis"  # perceptually uniform, readable with colour-blindness
SIGNED = "PuOr_r"  # purple against, orange for; told apart with any colour-blindness


def scale_of(values: np.ndarray, stretch: bool = False) -> tuple[float, float]:
    """The values drawn darkest and brightest: 0 and the largest value, so that a nearly constant map is drawn nearly
    constant and equal colours mean equal parts of the largest value. (0, 1) when nothing is above 0. Raises ValueError
    for values that are not finite.

    stretch: the smallest value instead of 0, which shows small differences as large ones; only where a reader asks for
    it.
    """
    if not np.isfinite(values).all():
        raise ValueError("The map holds values that are not numbers.")
    high = float(np.max(values))
    if stretch and float(np.min(values)) < high:
        return float(np.min(values)), high
    return (0.0, high) if high > 0 else (0.0, 1.0)


def signed_scale_of(values: np.ndarray) -> tuple[float, float]:
    """The values drawn purplest and most orange: the largest distance from 0 on both sides, so that 0 has the middle's
    colour. (-1, 1) where all are 0 but for rounding (1e-8). Raises ValueError for values that are not finite."""
    high = scale_of(np.abs(values))[1]
    return (-high, high) if high > 1e-8 else (-1.0, 1.0)


def _colours(signed: bool) -> matplotlib.colors.Colormap:
    return matplotlib.colormaps[SIGNED if signed else COLOURS]


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values - low) / max(high - low, 1e-12), 0, 1)


def _ink(colour: tuple[float, ...]) -> str:
    """Black or white, whichever has the higher WCAG contrast on the colour (sRGB, 0..1): at least 4.5 on any shade."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return "#000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#fff"  # where both contrasts are equal


def overlay(
    image: Image.Image,
    values: np.ndarray,
    opacity: float = 0.55,
    scale: tuple[float, float] | None = None,
    signed: bool = False,
) -> Image.Image:
    """Lays a map over a picture.

    Args:
        image: RGB, W x H. values: [H, W], raw. opacity: 0..1 of the colour layer. scale: the values drawn darkest and
            brightest, to compare maps with each other; None: ``scale_of(values)``, signed ``signed_scale_of(values)``.
            signed: values for and against; those near 0 let the picture through.

    Returns: RGB, W x H. Raises ValueError when the map is not in the picture's frame or not finite.
    """
    if values.shape != (image.height, image.width):
        raise ValueError(f"The map is {values.shape}, the picture {(image.height, image.width)}.")
    own = signed_scale_of(values) if signed else scale_of(values)
    level = _scaled(values, *(scale or own))
    colours = _colours(signed)(level)[..., :3] * 255
    # middling values stay visible, small ones fade
    layer = opacity * (1 - (1 - np.abs(2 * level - 1)) ** 2)[..., None] if signed else opacity
    mixed = (1 - layer) * np.asarray(image, dtype=np.float32) + layer * colours
    return Image.fromarray(mixed.round().astype(np.uint8))


def legend_html(low: float, high: float, label: str, signed: bool = False) -> str:
    """A colour bar with its end values, as HTML."""
    stops = ", ".join(matplotlib.colors.to_hex(_colours(signed)(x)) for x in np.linspace(0, 1, 9))
    return (
        f'<div class="legend" role="img" aria-label="{escape(label)}: {low:.3g} – {high:.3g}"><span>{low:.3g}</span>'
        f'<span class="bar" style="background:linear-gradient(90deg, {stops})"></span><span>{high:.3g}</span>'
        f"<span>{escape(label)}</span></div>"
    )


def words_html(
    passage: str,
    spans: list[tuple[int, int]],
    values: list[float],
    label: str,
    scale: tuple[float, float] | None = None,
    signed: bool = False,
) -> str:
    """The passage with every word coloured by its value; the number on hover and focus, and for screen readers.

    Args:
        passage: plain text; everything in it is escaped, so Gradio's HTML component with its default template may show
            it. spans, values: characters (in order, apart) and value of each word. label: what the values are. scale,
            signed: as for ``overlay``.

    Returns: HTML with the legend. Raises ValueError when spans and values differ in number or a value is not finite.
    """
    own = (signed_scale_of if signed else scale_of)(np.asarray(values or [0.0]))
    low, high = scale or own
    parts, at = [], 0
    for (start, end), value in zip(spans, values, strict=True):
        colour = _colours(signed)(float(_scaled(np.asarray(value), low, high)))
        ink = _ink(colour)
        note = f"{label} {value:+#.3g}" if signed else f"{label} {value:#.3g}"
        parts.append(escape(passage[at:start]))
        parts.append(
            f'<span class="word" tabindex="0" data-note="{escape(note)}" aria-label="{escape(passage[start:end])}, '
            f'{escape(note)}" '
            f'style="background:{matplotlib.colors.to_hex(colour)};color:{ink}">{escape(passage[start:end])}</span>'
        )
        at = end
    unread = escape(passage[at:])
    parts.append(f'<span class="unread">{unread}</span>' if unread.strip() else "")
    return f'<div class="passage" dir="auto">{"".join(parts)}</div>{legend_html(low, high, label, signed)}'
