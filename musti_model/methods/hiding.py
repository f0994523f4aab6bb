"""Regions in place: parts of the picture hidden at random, and a linear model of the votes."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..image_tower import ImageTokens
from ..question import Question
from .contract import Method
from .gate_effect import follow
from .perturb import CELLS, CHUNK, blanked, votes_of_pictures

MASKINGS = 36
LONG = 20  # words from which a passage is not read again for every masking, but its answer estimated
RIDGE, SMOOTH = 5.0, 15.0  # of the linear model of votes, chosen by deletion and grid pointing on test pairs of the starter


def run(question: Question, maskings: int | None = None, seed: int = 0) -> dict[str, Tensor]:
    """What showing a cell adds to the vote, by a linear model fitted to the votes for a picture of which random cells are hidden (LIME, Ribeiro et al. 2016,
    eq. 1, with every masking of the same weight and cells in place of segments). Half of the maskings are the other half's complements. Few maskings
    leave many linear models that fit; of these the one whose cells are small and like their neighbours is taken (``RIDGE``, ``SMOOTH``).
    maskings: MASKINGS where it is None. Of a long passage the votes are ``estimated``. -> {branch: [CELLS, CELLS]}, logit units; the maps of the branches add up to that of their sum.
    """
    rng, count = np.random.default_rng(seed), CELLS * CELLS
    half = [rng.permutation(count) < rng.integers(1, count) for _ in range((maskings or MASKINGS) // 2)]
    kept = torch.from_numpy(np.stack([mask for shown in half for mask in (shown, ~shown)]))
    ask = votes_of_pictures if len(question.pieces) <= LONG else estimated
    votes = ask(question, kept.view(-1, CELLS, CELLS)).double().cpu()
    cells = kept.double() - 0.5
    votes = votes - votes.mean(0)  # the constant; every cell is shown in half of the maskings
    values = torch.linalg.solve(cells.T @ cells + RIDGE * torch.eye(count) + SMOOTH * laplacian(CELLS), cells.T @ votes).float()
    return {name: values[:, k].reshape(CELLS, CELLS) for k, name in enumerate(question.model.branches)}


@torch.no_grad()
def estimated(question: Question, kept: Tensor) -> Tensor:
    """As ``votes_of_pictures``, without the text encoder: [M, rows, columns] -> [M, branches].

    The image side of each cosine is the very one. On the text side what the gate lets in is, too; what the text encoder makes of the difference is taken
    from the mean gradient on the way from gate shut to gate as learned (``gate_effect``). So the estimate is exact where nothing is hidden, and where hiding
    does no more than shut the gate.
    """
    model, slopes = question.model, question.model.vote_slopes()
    columns = []
    for k, (name, image) in enumerate(question.images.items()):
        text, rows = question.answered.text_vectors[:, k].float(), []
        for part in kept.split(CHUNK):
            tokens = model.encode_image(name, blanked(image, part))
            votes = F.cosine_similarity(text, model.image_vector(tokens).float(), dim=-1) * slopes[k]
            rows.append(votes + _through_the_gate(question, name, tokens) if model.fusion.gated else votes)
        columns.append(torch.cat(rows))
    return torch.stack(columns, dim=1)


def _through_the_gate(question: Question, branch: str, tokens: ImageTokens) -> Tensor:
    """How the vote changes with what the gate lets in of other pictures. -> [M]."""
    followed, fusion = follow(question, branch), question.model.fusion
    added = fusion.added(fusion.meet(tokens, question.read)).float()
    return ((added - followed.path.added) * followed.gradient).sum((1, 2))


def laplacian(side: int) -> Tensor:
    """The Laplacian of a grid: v @ L @ v is the sum of the squared differences of neighbours. -> float64 [side^2, side^2]."""
    line = torch.diff(torch.eye(side, dtype=torch.float64), dim=0)
    along, eye = line.T @ line, torch.eye(side, dtype=torch.float64)
    return torch.kron(along, eye) + torch.kron(eye, along)


IN_PLACE = Method("in place", "regions", "many passes", "logit", True, run)
