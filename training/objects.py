"""Subtask 2: which smell objects picture and passage share, from the words that carry the match and a multilingual vocabulary.

Candidates are the vocabulary's names that stand in the passage. Each is struck out; one whose absence lowers the logit carries the match.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from musti_model import MustiPipeline
from musti_model.pipeline import Picture

from .starter.lexicon import WORD, Mention, fold
from .vocabulary import Vocabulary

SHARE = 0.5  # of the largest drop, from which a name counts too
LEAST = 0.25  # drop of the calibrated logit from which a name carries anything at all


@dataclass(frozen=True)
class Carrier:
    """A candidate: name in the passage's language, object (the vocabulary's own id), drop: how much the logit falls without it."""

    name: str
    object: str
    drop: float


def carriers(pipe: MustiPipeline, image: Picture, text: str, language: str, vocabulary: Vocabulary) -> list[Carrier]:
    """The vocabulary's names in a passage by how much of the match they carry, most first; the picture is encoded once. Raises InputError."""
    text = unicodedata.normalize("NFC", text)  # as the vocabulary's names are
    mentions = vocabulary.find(text, language)
    objects = list(dict.fromkeys(m.object for m in mentions))
    struck = [_without(text, [m for m in mentions if m.object == o]) for o in objects]
    possible = [i for i, t in enumerate(struck) if WORD.search(t)]
    if not possible:  # no name, or nothing but names
        return [Carrier(vocabulary.name(o, language), o, LEAST) for o in objects]
    logits = {index: p.logit / pipe.config.temperature for index, p in pipe.rank(image, [text, *(struck[i] for i in possible)])}
    found = [Carrier(vocabulary.name(objects[i], language), objects[i], logits[0] - logits[k]) for k, i in enumerate(possible, start=1)]
    return sorted(found, key=lambda c: -c.drop)


def shared_objects(pipe: MustiPipeline, image: Picture, text: str, language: str, vocabulary: Vocabulary) -> list[str]:
    """Names of the shared objects of a pair that is a YES: those without which the logit falls by at least LEAST and by SHARE of the largest
    fall. May be empty."""
    found = carriers(pipe, image, text, language, vocabulary)
    return [c.name for c in found if c.drop >= max(LEAST, SHARE * found[0].drop)]


def _without(text: str, mentions: Iterable[Mention]) -> str:
    for m in sorted(mentions, key=lambda m: -m.start):
        text = text[: m.start] + text[m.end :]
    return text


def object_scores(gold: Sequence[Sequence[str]], guess: Sequence[Sequence[str]], languages: Sequence[str], vocabulary: Vocabulary) -> dict[str, float]:
    """Precision, recall and F1 of labels over all pairs together; two labels are one when the vocabulary has them for one object.

    "known": share of the gold labels that the vocabulary knows, the highest recall it allows.
    """
    hits = given = wanted = known = 0
    for true, said, language in zip(gold, guess, languages, strict=True):
        truth = [_keys(label, language, vocabulary) for label in true]
        claims = [_keys(label, language, vocabulary) for label in said]
        hits += sum(any(t & c for c in claims) for t in truth)
        known += sum(not any(k.startswith("word:") for k in t) for t in truth)
        wanted, given = wanted + len(truth), given + len(claims)
    right = sum(
        any(_keys(c, language, vocabulary) & _keys(t, language, vocabulary) for t in true)
        for true, said, language in zip(gold, guess, languages, strict=True)
        for c in said
    )
    precision, recall = right / max(given, 1), hits / max(wanted, 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-12)
    return {"precision": precision, "recall": recall, "f1": f1, "known": known / max(wanted, 1)}


def _keys(label: str, language: str, vocabulary: Vocabulary) -> set[str]:
    return vocabulary.objects_of(label, language) or {"word:" + fold(label).strip()}
