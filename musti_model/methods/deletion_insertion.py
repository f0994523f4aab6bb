"""How far a map or a list of word values tells the truth about the model: deletion and insertion, against random
orders.

Deletion (Petsiuk et al. 2018): take away what is said to matter most first, and see how fast the probability falls.
Insertion: put it back first.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..question import Question
from ..results import Faithfulness
from .perturb import CELLS, sparing, votes_of_pictures, votes_of_texts

STEPS, FEW_STEPS = 8, 4  # the fewer where alterations are to be ``sparing``
RANDOM, FEW_RANDOM = 6, 4  # random orders that a map is compared with


def of_words(
    question: Question, values: dict[str, Tensor], answer: str = "YES", seed: int = 0, full: bool = False
) -> dict[str, Faithfulness]:
    """For several lists of word values by name, [words] each; words are struck out whole. The random orders are the
    same for all.

    answer: "YES", or "NO" to take away first what speaks against YES, and follow the probability of NO. full: all STEPS
    and RANDOM orders, also of a model that is to be altered sparingly.
    """

    def probabilities(kept: list[tuple[int, ...]]) -> np.ndarray:
        return question.probability(
            votes_of_texts(question, [sorted(question.rest + [p for w in k for p in question.pieces[w]]) for k in kept])
        )

    return _measure(
        {n: torch.as_tensor(v).double().cpu().numpy() for n, v in values.items()},
        probabilities,
        answer,
        seed,
        not full and sparing(question.model),
    )


def of_regions(
    question: Question, maps: dict[str, Tensor], answer: str = "YES", seed: int = 0, full: bool = False
) -> dict[str, Faithfulness]:
    """For several maps by name, [h, w] each, in the picture's frame; cells are blanked out to the picture's mean
    colour. answer, full: see above."""

    def probabilities(kept: list[tuple[int, ...]]) -> np.ndarray:
        masks = torch.zeros(len(kept), CELLS * CELLS, dtype=torch.bool)
        for row, k in zip(masks, kept, strict=True):
            row[list(k)] = True
        return question.probability(votes_of_pictures(question, masks.view(-1, CELLS, CELLS)))

    return _measure(
        {n: to_cells(m).flatten().double().numpy() for n, m in maps.items()},
        probabilities,
        answer,
        seed,
        not full and sparing(question.model),
    )


def to_cells(values: Tensor) -> Tensor:
    """A map [h, w] -> the mean of each cell, [CELLS, CELLS]."""
    return F.adaptive_avg_pool2d(torch.as_tensor(values).detach().float().cpu()[None, None], CELLS)[0, 0]


Probabilities = Callable[[list[tuple[int, ...]]], np.ndarray]


def _measure(
    values: dict[str, np.ndarray], probabilities: Probabilities, answer: str, seed: int, few: bool = False
) -> dict[str, Faithfulness]:
    """All curves from one batched call in which nothing is asked twice. probabilities: lists of kept units ->
    [lists]."""
    rng, sign = np.random.default_rng(seed), 1 if answer == "YES" else -1
    steps, randoms = (FEW_STEPS, FEW_RANDOM) if few else (STEPS, RANDOM)
    count = len(next(iter(values.values())))
    orders = [
        *(np.argsort(-sign * v, kind="stable") for v in values.values()),
        *(rng.permutation(count) for _ in range(randoms)),
    ]
    cuts = np.linspace(0, count, steps + 1).round().astype(int)
    kept = [tuple(sorted(part.tolist())) for order in orders for cut in cuts for part in (order[cut:], order[:cut])]
    asked = list(dict.fromkeys(kept))
    found = dict(zip(asked, probabilities(asked), strict=True))
    curves = np.array([found[k] for k in kept]).reshape(len(orders), len(cuts), 2)
    curves = curves if answer == "YES" else 1 - curves
    areas = np.trapezoid(curves, dx=1 / steps, axis=1)  # [orders, (deletion, insertion)]
    random = areas[len(values) :]
    deletion, insertion = random.mean(0).tolist()
    return {
        name: Faithfulness(
            float(own[0]), float(own[1]), deletion, insertion, chance=float((random[:, 0] <= own[0]).mean())
        )
        for name, own in zip(values, areas, strict=False)
    }
