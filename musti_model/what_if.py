"""The answer to an altered question: words struck out, regions blanked out, the gate shut, branches left out of the vote."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .evidence import CELLS, Case, blanked, cut_texts
from .model import MustiOutput


@dataclass(frozen=True)
class Alteration:
    """struck: indices of words; blanked: (row, column) of cells of an 8 x 8 grid over the picture; gate_open: False reads the passage without
    the picture; without: names of branches that do not vote."""

    struck: Collection[int] = field(default_factory=tuple)
    blanked: Collection[tuple[int, int]] = field(default_factory=tuple)
    gate_open: bool = True
    without: Collection[str] = field(default_factory=tuple)

    @property
    def changes(self) -> bool:
        """Whether anything is altered at all."""
        return bool(self.struck or self.blanked or self.without or not self.gate_open)


@torch.no_grad()
def altered_logit(case: Case, alteration: Alteration) -> float:
    """Logit of the altered pair, before temperature. The branches that still vote get the weight of those that do not, each in proportion to
    its own, so that a branch left out does not by itself turn the answer towards NO.

    Raises: InputError when nothing is left to answer about, or for a word, cell or branch that is not there.
    """
    names = list(case.model.branches)
    unknown = sorted(set(alteration.without) - set(names))
    if unknown:
        raise InputError("There is no branch {name!r}; there are {names}.", name=unknown[0], names=", ".join(names))
    if not all(0 <= w < len(case.words) for w in alteration.struck):
        raise InputError("The passage has {count} words that were read; count them from 0.", count=len(case.words))
    if not all(0 <= n < CELLS for cell in alteration.blanked for n in cell):
        raise InputError("A cell is a row and a column from 0 to {last}.", last=CELLS - 1)
    kept = [n not in alteration.without for n in names]
    if not any(kept):
        raise InputError("At least one branch has to vote; leave one in.")
    struck = {p for w in alteration.struck for p in case.words[w]}
    if alteration.struck and len(set(alteration.struck)) == len(case.words):
        raise InputError("All words are struck out; leave at least one.")
    ids, mask = cut_texts(case, [[p for p in range(case.length) if p not in struck]])
    images = case.images
    if alteration.blanked:
        shown = torch.ones(1, CELLS, CELLS, dtype=torch.bool)
        rows, columns = np.array(sorted(alteration.blanked)).T
        shown[0, rows, columns] = False
        images = {n: blanked(x, shown) for n, x in images.items()}
    output = case.model.match(case.model.encode_images(images), ids, mask, gate_open=alteration.gate_open)
    return _vote_of(output, case.model.vote_slopes(), torch.tensor(kept, device=output.votes.device))


def _vote_of(output: MustiOutput, slopes: Tensor, kept: Tensor) -> float:
    votes, slopes = output.votes[0].float(), slopes.float().abs()
    weight = slopes.sum() / slopes[kept].sum().clamp(min=1e-12)
    return float(votes[kept].sum() * weight + output.vote_bias)
