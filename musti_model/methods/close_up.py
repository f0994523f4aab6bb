"""Regions close up: windows of the picture looked at alone and enlarged; and together with regions in place."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..question import Question
from . import hiding
from .contract import Method
from .perturb import CELLS, votes_of_images


def run(question: Question) -> dict[str, Tensor]:
    """Windows of half the picture's side looked at alone and enlarged: the vote for each, less the mean of all windows,
    averaged over the windows that a cell lies in. A window that holds what the passage names stands out also where the
    thing is too small to be seen in the whole picture. -> {branch: [CELLS, CELLS]}, logit units of a whole picture,
    spread over the cells."""
    side, step = CELLS // 2, CELLS // 4
    corners = [(r, c) for r in range(0, CELLS - side + 1, step) for c in range(0, CELLS - side + 1, step)]
    images = {name: torch.cat([enlarged(x, r, c, side) for r, c in corners]) for name, x in question.images.items()}
    votes = votes_of_images(question, images).float().cpu()
    cover = torch.zeros(len(corners), CELLS, CELLS)
    for row, (r, c) in zip(cover, corners, strict=True):
        row[r : r + side, c : c + side] = 1
    values = torch.einsum("wk,wij->kij", votes - votes.mean(0), cover) / cover.sum(0) / CELLS**2
    return {name: values[k] for k, name in enumerate(question.model.branches)}


def enlarged(image: Tensor, row: int, column: int, side: int) -> Tensor:
    """A window [1, 3, S, S] of cells, enlarged to the whole frame."""
    size = image.shape[-1]
    rows, columns = (slice(at * size // CELLS, (at + side) * size // CELLS) for at in (row, column))
    return F.interpolate(image[..., rows, columns], size=image.shape[-2:], mode="bilinear", align_corners=False)


def both(question: Question) -> dict[str, Tensor]:
    """Half of the regions in place and the whole of the close ups: what the answer to this picture hangs on, and what
    each part would answer."""
    near = run(question)
    return {name: values / 2 + near[name] for name, values in hiding.run(question).items()}


CLOSE_UP = Method("close up", "regions", "many passes", "logit", True, run)
BOTH = Method("in place and close up", "regions", "many passes", "logit", True, both)
