"""What every method of explanation says of itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..question import Question

Kind = Literal["words", "regions"]
Needs = Literal["one pass", "gradients", "many passes"]
Unit = Literal["logit", "share of the vote", "attention", "activation", "gate"]


@dataclass(frozen=True)
class Method:
    """A method of explanation.

    name: how tables and results call it; kind: whether it values words or regions of the picture; needs: "one pass"
    (the one that answers), "gradients" (a backward pass or two) or "many passes" (of altered inputs); unit: what its
    numbers are; signed: whether they speak for (above 0) and against (below 0) YES; then the whole model's are the sum
    of its branches', as its logit is that of their votes.

    run: question -> {branch: [words]} or {branch: [rows, columns]}, float32 on the CPU; a branch that the method cannot
    value is left out.
    """

    name: str
    kind: Kind
    needs: Needs
    unit: Unit
    signed: bool
    run: Callable[[Question], dict[str, Tensor]]

    def key(self, branch: str) -> str:
        """How the values of one branch are called in results and on the page."""
        return f"{self.name}:{branch}"


def total(values: dict[str, Tensor]) -> Tensor:
    """The whole model's values of words by a signed method: the sum of the branches'. -> [words]."""
    return torch.stack(list(values.values())).sum(0)


def combined(maps: dict[str, Tensor]) -> Tensor:
    """The same of regions: the branches' maps on the finest of their grids, added; each keeps its sum. -> [rows,
    columns]."""
    rows, columns = (max(m.shape[i] for m in maps.values()) for i in (0, 1))
    whole = torch.zeros(rows, columns)
    for values in maps.values():
        finer = F.interpolate(values[None, None], size=(rows, columns), mode="bilinear", align_corners=False)[0, 0]
        whole += finer * (values.numel() / finer.numel())
    return whole


def by_branch(question: Question, votes: Tensor) -> dict[str, Tensor]:
    """[rows, branches] -> {branch: [rows]}, float32 on the CPU."""
    return {n: votes[:, k].detach().float().cpu() for k, n in enumerate(question.model.branches)}
