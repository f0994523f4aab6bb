"""What the gate is held to: whether it opens at the right words, in the right places, for the right pictures, and for
nothing else."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from musti_model.image_tower import ImageTokens
from musti_model.model import MustiModel

from ..report.metrics import sigmoid
from .augment import box_places, nothing
from .pairs import Pair
from .passages import Passage
from .pictures import STORED_SIZE, Pictures
from .scoring import encode_pictures, grid_of, score_pairs, weights_of, word_openings

QUARTERS = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.5, 0.5, 1.0], [0.5, 0.0, 1.0, 0.5], [0.5, 0.5, 1.0, 1.0]])


def right_and_wrong(
    model: MustiModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: dict[str, ImageTokens],
    pictures: Pictures,
    passages: Sequence[Passage],
    pairs: Sequence[Pair],
    seed: int = 0,
) -> float:
    """AUC of the gate's opening at the name of the shared object: with the picture of a YES pair against a picture of
    an object that the passage does not touch. 0.5 is chance."""
    rng = np.random.default_rng(seed)
    yes = [p for p in pairs if p.label]
    wrong = []
    for pair in yes:
        while True:
            row = int(rng.integers(len(pictures)))
            if pictures.objects[pictures.labels[row]] not in passages[pair.passage].touched:
                break
        wrong.append(Pair(row, pair.passage, 0, pair.object))
    values = []
    for asked in (yes, wrong):
        scored = score_pairs(model, tokenizer, encoded, passages, asked, modes=())
        spans = [[(m.start, m.end) for m in passages[p.passage].mentions if m.object == p.object] for p in asked]
        values.append([word_openings(scored, i, s).max() if s else 0.0 for i, s in enumerate(spans)])
    return float(roc_auc_score([1] * len(yes) + [0] * len(wrong), values[0] + values[1]))


def grids(
    pictures: Pictures, passages: Sequence[Passage], count: int, seed: int = 0
) -> list[tuple[np.ndarray, int, int]]:
    """Up to ``count`` times four held-out pictures in one, of which the passage names one: (uint8 [S, S, 3], row of
    passages, quarter 0..3). Fewer, or none, where there are too few objects."""
    rng = np.random.default_rng(seed)
    result: list[tuple[np.ndarray, int, int]] = []
    by_object = {o: np.flatnonzero(pictures.labels == k) for k, o in enumerate(pictures.objects)}
    naming = [i for i, p in enumerate(passages) if p.named]
    half = pictures.pixels.shape[1] // 2
    for _ in range(20 * count if naming else 0):
        if len(result) == count:
            break
        at = naming[int(rng.integers(len(naming)))]
        named = sorted(o for o in passages[at].named if len(by_object[o]))
        others = [o for o in pictures.objects if o not in passages[at].touched and len(by_object[o])]
        if not named or len(others) < 3:
            continue
        shown = [named[int(rng.integers(len(named)))], *rng.choice(others, 3, replace=False)]
        order = rng.permutation(4)
        small = [pictures.pixels[int(rng.choice(by_object[shown[k]]))][: 2 * half, : 2 * half] for k in order]
        small = [s.reshape(half, 2, half, 2, 3).mean((1, 3)).round().astype(np.uint8) for s in small]
        rows = [np.concatenate(small[i : i + 2], axis=1) for i in (0, 2)]
        result.append((np.concatenate(rows, axis=0), at, int(np.flatnonzero(order == 0)[0])))
    return result


@torch.inference_mode()
def gate_in_quarter(
    model: MustiModel,
    tokenizer: PreTrainedTokenizerBase,
    passages: Sequence[Passage],
    made: list[tuple[np.ndarray, int, int]],
) -> dict[str, float]:
    """Share of the gate's map (over the words, opening times meeting) in the quarter that shows what the passage names;
    chance .25. By branch, and "both", their mean."""
    device = next(model.parameters()).device
    encoded = encode_pictures(model, np.stack([g[0] for g in made]))
    found: dict[str, list[float]] = {n: [] for n in encoded}
    for i, (_, at, quarter) in enumerate(made):
        enc = tokenizer(
            [passages[at].text], truncation=True, padding=model.config.tokenizer_padding, return_tensors="pt"
        ).to(device)
        words = model.words(enc["input_ids"], enc["attention_mask"])
        for name, image in encoded.items():
            met = model.fusion.meet(ImageTokens(image.tokens[i : i + 1].float(), image.grid), words)
            found[name].append(_share(met.opening[0, 1:-1] @ weights_of(met)[0, 1:-1, 1:], grid_of(image), quarter))
    result = {n: float(np.mean(v)) for n, v in found.items()}
    return result | {"both": float(np.mean(list(result.values())))}


def _share(places: Tensor, grid: tuple[int, int], quarter: int) -> float:
    inside = box_places(QUARTERS[None], grid)[0, quarter].to(places.device)
    return float((places * inside).sum() / places.sum().clamp(min=1e-12))


def nothing_said_yes(
    model: MustiModel,
    tokenizer: PreTrainedTokenizerBase,
    passages: Sequence[Passage],
    pages: Tensor,
    count: int,
    seed: int = 0,
) -> float:
    """Share of pictures of nothing (blank, noise, patterns, pages of text) answered YES with held-out passages that
    name something."""
    generator = torch.Generator().manual_seed(seed)
    pixels = (nothing(count, STORED_SIZE, generator, pages) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    rng = np.random.default_rng(seed)
    naming = [i for i, p in enumerate(passages) if p.named]
    pairs = [Pair(i, int(rng.choice(naming)), 0, "") for i in range(count)]
    scored = score_pairs(model, tokenizer, encode_pictures(model, pixels), passages, pairs)
    return float((sigmoid(scored.logits["learned"] / model.config.temperature) >= model.config.threshold).mean())
