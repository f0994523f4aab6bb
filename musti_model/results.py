"""What the model answers and how it is explained: frozen results, and nothing else."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .frames import Maps, shrunk, to_frame
from .saving import save_explanation

SAVED_SIDE = 1000  # px; picture and maps are written no larger, unless asked
SEEN = 0.4  # probability under which the best guess at what the picture shows is doubtful


def is_doubtful(seen: list[tuple[str, float]]) -> bool:
    """Whether weights that can name are not sure what a picture shows. seen: (object, probability), best first; empty
    for weights that cannot name."""
    return bool(seen) and seen[0][1] < SEEN


@dataclass(frozen=True)
class Prediction:
    """One pair's answer.

    label: "YES" or "NO"; probability: 0..1, of YES; threshold: YES from here; similarities: {branch: cosine}; votes:
    {branch: its term in the logit} and vote_bias; logit: their sum; notices: sentences for the reader;
    objects_in_picture: (object, probability), best three; objects_in_passage: (object, word); both empty for weights
    without a naming head; unsure: the answer says little.

    Unsure are weights with a naming head that read none of their objects in the passage; that most probably see nothing
    they know in the picture; or whose best guess at the picture is doubtful (below ``SEEN``). A doubtful picture alone
    does not make a clear YES unsure: where the probability is at least halfway from the threshold to 1, and the passage
    names one of the three best guesses, it is the passage that settles what the picture shows. A NO gets no such help,
    and a picture of nothing known gets none either, since an empty picture can pass for any thing.
    """

    label: str
    probability: float
    threshold: float
    similarities: dict[str, float]
    votes: dict[str, float]
    vote_bias: float
    logit: float
    notices: list[str] = field(default_factory=list)
    objects_in_picture: list[tuple[str, float]] = field(default_factory=list)
    objects_in_passage: list[tuple[str, str]] = field(default_factory=list)
    unsure: bool = False

    @property
    def doubtful(self) -> bool:
        """Whether it is doubtful what the picture shows."""
        return is_doubtful(self.objects_in_picture)

    @property
    def clear(self) -> bool:
        """Whether it is a YES at least halfway from the threshold to 1."""
        return self.probability >= (1 + self.threshold) / 2

    def to_json(self) -> dict[str, Any]:
        """The stable public shape: label, probability, threshold, similarities, notices, unsure, objects_in_picture
        [[object, probability]], objects_in_passage [[object, word]]."""
        plain = {
            k: getattr(self, k) for k in ("label", "probability", "threshold", "similarities", "notices", "unsure")
        }
        return plain | {
            k: [list(pair) for pair in getattr(self, k)] for k in ("objects_in_picture", "objects_in_passage")
        }


@dataclass(frozen=True)
class GateWeights:
    """The scalar gate's three numbers: ``LayerNorm(w_image * I + w_text * T + bias + T)``."""

    w_image: float
    w_text: float
    bias: float


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth value
class Gate:
    """The gate of one branch, aligned with ``Explanation.words``.

    words: 0..1, of a gate with a value for each word how far it opens there, of the scalar gate the picture's share in
    what is passed on; meeting: float32 [words, rows, columns], how much of each place a word met, sums to 1 over the
    places; None where image tokens have no place.
    """

    words: list[float]
    meeting: np.ndarray | None

    def to_json(self) -> dict[str, Any]:
        """Plain values; the meeting with four digits."""
        return {
            "words": self.words,
            "meeting": None if self.meeting is None else self.meeting.astype(float).round(4).tolist(),
        }


@dataclass(frozen=True, eq=False)
class Evidence:
    """What speaks for (above 0) and against (below 0) the answer YES, for the whole model or one branch, in units of
    the logit, or, by relevance, in shares of the vote.

    words: aligned with ``Explanation.words``; map: float32 [H, W] in the picture's frame, None where the method needs
    tokens with a place and they have none; methods: {"words": name of a method of words, "regions": of one of regions}
    (``methods``); branches: {name: Evidence of it}, empty for one branch; missing: [(object, probability)]: what the
    picture seems to show, and the probability of YES if the passage began with that object's English name; only where
    the answer is NO and the weights can name.
    """

    words: list[float]
    grid: Tensor | None
    size: tuple[int, int]
    methods: dict[str, str]
    branches: dict[str, "Evidence"] = field(default_factory=dict)
    missing: list[tuple[str, float]] = field(default_factory=list)

    @property
    def map(self) -> np.ndarray | None:
        """[H, W], stretched from the grid when asked for."""
        return None if self.grid is None else to_frame(self.grid, *self.size)

    def fit(self, size: tuple[int, int]) -> "Evidence":
        """The same for a picture of another size (width, height)."""
        return replace(self, size=size, branches={n: e.fit(size) for n, e in self.branches.items()})

    def to_json(self) -> dict[str, Any]:
        """Plain values; the map on its own grid."""
        grid = None if self.grid is None else self.grid.tolist()
        branches = {
            n: {"words": e.words, "grid": None if e.grid is None else e.grid.tolist()} for n, e in self.branches.items()
        }
        missing = [{"object": o, "probability": p} for o, p in self.missing]
        return {"words": self.words, "grid": grid, "methods": self.methods, "branches": branches, "missing": missing}


@dataclass(frozen=True, eq=False)
class GateEffect:
    """What opening the gate changed in one branch's vote, in units of the logit; negative where the picture's part
    lowered it.

    words: aligned with ``Explanation.words``; rest: of positions that are no word read ([CLS], [SEP], padding).
    patches: [rows, columns], None where tokens have no place; whole: of the token that stands for the whole picture.
    links: [words, rows, columns], what each patch changed through each word, None without places. total: vote with the
    gate as learned minus vote with it shut (no picture), from two forward passes.

    The words and rest add up to total, and so do the patches and whole, but for error: their distance from it, as a
    share of it (0.01 is 1 %; of 1e-4 where the total is smaller). Integrated gradients: Sundararajan et al. 2017, eq.
    1, completeness.
    """

    words: list[float]
    rest: float
    patches: np.ndarray | None
    whole: float
    links: np.ndarray | None
    total: float
    error: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the links."""
        patches = None if self.patches is None else self.patches.tolist()
        return {
            "words": self.words,
            "rest": self.rest,
            "patches": patches,
            "whole": self.whole,
            "total": self.total,
            "error": self.error,
        }


@dataclass(frozen=True)
class Faithfulness:
    """Areas under the curves of the probability of the answer (YES, or NO where that is the answer explained), 0..1,
    and the mean of random orders. A faithful order has a low deletion and a high insertion area. chance: share of the
    random orders that do as well as this one or better in deletion, 0 is best."""

    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float
    chance: float


@dataclass(frozen=True)
class Shut:
    """The answer with the gate shut, the passage read without the picture. probability: 0..1, of YES; votes: {branch:
    its term in the logit}."""

    probability: float
    votes: dict[str, float]


@dataclass(frozen=True, eq=False)
class Explanation:
    """What the model did with one pair. Attention and gate tell where the model looked and mixed, not why it decided;
    evidence and the gate's effect tell what changes the answer.

    words, word_spans: the words read and their characters in ``passage``; gates: {branch: Gate}, empty without a gate;
    gate: which kind (``MustiConfig.gate``); gate_weights: of the scalar gate, else None; maps: {name: raw float32 [H,
    W]} in the frame of ``image`` ("rollout:<branch>" shares of attention, "gradcam:<branch>" >= 0, "gate:<branch>": of
    the scalar gate 0..1, the share of each place; of a gate with a value for each word the sum over the words of
    opening times meeting); heads: {ViT branch: [heads, rows, columns]} last-layer class-token attention;
    word_attention: {branch: aligned with words}; settings: what made it; evidence, gate_effect {branch: GateEffect}:
    None and empty when they were not asked for; asked: fingerprint of the picture and the passage
    (``Question.fingerprint``); shut: the answer with the gate shut, None without a gate.
    """

    prediction: Prediction
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
    evidence: Evidence | None = None
    gate_effect: dict[str, GateEffect] = field(default_factory=dict)
    gate: str = "none"
    asked: str = ""
    shut: Shut | None = None

    def fit(self, side: int) -> "Explanation":
        """The same on a copy of the picture that is at most ``side`` px wide and high: what a page needs, whatever was
        uploaded."""
        image = shrunk(self.image, side)
        if image is self.image:
            return self
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
            "gate": self.gate,
            "gate_weights": None if self.gate_weights is None else vars(self.gate_weights),
            "gates": {n: g.to_json() for n, g in self.gates.items()},
            "shut": None if self.shut is None else vars(self.shut),
            "word_attention": self.word_attention,
            "evidence": self.evidence and self.evidence.to_json(),
            "gate_effect": {n: e.to_json() for n, e in self.gate_effect.items()},
            "settings": self.settings,
        }

    def save(self, folder: str | Path, largest: int | None = SAVED_SIDE) -> Path:
        """Writes the picture, overlays and raw values of the maps and the evidence, the raw heads, and manifest.json
        (``save_explanation``).

        Args:
            folder: made if need be.
            largest: px, longest side of the picture and of all maps, smaller ones keep their size; None: the full size,
                which for a photograph of 12 megapixels fills half a gigabyte. Maps are coarser than the default by far:
                nothing is lost in them.

        Returns: the folder. Raises ValueError, before the manifest, for a map that is not finite or not in the frame.
        """
        return (self if largest is None else self.fit(largest))._write(Path(folder), self.image.size)

    def _write(self, folder: Path, full_size: tuple[int, int]) -> Path:
        evidence = (
            {}
            if self.evidence is None
            else {"evidence": self.evidence} | {f"evidence:{n}": e for n, e in self.evidence.branches.items()}
        )
        signed = {n: drawn for n, e in evidence.items() if (drawn := e.map) is not None}
        return save_explanation(
            folder, self.image, self.maps, signed, {"heads": self.heads}, self.manifest(), full_size
        )
