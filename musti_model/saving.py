"""An explanation as a folder: pictures that people look at, raw values, and a manifest that says what is what."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .figures import COLOURS, SIGNED, overlay, scale_of, signed_scale_of


def save_explanation(
    folder: Path,
    image: Image.Image,
    maps: Mapping[str, np.ndarray],
    signed: Mapping[str, np.ndarray],
    arrays: Mapping[str, dict[str, np.ndarray]],
    manifest: dict[str, Any],
    full_size: tuple[int, int],
) -> Path:
    """Writes the picture, an overlay (PNG) and the raw values (NPY) of each map, the arrays (NPY) and manifest.json.

    Args:
        maps, signed: float32 [H, W] in the picture's frame, by name; those for and against something are signed.
            arrays: {kind: {branch: values}}.
        full_size: (width, height) of the picture before it was shrunk. manifest: plain values; the picture's sizes,
            each map's files, the values at the ends of its colours (scale) and the colours are put beside them.

    Returns: the folder, made if need be. Raises ValueError, before the manifest, for a map that is not finite or not in
        the frame.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / "picture.png")
    files = {n: _save_map(folder, image, n, v, False) for n, v in maps.items()} | {
        n: _save_map(folder, image, n, v, True) for n, v in signed.items()
    }
    kept: dict[str, dict[str, str]] = {}
    for kind, by_branch in arrays.items():
        kept[kind] = {}
        for branch, values in by_branch.items():
            kept[kind][branch] = f"{kind}-{branch}.npy"
            np.save(folder / kept[kind][branch], values)
    picture = {"file": "picture.png", "size": list(image.size), "full_size": list(full_size)}
    text = json.dumps(manifest | {"picture": picture, "maps": files} | kept, indent=1, ensure_ascii=False)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
    return folder


def _save_map(folder: Path, image: Image.Image, name: str, values: np.ndarray, signed: bool) -> dict[str, Any]:
    stem, scale = name.replace(":", "-"), signed_scale_of(values) if signed else scale_of(values)
    overlay(image, values, scale=scale, signed=signed).save(folder / f"{stem}.png")
    np.save(folder / f"{stem}.npy", values)
    return {
        "overlay": f"{stem}.png",
        "values": f"{stem}.npy",
        "scale": list(scale),
        "min": float(values.min()),
        "max": float(values.max()),
        "colours": SIGNED if signed else COLOURS,
    }
