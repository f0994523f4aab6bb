"""Calibration of the gate: in its loss each kind of words counts alike, but in passages most name nothing, so it
opens a little at too many."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from musti_model.device import autocast
from musti_model.fusion import WordGate, Words
from musti_model.image_tower import ImageTokens
from musti_model.model import MustiModel

from .drawing import IGNORE, piece_labels
from .pairs import Pair, balanced_pairs
from .passages import Passage
from .pictures import Pictures
from .scoring import BATCH, encode_pictures
from .stages import Workshop

EACH = 15  # YES pairs of each object whose words are looked at, at most, and as many NO pairs
# Of 5, 10, 20 and of 1e-3, 1e-4, 1e-5 those with which dev pairs are answered best (log loss, AUC).
PASSED_OVER = 5.0  # a shared name at which the gate stays shut weighs as much as so many words let in for nothing
RIDGE = 1e-3  # how strongly the word score is held to what it was


@dataclass(frozen=True)
class Looked:
    """N wordpieces that looked for their places in a picture. states: float16 [N, H], read without it; agreement:
    float32 [N, branches], -1..1; shown: bool [N], whether the piece names what the picture shows."""

    states: Tensor
    agreement: Tensor
    shown: Tensor


def calibrate_gate(model: MustiModel, shop: Workshop) -> None:
    """Fits the score that the gate gives a word by itself (``WordGate.word_score``) to the wordpieces of training
    pairs, half of them YES; the dev pairs stay for the answers. How steeply the gate opens with agreement stays as
    learned: fitted to so many words that name nothing, it shuts at names that are read weakly. Other gates are left as
    they are."""
    gate = model.fusion
    if not isinstance(gate, WordGate):
        return
    pictures, passages = shop.pictures["train"], shop.passages["train"]
    pairs = balanced_pairs(pictures, passages, seed=0, cap=EACH, rounds=1)
    yes, no = ([p for p in pairs if p.label == label] for label in (1, 0))
    looked = look_at_words(model, shop.tokenizer, pictures, passages, yes + no[: len(yes)])
    gate.word_score.weight.data = fit_word_score(gate, looked)[None].half().float()  # as it is stored


@torch.no_grad()
def look_at_words(
    model: MustiModel,
    tokenizer: PreTrainedTokenizerBase,
    pictures: Pictures,
    passages: Sequence[Passage],
    pairs: Sequence[Pair],
    batch: int = BATCH,
) -> Looked:
    """The words of the passages, each passage read once, in the pictures that they are paired with: passages by length,
    each with its pairs as they come. Doubtful names and special tokens are left out. Raises ValueError without
    pairs."""
    if not pairs:
        raise ValueError("There is no pair whose words could be looked at.")
    device = next(model.parameters()).device
    model.eval()
    of_passage: dict[int, list[Pair]] = {}
    for pair in pairs:
        of_passage.setdefault(pair.passage, []).append(pair)
    order = sorted(of_passage, key=lambda i: (len(passages[i].text), i))
    parts = []
    for start in range(0, len(order), batch):
        read = [passages[i] for i in order[start : start + batch]]
        asked = [(row, p) for row, i in enumerate(order[start : start + batch]) for p in of_passage[i]]
        enc = tokenizer(
            [p.text for p in read],
            truncation=True,
            padding=model.config.tokenizer_padding,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        named = piece_labels(read, enc["offset_mapping"], model.config.objects).to(device)
        encoded = encode_pictures(model, pictures.pixels[[p.picture for _, p in asked]])
        with autocast(device):
            words = model.words(enc["input_ids"].to(device), enc["attention_mask"].to(device))
            parts += [_looked(model, words, named[row], row, at, p, encoded) for at, (row, p) in enumerate(asked)]
    states, agreement, shown = (torch.cat(side) for side in zip(*parts, strict=True))
    return Looked(states, agreement, shown)


def _looked(
    model: MustiModel, words: Words, named: Tensor, row: int, at: int, pair: Pair, encoded: dict[str, ImageTokens]
) -> tuple[Tensor, Tensor, Tensor]:
    """States, agreement and ``shown`` of a pair: passage ``row`` in picture ``at``. named: [T], of the passage."""
    one = Words(words.text[row, None], words.mask[row, None], words.states[row, None])
    met = [model.fusion.meet(ImageTokens(t.tokens[at, None].float(), t.grid), one) for t in encoded.values()]
    agreement = torch.stack([m.agreement[0] for m in met if m.agreement is not None], 1)
    kept = (named != IGNORE) & (words.mask[row] > 0)
    shown = named == model.config.objects.index(pair.object)
    return words.states[row, kept].half(), agreement[kept].float(), shown[kept]


def fit_word_score(gate: WordGate, looked: Looked) -> Tensor:
    """The word score u [H] with which the openings ``sigmoid(alpha * s + beta + u . h)``, as probabilities that a word
    names what is shown, are most likely, in each branch alike: a logistic regression. ``PASSED_OVER`` weighs words that
    do; ``RIDGE`` times the squared distance to the present score is added to the weighted mean loss."""
    start = gate.word_score.weight.detach()[0].float()
    score = start.clone().requires_grad_()
    states, shown = looked.states.float(), looked.shown.float()
    weights = torch.where(looked.shown, PASSED_OVER, 1.0)
    with torch.no_grad():
        by_agreement = gate.open_at(looked.agreement)
    solver = torch.optim.LBFGS([score], max_iter=200, tolerance_change=1e-10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        logits = by_agreement + (states @ score)[:, None]
        each = F.binary_cross_entropy_with_logits(logits, shown[:, None].expand_as(logits), reduction="none").mean(1)
        total = (weights * each).sum() / weights.sum() + RIDGE * (score - start).square().sum()
        total.backward()
        return total

    solver.step(loss)
    return score.detach()
