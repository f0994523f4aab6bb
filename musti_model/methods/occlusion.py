"""Words by occlusion: each struck out of the passage, and each read alone."""

import torch
from torch import Tensor

from ..question import Question
from .contract import Method, by_branch
from .perturb import sparing, votes_of_texts

SINGLY = 40  # words up to which each is struck out by itself
CHOSEN = 12  # of a longer passage, those that are struck out one by one
TOGETHER = 16  # the others so many at a time


def run(question: Question) -> dict[str, Tensor]:
    """The mean of what a word's absence takes from the vote and what its presence adds to a passage without words. The
    second half keeps a name that stands twice from hiding itself. -> {branch: [words]}, logit units.

    Where alterations are to be ``sparing``, of a passage with more than SINGLY words the CHOSEN that count most
    (``by_weight``) are struck out one by one, the others TOGETHER, those of like weight; what their absence takes is
    measured, but not whose it is, and shared out evenly among them. What each adds alone is always measured.
    """
    everything, rest, count = list(range(question.length)), question.rest, len(question.pieces)
    alone = votes_of_texts(question, [rest, *(sorted({*rest, *pieces}) for pieces in question.pieces)])
    present = alone[1:] - alone[:1]
    groups = (
        groups_of(by_weight(question, present))
        if count > SINGLY and sparing(question.model)
        else [[w] for w in range(count)]
    )
    struck = [{p for w in group for p in question.pieces[w]} for group in groups]
    votes = votes_of_texts(question, [everything, *([p for p in everything if p not in gone] for gone in struck)])
    absent = torch.zeros_like(present)
    for group, taken in zip(groups, votes[:1] - votes[1:], strict=True):
        absent[group] = taken / len(group)
    return by_branch(question, (absent + present) / 2)


def by_weight(question: Question, present: Tensor) -> list[int]:
    """Words by how much they may count: first, half of the CHOSEN, those at which the gate opens most (where it opens
    word by word), then those that add most to any branch's vote alone. present: [words, branches]."""
    widest: list[int] = []
    fusion = question.model.fusion
    if fusion.by_word:
        with torch.no_grad():
            opening = torch.stack(
                [fusion.meet(image, question.read).opening[0] for image in question.encoded.values()]
            ).amax(0)
        opened = torch.stack([opening[list(pieces)].max() for pieces in question.pieces])
        widest = opened.argsort(descending=True)[: CHOSEN // 2].tolist()
    strongest = present.abs().amax(1).argsort(descending=True).tolist()
    return list(dict.fromkeys([*widest, *strongest]))


def groups_of(order: list[int]) -> list[list[int]]:
    """Words by weight -> the first CHOSEN each by itself, the others TOGETHER."""
    return [[w] for w in order[:CHOSEN]] + [order[at : at + TOGETHER] for at in range(CHOSEN, len(order), TOGETHER)]


OCCLUSION = Method("occlusion", "words", "many passes", "logit", True, run)
