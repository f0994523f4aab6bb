"""Words by occlusion: each struck out of the passage, and each read alone."""

import torch
from torch import Tensor

from ..question import Question
from .contract import Method, by_branch
from .perturb import votes_of_texts

SINGLY = 40  # words up to which each is struck out by itself
CHOSEN = 24  # of a longer passage, those that are struck out one by one
TOGETHER = 6  # the others at most so many neighbours at a time


def run(question: Question) -> dict[str, Tensor]:
    """The mean of what a word's absence takes from the vote and what its presence adds to a passage without words. The second half keeps a name that
    stands twice from hiding itself. -> {branch: [words]}, logit units.

    Of a passage with more than SINGLY words, the CHOSEN (``can_matter``) are struck out one by one; neighbours of the others together, and what their
    absence takes is shared out evenly among them: it is measured, but not whose it is. What each adds alone is always measured.
    """
    everything, rest, count = list(range(question.length)), question.rest, len(question.pieces)
    alone = votes_of_texts(question, [rest, *(sorted({*rest, *pieces}) for pieces in question.pieces)])
    present = alone[1:] - alone[:1]
    groups = groups_of(count, can_matter(question, present) if count > SINGLY else range(count))
    struck = [{p for w in group for p in question.pieces[w]} for group in groups]
    votes = votes_of_texts(question, [everything, *([p for p in everything if p not in gone] for gone in struck)])
    absent = torch.zeros_like(present)
    for group, taken in zip(groups, votes[:1] - votes[1:], strict=True):
        absent[group] = taken / len(group)
    return by_branch(question, (absent + present) / 2)


def can_matter(question: Question, present: Tensor) -> set[int]:
    """Words of a long passage whose absence is measured one by one: half of them those at which the gate opens most (where it opens word by word), the
    others those that add most to any branch's vote alone. present: [words, branches]."""
    chosen: list[int] = []
    fusion = question.model.fusion
    if fusion.by_word:
        with torch.no_grad():
            opening = torch.stack([fusion.meet(image, question.read).opening[0] for image in question.encoded.values()]).amax(0)
        widest = torch.stack([opening[list(pieces)].max() for pieces in question.pieces])
        chosen = widest.argsort(descending=True)[: CHOSEN // 2].tolist()
    strongest = present.abs().amax(1).argsort(descending=True).tolist()
    return set(list(dict.fromkeys([*chosen, *strongest]))[:CHOSEN])


def groups_of(count: int, singly: set[int] | range) -> list[list[int]]:
    """Words 0 .. count - 1 in groups: each of ``singly`` by itself, runs of neighbours between them in parts of TOGETHER at most."""
    groups: list[list[int]] = []
    for word in range(count):
        follows = bool(groups) and word - 1 not in singly and len(groups[-1]) < TOGETHER
        if word in singly or not follows:
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


OCCLUSION = Method("occlusion", "words", "many passes", "logit", True, run)
