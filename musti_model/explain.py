"""From a forward pass's internals to maps and scores. Pure functions on tensors; one example at a time, no batch axis."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from .evidence import Evidence
    from .gate_effect import GateEffect
    from .pipeline import Prediction

SAVED_SIDE = 1000  # px; picture and maps are written no larger, unless asked


def rollout(attention: Tensor) -> Tensor:
    """Attention rollout (Abnar & Zuidema 2020): how far the class token's attention reaches each place through all layers.

    Per layer the mean over the heads, half of it replaced by the identity for the residual connection, rows renormalised; later layers
    multiply from the left.

    Args:
        attention: [layers, heads, N, N], rows sum to 1, token 0 is the class token.

    Returns: [N - 1], the class token's row over the places, sums to at most 1.
    """
    n = attention.shape[-1]
    identity = torch.eye(n, dtype=attention.dtype, device=attention.device)
    total = identity
    for layer in attention.mean(1):
        mixed = 0.5 * layer + 0.5 * identity
        total = (mixed / mixed.sum(-1, keepdim=True)) @ total
    return total[0, 1:]


def class_attention(attention: Tensor) -> Tensor:
    """Last layer's attention from the class token to the places, by head: [layers, heads, N, N] -> [heads, N - 1]."""
    return attention[-1, :, 0, 1:]


def grad_cam(feature_map: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017, eq. 1-2): ReLU of the maps weighted by their mean gradient. [C, h, w] twice -> [h, w], >= 0."""
    weights = gradient.mean((1, 2), keepdim=True)
    return (weights * feature_map).sum(0).clamp(min=0)


def image_share(gate_image: Tensor, gate_text: Tensor) -> Tensor:
    """Share of the image term in the gate's sum, by norms: [T], [T] -> [T] in 0..1; 0 where both are 0."""
    return gate_image / (gate_image + gate_text).clamp(min=1e-12)


def to_words(values: Tensor, words: list[tuple[int, ...]]) -> list[float]:
    """Mean over the pieces of each word. values: [T]; words: positions of their pieces. Special tokens and padding carry no score."""
    return [float(values[list(pieces)].mean()) for pieces in words]


def to_places(values: Tensor, weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """Values of text positions -> places of the picture, by the weights with which each place was met there.

    Args:
        values: [T]. weights: [T, 1 + places] (see ``place_weights``). grid: (rows, columns).

    Returns: [rows, columns], a weighted mean over the positions that met the place.
    """
    met = weights[:, 1:]
    return (met.T @ values / met.sum(0).clamp(min=1e-12)).reshape(grid)


def to_frame(values: Tensor, width: int, height: int) -> np.ndarray:
    """[h, w] -> float32 [height, width], bilinear. The model sees the whole picture squashed to a square, so stretching undoes it."""
    big = F.interpolate(values[None, None].float(), size=(height, width), mode="bilinear", align_corners=False)
    return big[0, 0].numpy()


def class_word_attention(attention: Tensor) -> Tensor:
    """[CLS]'s attention to each position in the text encoder's last layer, mean of the heads: [layers, heads, T, T] -> [T]."""
    return attention[-1].mean(0)[0]


class Maps(Mapping[str, np.ndarray]):
    """Maps by name, float32 [height, width] each, stretched to the picture's frame when asked for; kept as they were made, on their grids."""

    def __init__(self, grids: dict[str, Tensor], width: int, height: int) -> None:
        self.grids, self.width, self.height = grids, width, height

    def __getitem__(self, name: str) -> np.ndarray:
        return to_frame(self.grids[name], self.width, self.height)

    def __iter__(self) -> Iterator[str]:
        return iter(self.grids)

    def __len__(self) -> int:
        return len(self.grids)


@dataclass(frozen=True)
class GateWeights:
    """The gate's three scalars: ``LayerNorm(w_image * I + w_text * T + bias + T)``."""

    w_image: float
    w_text: float
    bias: float


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value
class Gate:
    """Image shares of one branch, 0..1: words aligned with ``Explanation.words``; patches [rows, columns], None without places."""

    words: list[float]
    patches: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Explanation:
    """What the model did with one pair. Attention and gate shares tell where the model looked and mixed, not why it decided; evidence and the
    gate's effect tell what changes the answer.

    words, word_spans: the words read and their characters in ``passage``; gates: {branch: Gate}, empty without a gate; maps: {name: raw
    float32 [H, W]} in the frame of ``image`` ("rollout:<branch>" shares of attention, "gradcam:<branch>" >= 0, "gate:<branch>" 0..1); heads: {ViT
    branch: [heads, rows, columns]} last-layer class-token attention; word_attention: {branch: aligned with words}; settings: what made it;
    evidence, gate_effect {branch: GateEffect}: None and empty when they were not asked for.
    """

    prediction: "Prediction"
    image: Image.Image
    passage: str
    words: list[str]
    word_spans: list[tuple[int, int]]
    gates: dict[str, Gate]
    gate_weights: GateWeights | None
    maps: Maps
    heads: dict[str, np.ndarray]
    word_attention: dict[str, list[float]]
    settings: dict[str, Any] = field(default_factory=dict)
    evidence: "Evidence | None" = None
    gate_effect: dict[str, "GateEffect"] = field(default_factory=dict)

    def fit(self, side: int) -> "Explanation":
        """The same on a picture that is at most ``side`` px wide and high: what a page needs, whatever was uploaded."""
        shrink = side / max(self.image.size)
        if shrink >= 1:
            return self
        image = self.image.resize([max(1, round(n * shrink)) for n in self.image.size])
        evidence = self.evidence and self.evidence.fit(image.size)
        return replace(self, image=image, maps=Maps(self.maps.grids, *image.size), evidence=evidence)

    def head_map(self, branch: str, head: int) -> np.ndarray:
        """Last-layer attention of one head (from 0), float32 [H, W] in the picture's frame."""
        return to_frame(torch.from_numpy(self.heads[branch][head]), *self.image.size)

    def manifest(self) -> dict[str, Any]:
        """Everything but the maps, as plain values."""
        p = self.prediction
        return {
            "prediction": p.to_json() | {"logit": p.logit, "votes": p.votes, "vote_bias": p.vote_bias},
            "passage": self.passage,
            "words": self.words,
            "word_spans": self.word_spans,
            "gate_weights": None if self.gate_weights is None else vars(self.gate_weights),
            "gates": {
                n: {"words": g.words, "patches": None if g.patches is None else g.patches.tolist()}
                for n, g in self.gates.items()
            },
            "word_attention": self.word_attention,
            "evidence": self.evidence and self.evidence.to_json(),
            "gate_effect": {n: e.to_json() for n, e in self.gate_effect.items()},
            "settings": self.settings,
        }

    def save(self, folder: str | Path, largest: int | None = SAVED_SIDE) -> Path:
        """Writes the picture, an overlay (PNG) and the raw values (NPY) of each map and of the evidence, the raw heads (NPY), and manifest.json.

        The manifest names the picture's size, saved and full, each map's files, the values at the ends of its colours (scale) and the colours,
        beside ``manifest()``.

        Args:
            folder: made if need be.
            largest: px, longest side of the picture and of all maps, smaller ones keep their size; None: the full size, which for a photograph of
                12 megapixels fills half a gigabyte. Maps are coarser than the default by far: nothing is lost in them.

        Returns: the folder. Raises ValueError, before the manifest, for a map that is not finite or not in the frame.
        """
        shown = self if largest is None else self.fit(largest)
        return shown._write(Path(folder), full=self.image.size)

    def _write(self, folder: Path, full: tuple[int, int]) -> Path:
        from .figures import COLOURS, SIGNED, overlay, scale_of, signed_scale_of

        folder.mkdir(parents=True, exist_ok=True)
        self.image.save(folder / "picture.png")
        files = {}
        evidence = {} if self.evidence is None else {"evidence": self.evidence} | {f"evidence:{n}": e for n, e in self.evidence.branches.items()}
        signed = {n: e.map for n, e in evidence.items() if e.grid is not None}
        for name, values in [*self.maps.items(), *signed.items()]:
            stem, scale = name.replace(":", "-"), signed_scale_of(values) if name in signed else scale_of(values)
            overlay(self.image, values, scale=scale, signed=name in signed).save(folder / f"{stem}.png")
            np.save(folder / f"{stem}.npy", values)
            files[name] = {
                "overlay": f"{stem}.png", "values": f"{stem}.npy", "scale": list(scale), "min": float(values.min()), "max": float(values.max()),
                "colours": SIGNED if name in signed else COLOURS,
            }  # fmt: skip
        heads = {}
        for name, values in self.heads.items():
            heads[name] = f"heads-{name}.npy"
            np.save(folder / heads[name], values)
        picture = {"file": "picture.png", "size": list(self.image.size), "full_size": list(full)}
        manifest = self.manifest() | {"picture": picture, "maps": files, "heads": heads}
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return folder
