"""Maps and scores -> what people look at. Raw values are scaled here and nowhere else; no torch in this file."""

from html import escape

import matplotlib
import numpy as np
from PIL import Image

COLOURS = "viridis"  # perceptually uniform, readable with colour-blindness
FLAT = 0.05  # a map whose relative spread is below this is drawn as flat as it is


def scale_of(values: np.ndarray) -> tuple[float, float]:
    """The values drawn darkest and brightest: the map's own range, but a nearly constant map keeps 0 as its lower end."""
    low, high = float(np.min(values)), float(np.max(values))
    if high <= 0:
        return 0.0, 1.0
    return (0.0, high) if (high - low) / high < FLAT else (low, high)


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values - low) / max(high - low, 1e-12), 0, 1)


def overlay(image: Image.Image, values: np.ndarray, opacity: float = 0.55) -> Image.Image:
    """Lays a map over a picture.

    Args:
        image: RGB, W x H. values: [H, W], raw. opacity: 0..1 of the colour layer.

    Returns: RGB, W x H. Raises ValueError when the map is not in the picture's frame or not finite.
    """
    if values.shape != (image.height, image.width):
        raise ValueError(f"The map is {values.shape}, the picture {(image.height, image.width)}.")
    if not np.isfinite(values).all():
        raise ValueError("The map holds values that are not numbers.")
    colours = matplotlib.colormaps[COLOURS](_scaled(values, *scale_of(values)))[..., :3] * 255
    mixed = (1 - opacity) * np.asarray(image, dtype=np.float32) + opacity * colours
    return Image.fromarray(mixed.round().astype(np.uint8))


def legend_html(low: float, high: float, label: str) -> str:
    """A colour bar with its end values, as HTML."""
    stops = ", ".join(matplotlib.colors.to_hex(matplotlib.colormaps[COLOURS](x)) for x in np.linspace(0, 1, 9))
    return (
        f'<div class="legend" role="img" aria-label="{escape(label)}: {low:.3g} to {high:.3g}"><span>{low:.3g}</span>'
        f'<span class="bar" style="background:linear-gradient(90deg, {stops})"></span><span>{high:.3g}</span>'
        f"<span>{escape(label)}</span></div>"
    )


def words_html(passage: str, spans: list[tuple[int, int]], values: list[float], label: str) -> str:
    """The passage with every word coloured by its value; the number on hover and focus, and for screen readers.

    Args:
        passage: plain text; everything in it is escaped. spans, values: characters and value of each word.
    """
    low, high = scale_of(np.asarray(values)) if values else (0.0, 1.0)
    parts, at = [], 0
    for (start, end), value in zip(spans, values, strict=True):
        colour = matplotlib.colormaps[COLOURS](float(_scaled(np.asarray(value), low, high)))
        ink = "#000" if 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2] > 0.45 else "#fff"
        note = f"{label} {value:.3f}"
        parts.append(escape(passage[at:start]))
        parts.append(
            f'<span class="word" tabindex="0" title="{escape(note)}" aria-label="{escape(passage[start:end])}, {escape(note)}" '
            f'style="background:{matplotlib.colors.to_hex(colour)};color:{ink}">{escape(passage[start:end])}</span>'
        )
        at = end
    unread = escape(passage[at:])
    parts.append(f'<span class="unread">{unread}</span>' if unread.strip() else "")
    return f'<div class="passage">{"".join(parts)}</div>{legend_html(low, high, label)}'
