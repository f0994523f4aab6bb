"""Train, dev and test without leaks: pairs that share a picture or a passage stay together.

MUSTI shows 600 pictures in 2,400 pairs and repeats passages too, so a random split tests a model on what it was trained
on. Here a fold takes whole components: pairs tied to each other by a shared picture or passage, directly or over
others. Where one component is most of a file, ``cut`` divides it and leaves out the few pairs that would tie two folds.
"""

import hashlib
import json
import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from musti_model.errors import InputError
from musti_model.records import MustiPair, language_tag

from .ties import tied

LEFT_OUT = "left_out"  # the part that is no part: pairs that would tie two parts
NO_FOLD = -1  # the fold number of a pair that is left out
ROUNDS = 20  # over all pictures when a component is cut; it settles after about ten
EVENNESS = 0.5  # how many kept pairs an even distribution over folds is worth when cutting, see _spread
LABEL_NAMES = {1: "YES", 0: "NO", None: "unlabelled"}

Stratum = tuple[str, int | None]  # language, label


def picture_key(pair: MustiPair) -> str:
    """The same for pairs that show one picture; before ``recognise`` has looked, it goes by the image's address or path
    alone."""
    return pair.picture or pair.image


def passage_key(pair: MustiPair) -> str:
    """The same passage in other white space, capitals or Unicode forms is the same passage."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", pair.text).casefold())
    return " ".join(text.split())


def components(pairs: Sequence[MustiPair]) -> list[int]:
    """The component of each pair, numbered from 0 in the order of their first pairs."""
    return tied([(("picture", picture_key(pair)), ("passage", passage_key(pair))) for pair in pairs])


class _Spread:
    """How evenly each (language, label) lies over k folds so far."""

    def __init__(self, pairs: Sequence[MustiPair], k: int) -> None:
        self._aim = {s: n / k for s, n in _strata(pairs).items()}
        self._all = len(pairs) / k
        self.counts: list[Counter[Stratum]] = [Counter() for _ in range(k)]

    def add(self, fold: int, strata: Counter[Stratum], sign: int = 1) -> None:
        for stratum, n in strata.items():
            self.counts[fold][stratum] += sign * n

    def cost(self, fold: int, strata: Counter[Stratum]) -> float:
        """What adding ``strata`` to ``fold`` changes in the sum of (count - aim)^2 / aim over strata and the fold as a
        whole; it is lower where more is missing."""
        have, size = self.counts[fold], strata.total()
        change = sum(n * (2 * (have[s] - self._aim[s]) + n) / self._aim[s] for s, n in strata.items())
        return change + size * (2 * (have.total() - self._all) + size) / self._all


def _strata(pairs: Iterable[MustiPair]) -> Counter[Stratum]:
    return Counter((p.language, p.label) for p in pairs)


def folds(pairs: Sequence[MustiPair], k: int, seed: int = 0) -> list[int]:
    """The fold, 0 to k - 1, of each pair: whole components, the biggest first, each where its languages and labels are
    missed most.

    A component that is bigger than a fold should be fills the last fold: so the first splits have it in train (see
    ``split``); ``notices`` tells of it. The same pairs, k and seed give the same folds.

    Raises: InputError for k below 2 or more folds than components.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for i, number in enumerate(components(pairs)):
        groups[number].append(i)
    _check_k(k, len(groups), "components")
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    order.sort(key=len, reverse=True)
    spread, result = _Spread(pairs, k), [NO_FOLD] * len(pairs)
    for members in order:  # an empty fold misses most, so none stays empty
        strata = _strata(pairs[i] for i in members)
        fold = min(range(k), key=lambda f: (round(spread.cost(f, strata), 9), -f))
        spread.add(fold, strata)
        for i in members:
            result[i] = fold
    return result


def _check_k(k: int, groups: int, words: str) -> None:
    if k < 2:
        raise InputError(f"{k} folds are no split; choose 2 or more.")
    if k > groups:
        raise InputError(
            f"The file has {groups} {words} without anything shared, too few for {k} folds; choose fewer folds."
        )


def cut_folds(pairs: Sequence[MustiPair], k: int, seed: int = 0) -> list[int]:
    """As ``folds``, but components are divided: each picture and each passage gets a fold, and a pair whose picture and
    passage lie in different folds is left out (-1).

    Pictures move, one at a time, to where they keep most pairs and even out languages and labels; a passage lies where
    most of its pictures do.

    Raises: InputError for k below 2 or more folds than pictures.
    """
    texts = [passage_key(p) for p in pairs]
    pictures: dict[str, list[int]] = defaultdict(list)
    for i, pair in enumerate(pairs):
        pictures[picture_key(pair)].append(i)
    _check_k(k, len(pictures), "pictures")
    rng, spread = random.Random(seed), _Spread(pairs, k)
    fold_of: dict[str, int] = {}
    votes: dict[str, list[int]] = {t: [0] * k for t in texts}  # pairs of a passage whose picture lies in each fold
    order = sorted(pictures)
    rng.shuffle(order)
    order.sort(key=lambda picture: -len(pictures[picture]))
    for _ in range(ROUNDS):
        moved = False
        for picture in order:
            members = pictures[picture]
            strata, passages = _strata(pairs[i] for i in members), Counter(texts[i] for i in members)
            old = fold_of.get(picture)
            if old is not None:
                _place(old, strata, passages, spread, votes, -1)
            scores = [_kept(f, passages, votes) - EVENNESS * spread.cost(f, strata) for f in range(k)]
            new = max(range(k), key=lambda f: (round(scores[f], 9), f == old, -f))
            _place(new, strata, passages, spread, votes, 1)
            fold_of[picture], moved = new, moved or new != old
        if not moved:
            break
        rng.shuffle(order)
    home = {t: max(range(k), key=lambda f: (v[f], -f)) for t, v in votes.items()}
    return [f if (f := fold_of[picture_key(p)]) == home[t] else NO_FOLD for p, t in zip(pairs, texts)]


def _place(
    fold: int, strata: Counter[Stratum], passages: Counter[str], spread: _Spread, votes: dict[str, list[int]], sign: int
) -> None:
    spread.add(fold, strata, sign)
    for text, n in passages.items():
        votes[text][fold] += sign * n


def _kept(fold: int, passages: Counter[str], votes: dict[str, list[int]]) -> int:
    """How many more pairs are kept when a picture with these passages comes to ``fold``."""
    return sum(max(*votes[t], votes[t][fold] + n) - max(votes[t]) for t, n in passages.items())


def parts_of(numbers: Sequence[int], k: int, fold: int) -> dict[str, list[int]]:
    """Fold numbers -> the pairs (by index) of "train", "dev" and "test": test is ``fold``, dev the next one around,
    train the rest.

    Raises: InputError for k below 3 or a fold that is not 0 to k - 1.
    """
    if k < 3:
        raise InputError(f"Train, dev and test need 3 folds or more, not {k}.")
    if not 0 <= fold < k:
        raise InputError(f"There is no fold {fold}; choose 0 to {k - 1}.")
    names = {NO_FOLD: LEFT_OUT, fold: "test", (fold + 1) % k: "dev"}
    parts: dict[str, list[int]] = {"train": [], "dev": [], "test": []}
    for i, number in enumerate(numbers):
        parts.setdefault(names.get(number, "train"), []).append(i)
    return parts


def split(pairs: Sequence[MustiPair], k: int, fold: int, seed: int = 0, cut: bool = False) -> dict[str, list[int]]:
    """The pairs (by index) of "train", "dev" and "test"; with ``cut`` also of "left_out", when there are any. Raises
    InputError."""
    return parts_of((cut_folds if cut else folds)(pairs, k, seed), k, fold)


def leave_language_out(pairs: Sequence[MustiPair], language: str, seed: int = 0, k: int = 10) -> dict[str, list[int]]:
    """Test: all pairs of ``language``; dev: about one of ``k`` parts of the others, train: the rest; nothing shared
    between them.

    Pairs of other languages with a picture or passage of the test pairs are neither trained nor chosen on: they are in
    "left_out".

    Raises: InputError when no pair has the language, or too few others are left for train and dev.
    """
    tag = language_tag(language)
    test = [i for i, p in enumerate(pairs) if p.language == tag]
    if not test:
        known = ", ".join(sorted({p.language for p in pairs}))
        raise InputError(f"No pair is in the language {language!r}; the file has {known or 'none'}.")
    pictures, passages = {picture_key(pairs[i]) for i in test}, {passage_key(pairs[i]) for i in test}
    parts: dict[str, list[int]] = {"train": [], "dev": [], "test": test, LEFT_OUT: []}
    others: list[int] = []
    for i, pair in enumerate(pairs):
        if pair.language != tag:
            shared = picture_key(pair) in pictures or passage_key(pair) in passages
            (parts[LEFT_OUT] if shared else others).append(i)
    rest = [pairs[i] for i in others]
    count = len(set(components(rest)))
    if count < 2:
        raise InputError(
            f"Without {language!r} and what shares its pictures and passages, too few pairs are left to train on."
        )
    numbers = folds(rest, k := min(k, count), seed)
    sizes, dev = Counter(numbers), 1
    # where the last fold is big, the others are small
    while dev < k - 1 and sum(sizes[f] for f in range(dev)) < 0.9 * len(rest) / k:
        dev += 1
    for i, number in zip(others, numbers):
        parts["dev" if number < dev else "train"].append(i)
    return parts


def leaks(pairs: Sequence[MustiPair], parts: dict[str, list[int]]) -> int:
    """How many pairs share their picture or passage with a pair of another part; those left out count on no side."""
    parts = {name: members for name, members in parts.items() if name != LEFT_OUT}
    where: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name, members in parts.items():
        for i in members:
            where["picture", picture_key(pairs[i])].add(name)
            where["passage", passage_key(pairs[i])].add(name)
    return sum(
        len(where["picture", picture_key(pairs[i])]) > 1 or len(where["passage", passage_key(pairs[i])]) > 1
        for members in parts.values()
        for i in members
    )


def split_fingerprint(pairs: Sequence[MustiPair], numbers: Sequence[int]) -> str:
    """16 hex digits of the ids and their folds, whatever their order."""
    rows = sorted(json.dumps([p.id, n]) for p, n in zip(pairs, numbers, strict=True))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def counts(pairs: Sequence[MustiPair], numbers: Sequence[int]) -> dict[str, dict[str, dict[str, int]]]:
    """{fold or "left_out": {language: {"YES" | "NO" | "unlabelled": pairs}}}, without zeros."""
    result: dict[str, dict[str, dict[str, int]]] = {}
    rows = Counter((n, p.language, LABEL_NAMES[p.label]) for p, n in zip(pairs, numbers, strict=True))
    for (number, language, label), n in sorted(rows.items()):
        fold = LEFT_OUT if number == NO_FOLD else str(number)
        result.setdefault(fold, {}).setdefault(language, {})[label] = n
    return result


def notices(pairs: Sequence[MustiPair], numbers: Sequence[int], k: int) -> list[str]:
    """Sentences on what a reader of the folds must know: components too big for a fold, pairs left out, languages that
    a fold lacks."""
    said, fair = [], len(pairs) / k
    left_out = sum(n == NO_FOLD for n in numbers)
    if left_out:
        said.append(f"{left_out} of {len(pairs)} pairs would tie two folds and are left out.")
    else:
        of = components(pairs)
        for number, size in Counter(of).most_common():
            if size > fair:
                fold = numbers[of.index(number)]
                said.append(
                    f"{size} of {len(pairs)} pairs hang together, more than a fold should hold ({fair:.0f}): all "
                    f"are in fold {fold}, which makes fold {fold} a big test part and fold {(fold - 1) % k} a split "
                    "with a big dev part; dividing them (--cut) leaves out some pairs."
                )
    table = counts(pairs, numbers)
    for language, whole in sorted(Counter(p.language for p in pairs).items()):
        few = [f for f in range(k) if sum(table.get(str(f), {}).get(language, {}).values()) < whole / k / 4]
        if few:
            said.append(
                f"Of {language}, fold {', '.join(map(str, few))} has less than a quarter of its even share "
                f"({whole / k:.0f} pairs)."
            )
    return said


def draw_table(table: dict[str, dict[str, dict[str, int]]]) -> str:
    """Languages down, folds across, "YES / NO" in the cells (and unlabelled pairs, where there are any, after a third
    stroke)."""
    languages = sorted({language for row in table.values() for language in row})
    labels = [
        n
        for n in LABEL_NAMES.values()
        if n != "unlabelled" or any(n in c for row in table.values() for c in row.values())
    ]
    heads = ["left out" if fold == LEFT_OUT else f"fold {fold}" for fold in table]
    lines = [["YES / NO" if len(labels) == 2 else "YES / NO / unlabelled", *heads]]
    for language in languages:
        cells = [row.get(language, {}) for row in table.values()]
        lines.append([language, *(" / ".join(str(c.get(n, 0)) for n in labels) for c in cells)])
    lines.append(["pairs", *(str(sum(n for c in row.values() for n in c.values())) for row in table.values())])
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths)) for line in lines)
