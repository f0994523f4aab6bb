"""Scores of pairs, pictures encoded once: logits, the gate's openings, and what becomes of the answers when the gate is
shut or wide open."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from musti_model.device import autocast
from musti_model.fusion import Met, Opened, Words
from musti_model.image_tower import ImageTokens
from musti_model.model import MustiModel

from ..report.metrics import best_threshold, collapsed, scores, sigmoid
from .augment import branch_input, plain_view
from .pairs import Pair
from .passages import Passage

# A GPU is fed by large batches; they outgrow a CPU's cache.
BATCH = 96 if torch.cuda.is_available() else 24
MODES: tuple[Opened, ...] = ("learned", "shut", "open")


def grid_of(image: ImageTokens) -> tuple[int, int]:
    """Rows and columns of its places. Raises ValueError where tokens have none."""
    if image.grid is None:
        raise ValueError("These image tokens have no place in the picture.")
    return image.grid


def weights_of(met: Met) -> Tensor:
    """How much of each place every word met, [B, T, N]. Raises ValueError where tokens have no place."""
    if met.weights is None:
        raise ValueError("These image tokens have no place in the picture.")
    return met.weights


@torch.inference_mode()
def encode_pictures(model: MustiModel, pixels: np.ndarray, batch: int = 128) -> dict[str, ImageTokens]:
    """Pictures (uint8 [N, S, S, 3]) as image tokens, kept in bfloat16 on the model's device."""
    device = next(model.parameters()).device
    model.eval()
    kept: dict[str, list[Tensor]] = {n: [] for n in model.branches}
    grids = {}
    for start in range(0, len(pixels), batch):
        part = torch.from_numpy(np.array(pixels[start : start + batch])).to(device)
        for name, branch in model.towers.items():
            with autocast(device):
                image = model.encode_image(
                    name, branch_input(plain_view(part, branch.config.image_size), branch.config)
                )
            kept[name].append(image.tokens.bfloat16())
            grids[name] = image.grid
    return {n: ImageTokens(torch.cat(parts), grids[n]) for n, parts in kept.items()}


@dataclass(frozen=True)
class Scored:
    """Of N pairs. logits: {mode: [N]} with the gate as learned, shut and open; openings: [N] lists, mean over the
    branches of how far the gate opens at each wordpiece; offsets: [N] arrays [T, 2], their characters."""

    logits: dict[str, np.ndarray]
    openings: list[np.ndarray]
    offsets: list[np.ndarray]


@torch.inference_mode()
def score_pairs(
    model: MustiModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: dict[str, ImageTokens],
    passages: Sequence[Passage],
    pairs: Sequence[Pair],
    batch: int = BATCH,
    modes: Sequence[Opened] = ("learned",),
) -> Scored:
    """Pairs by their passages' length; each batch cut to its longest, each of its passages read once. modes: which
    logits are wanted; none: the openings alone, for which no pair is read as a whole."""
    device = next(model.parameters()).device
    model.eval()
    order = sorted(range(len(pairs)), key=lambda i: (len(passages[pairs[i].passage].text), pairs[i].passage))
    logits: dict[str, np.ndarray] = {m: np.zeros(len(pairs)) for m in modes}
    openings: list[np.ndarray] = [np.zeros(0)] * len(pairs)
    offsets: list[np.ndarray] = [np.zeros((0, 2))] * len(pairs)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        texts = list(dict.fromkeys(pairs[i].passage for i in rows))
        enc = tokenizer(
            [passages[t].text for t in texts],
            truncation=True,
            padding=model.config.tokenizer_padding,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        of_row = torch.tensor([texts.index(pairs[i].passage) for i in rows], device=device)
        pictures = torch.tensor([pairs[i].picture for i in rows], device=device)
        chosen = {n: ImageTokens(t.tokens[pictures].float(), t.grid) for n, t in encoded.items()}
        with autocast(device):
            words = model.words(enc["input_ids"].to(device), enc["attention_mask"].to(device))
            asked = Words(words.text[of_row], words.mask[of_row], None if words.read is None else words.read[of_row])
            for mode in modes:
                found = (
                    _shut(model, chosen, words, of_row)
                    if mode == "shut"
                    else model.match_words(chosen, asked, gate=mode).logits
                )
                logits[mode][rows] = found.float().cpu().numpy()
            met = [model.fusion.meet(image, asked) for image in chosen.values()] if model.fusion.gated else []
        if met:
            mean = torch.stack([model.fusion.shares(asked, m).float() for m in met]).mean(0).cpu().numpy()
            for at, i in enumerate(rows):
                length = int(asked.mask[at].sum())
                openings[i], offsets[i] = mean[at, :length], enc["offset_mapping"][of_row[at].item(), :length].numpy()
    return Scored(logits, openings, offsets)


def _shut(model: MustiModel, images: dict[str, ImageTokens], words: Words, of_row: Tensor) -> Tensor:
    """Logits [B] with the gate shut: each passage, which then no picture changes, is read once for all its pictures.
    of_row: [B], row of ``words``."""
    logits = torch.zeros(len(of_row), device=of_row.device)
    for t in range(len(words.mask)):
        one = Words(words.text[t : t + 1], words.mask[t : t + 1], None if words.read is None else words.read[t : t + 1])
        rows = of_row == t
        logits[rows] = model.match_words(
            {n: i.select(rows) for n, i in images.items()}, one, gate="shut"
        ).logits.float()
    return logits


def pair_scores(
    model: MustiModel,
    scored: Scored,
    passages: Sequence[Passage],
    pairs: Sequence[Pair],
    threshold: float | None = None,
) -> dict[str, Any]:
    """F1-macro and the rest with the gate as learned; without ``threshold`` the best one is chosen. "lost": F1-macro
    lost with the gate shut, and open at every word, at the same threshold; "widest": share of YES pairs whose widest
    open word names the shared object."""
    labels = np.array([p.label for p in pairs])
    probabilities = {m: sigmoid(z / model.config.temperature) for m, z in scored.logits.items()}
    learned = probabilities["learned"]
    threshold = best_threshold(labels, learned) if threshold is None else threshold
    result = scores(labels, learned, threshold, [passages[p.passage].language for p in pairs])
    lost = {
        m: result["f1_macro"] - scores(labels, p, threshold)["f1_macro"]
        for m, p in probabilities.items()
        if m != "learned"
    }
    return result | {
        "threshold": threshold,
        "score": result["f1_macro"],
        "collapsed": collapsed(learned),
        "lost": lost,
        "widest": widest_names(scored, passages, pairs),
    }


def word_openings(scored: Scored, row: int, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Mean opening of the wordpieces of each word (characters start, end) of one pair; 0 where none was read."""
    opening, offsets = scored.openings[row], scored.offsets[row]
    inside = [(offsets[:, 0] < end) & (offsets[:, 1] > start) for start, end in spans]
    return np.array([opening[i].mean() if i.any() else 0.0 for i in inside])


def widest_names(scored: Scored, passages: Sequence[Passage], pairs: Sequence[Pair]) -> float:
    """Share of the YES pairs whose widest open wordpiece lies in a name of the shared object."""
    hits = []
    for row, pair in enumerate(pairs):
        opening, offsets = scored.openings[row], scored.offsets[row]
        if not pair.label or not len(opening):
            continue
        real = offsets[:, 1] > offsets[:, 0]
        start, end = offsets[np.where(real, opening, -1).argmax()]
        hits.append(
            any(m.object == pair.object and m.start < end and m.end > start for m in passages[pair.passage].mentions)
        )
    return float(np.mean(hits)) if hits else 0.0
