"""Evaluation pairs without a shortcut, and batches of training pairs.

Every picture and every passage of a set stands in one YES and three NO pairs, so neither side alone tells the answer
(25 % YES, as in MUSTI).
"""

from dataclasses import dataclass

import numpy as np

from .passages import Passage
from .pictures import Pictures

NO_PER_YES = 3


@dataclass(frozen=True)
class Pair:
    """picture: row in Pictures; passage: row in the list of passages; label: 1 YES, 0 NO; object: what the picture
    shows; source: the picture's, e.g. "pacs-art"."""

    picture: int
    passage: int
    label: int
    object: str
    source: str = ""


def balanced_pairs(
    pictures: Pictures, passages: list[Passage], seed: int, cap: int = 40, rounds: int = 3
) -> list[Pair]:
    """Draws pairs so that, by construction, the picture alone and the passage alone score at chance.

    Args:
        cap: at most this many YES pairs an object, or the common ones (person) would drown the rest.
        rounds: how often a passage may be used with another of its objects or pictures.
    """
    rng = np.random.default_rng(seed)
    by_object = {o: np.flatnonzero(pictures.labels == k) for k, o in enumerate(pictures.objects)}
    used: dict[str, int] = dict.fromkeys(pictures.objects, 0)
    yes: list[tuple[int, int]] = []  # (passage, picture)
    for _ in range(rounds):
        for row in rng.permutation(len(passages)):
            options = [o for o in sorted(passages[row].named) if used[o] < cap and len(by_object[o])]
            if options:
                name = min(options, key=lambda o: (used[o], o))
                yes.append((int(row), int(rng.choice(by_object[name]))))
                used[name] += 1
    pairs = [pair_of(pictures, t, p, 1) for t, p in yes]
    for _ in range(NO_PER_YES):
        pairs += [pair_of(pictures, t, p, 0) for t, p in shuffle_apart(yes, pictures, passages, rng)]
    return pairs


def pair_of(pictures: Pictures, passage: int, picture: int, label: int) -> Pair:
    """The pair with what the picture shows and where it is from."""
    return Pair(picture, passage, label, pictures.objects[pictures.labels[picture]], str(pictures.sources[picture]))


def shuffle_apart(
    yes: list[tuple[int, int]], pictures: Pictures, passages: list[Passage], rng: np.random.Generator
) -> list[tuple[int, int]]:
    """The same passages with the same pictures in another order, such that no passage may name its picture's object."""
    order = rng.permutation(len(yes))

    def clash(i: int, j: int) -> bool:
        return pictures.objects[pictures.labels[yes[j][1]]] in passages[yes[i][0]].touched

    for _ in range(60):
        bad = [i for i in range(len(yes)) if clash(i, order[i])]
        if not bad:
            break
        for i in bad:
            k = int(rng.integers(len(yes)))
            if not clash(i, order[k]) and not clash(k, order[i]):
                order[i], order[k] = order[k], order[i]
    return [(yes[i][0], yes[order[i]][1]) for i in range(len(yes)) if not clash(i, order[i])]
