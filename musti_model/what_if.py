"""The answer to an altered question: words struck out, regions blanked out, the gate shut or wide open, branches left
out of the vote."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .fusion import Opened
from .methods.perturb import CELLS, blanked, cut
from .model import MustiOutput
from .question import Question


@dataclass(frozen=True)
class Alteration:
    """struck: indices of words; blanked: (row, column) of cells of an 8 x 8 grid over the picture; gate: "learned" (as
    it is), "shut" (the passage is read without the picture) or "open" (the picture is let in at every word alike: no
    selection; the scalar gate never selects, so open is as learned); without: names of branches that do not vote."""

    struck: Collection[int] = field(default_factory=tuple)
    blanked: Collection[tuple[int, int]] = field(default_factory=tuple)
    gate: Opened = "learned"
    without: Collection[str] = field(default_factory=tuple)

    @property
    def changes(self) -> bool:
        """Whether anything is altered at all."""
        return bool(self.struck or self.blanked or self.without or self.gate != "learned")


@torch.no_grad()
def altered_logit(question: Question, alteration: Alteration) -> float:
    """Logit of the altered pair, before temperature. The branches that still vote get the weight of those that do not,
    each in proportion to its own, so that a branch left out does not by itself turn the answer towards NO.

    Raises: InputError when nothing is left to answer about, or for a word, cell, branch or state of the gate that is
        not there.
    """
    names = list(question.model.branches)
    _check(alteration, names, len(question.pieces))
    words, encoded = question.read, question.encoded
    if alteration.struck:
        struck = {p for w in alteration.struck for p in question.pieces[w]}
        words = cut(question, [[p for p in range(question.length) if p not in struck]])
    if alteration.blanked:
        shown = torch.ones(1, CELLS, CELLS, dtype=torch.bool)
        rows, columns = np.array(sorted(alteration.blanked)).T
        shown[0, rows, columns] = False
        encoded = question.model.encode_images({n: blanked(x, shown) for n, x in question.images.items()})
    output = question.model.match_words(encoded, words, gate=alteration.gate)
    kept = torch.tensor([n not in alteration.without for n in names], device=output.votes.device)
    return _vote_of(output, question.model.vote_slopes(), kept)


def _check(alteration: Alteration, names: list[str], words: int) -> None:
    unknown = sorted(set(alteration.without) - set(names))
    if unknown:
        raise InputError("There is no branch {name!r}; there are {names}.", name=unknown[0], names=", ".join(names))
    if alteration.gate not in get_args(Opened):
        raise InputError(
            "The gate can be {states}, not {name!r}.",
            states=", ".join(get_args(Opened)),
            name=str(alteration.gate)[:40],
        )
    if not all(0 <= w < words for w in alteration.struck):
        raise InputError("The passage has {count} words that were read; count them from 0.", count=words)
    if not all(0 <= n < CELLS for cell in alteration.blanked for n in cell):
        raise InputError("A cell is a row and a column from 0 to {last}.", last=CELLS - 1)
    if set(names) <= set(alteration.without):
        raise InputError("At least one branch has to vote; leave one in.")
    if alteration.struck and len(set(alteration.struck)) == words:
        raise InputError("All words are struck out; leave at least one.")


def _vote_of(output: MustiOutput, slopes: Tensor, kept: Tensor) -> float:
    votes, slopes = output.votes[0].float(), slopes.float().abs()
    weight = slopes.sum() / slopes[kept].sum().clamp(min=1e-12)
    return float(votes[kept].sum() * weight + output.vote_bias)
