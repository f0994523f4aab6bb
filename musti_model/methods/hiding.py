"""Regions in place: parts of the picture hidden at random, and a linear model of the votes."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..image_tower import ImageTokens
from ..question import Question
from .contract import Method
from .gate_effect import follow
from .perturb import CELLS, CHUNK, blanked, sparing, votes_of_pictures

MASKINGS, FEW = 192, 32  # FEW where alterations are to be ``sparing``
LONG = 20  # words from which a passage is then not read again for every masking, but its answer estimated
CHECKED = 4  # maskings that are answered in full all the same, to fit the estimate
# of the linear model of votes, chosen by deletion and grid pointing on test pairs of the starter
RIDGE, SMOOTH = 5.0, 15.0


def run(question: Question, maskings: int | None = None, seed: int = 0) -> dict[str, Tensor]:
    """What showing a cell adds to the vote, by a linear model fitted to the votes for a picture of which random cells
    are hidden (LIME, Ribeiro et al. 2016, eq. 1, with every masking of the same weight and cells in place of segments).
    Half of the maskings are the other half's complements. Few maskings leave many linear models that fit; of these the
    one whose cells are small and like their neighbours is taken (``RIDGE``, ``SMOOTH``). maskings: MASKINGS, or where
    the model is large FEW, where it is None; of a long passage the votes are then ``estimated``. -> {branch: [CELLS,
    CELLS]}, logit units; the maps of the branches add up to that of their sum.
    """
    rng, count, few = np.random.default_rng(seed), CELLS * CELLS, sparing(question.model)
    half = [
        rng.permutation(count) < rng.integers(1, count) for _ in range((maskings or (FEW if few else MASKINGS)) // 2)
    ]
    kept = torch.from_numpy(np.stack([mask for shown in half for mask in (shown, ~shown)]))
    ask = estimated if few and len(question.pieces) > LONG else votes_of_pictures
    votes = ask(question, kept.view(-1, CELLS, CELLS)).double().cpu()
    cells = kept.double() - 0.5
    votes = votes - votes.mean(0)  # the constant; every cell is shown in half of the maskings
    values = torch.linalg.solve(
        cells.T @ cells + RIDGE * torch.eye(count) + SMOOTH * laplacian(CELLS), cells.T @ votes
    ).float()
    return {name: values[:, k].reshape(CELLS, CELLS) for k, name in enumerate(question.model.branches)}


@torch.no_grad()
def estimated(question: Question, kept: Tensor) -> Tensor:
    """As ``votes_of_pictures``, almost without the text encoder: [M, rows, columns] -> [M, branches].

    The image side of each cosine is the very one. On the text side what the gate lets in is, too; what the text encoder
    makes of the difference is taken from the mean gradient on the way from gate shut to gate as learned
    (``gate_effect``), by one factor a branch that fits the first CHECKED maskings, which are answered in full.
    """
    parts = [
        _terms(question, part, checked=CHECKED if number == 0 else 0) for number, part in enumerate(kept.split(CHUNK))
    ]
    direct, gated, full = (torch.cat(columns) for columns in zip(*parts, strict=True))
    missing, by_gate = full - direct[: len(full)], gated[: len(full)]
    factor = (missing * by_gate).sum(0) / (by_gate**2).sum(0).clamp(min=1e-12)
    return direct + factor.clamp(0, 2) * gated


def _terms(question: Question, kept: Tensor, checked: int) -> tuple[Tensor, Tensor, Tensor]:
    """Votes with the text read as for the unaltered picture, what goes through the gate beside them, [M, branches]
    each, and the full votes of the first ``checked``."""
    model, direct, gated = question.model, [], []
    encoded = model.encode_images({n: blanked(x, kept) for n, x in question.images.items()})
    for k, (name, tokens) in enumerate(encoded.items()):
        text = question.answered.text_vectors[:, k].float()
        direct.append(F.cosine_similarity(text, model.image_vector(tokens).float(), dim=-1) * model.vote_slopes()[k])
        gated.append(_through_the_gate(question, name, tokens) if model.fusion.gated else torch.zeros_like(direct[-1]))
    some = {n: t.select(torch.arange(min(checked, len(kept)), device=t.tokens.device)) for n, t in encoded.items()}
    full = (
        model.match_words(some, question.read).votes
        if checked
        else torch.zeros(0, len(direct), device=direct[0].device)
    )
    return torch.stack(direct, 1), torch.stack(gated, 1), full


def _through_the_gate(question: Question, branch: str, tokens: ImageTokens) -> Tensor:
    """How the vote changes with what the gate lets in of other pictures. -> [M]."""
    followed, fusion = follow(question, branch), question.model.fusion
    added = fusion.added(fusion.meet(tokens, question.read)).float()
    return ((added - followed.path.added) * followed.gradient).sum((1, 2))


def laplacian(side: int) -> Tensor:
    """The Laplacian of a grid: v @ L @ v is the sum of the squared differences of neighbours. -> float64 [side^2,
    side^2]."""
    line = torch.diff(torch.eye(side, dtype=torch.float64), dim=0)
    along, eye = line.T @ line, torch.eye(side, dtype=torch.float64)
    return torch.kron(along, eye) + torch.kron(eye, along)


IN_PLACE = Method("in place", "regions", "many passes", "logit", True, run)
