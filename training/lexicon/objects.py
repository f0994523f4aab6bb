"""Subtask 2: which smell objects picture and passage share, from the words that carry the match and a multilingual
vocabulary.

Candidates are the vocabulary's names that stand in the passage. Each is struck out; one whose absence lowers the logit
carries the match.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from musti_model import MustiPipeline
from musti_model.processing import Passages
from musti_model.question import Picture
from musti_model.records import MustiPair

from .naming import WORD, Mention, fold
from .vocabulary import Vocabulary

SHARE = 0.5  # of the largest drop, from which a name counts too
LEAST = 0.25  # drop of the calibrated logit from which a name carries anything at all


@dataclass(frozen=True)
class Carrier:
    """A candidate: name in the passage's language, object (the vocabulary's own id), drop: how much the logit falls
    without it."""

    name: str
    object: str
    drop: float


def carriers(pipe: MustiPipeline, image: Picture, text: str, language: str, vocabulary: Vocabulary) -> list[Carrier]:
    """The vocabulary's names in a passage by how much of the match they carry, most first; the picture is encoded once.
    Raises InputError."""
    text = unicodedata.normalize("NFC", text)  # as the vocabulary's names are
    mentions = vocabulary.find(text, language)
    objects = list(dict.fromkeys(m.object for m in mentions))
    struck = [_without(text, [m for m in mentions if m.object == o]) for o in objects]
    possible = [i for i, t in enumerate(struck) if WORD.search(t)]
    if not possible:  # no name, or nothing but names
        return [Carrier(vocabulary.name(o, language), o, LEAST) for o in objects]
    logits = {
        index: p.logit / pipe.config.temperature
        for index, p in pipe.rank(image, [text, *(struck[i] for i in possible)])
    }
    found = [
        Carrier(vocabulary.name(objects[i], language), objects[i], logits[0] - logits[k])
        for k, i in enumerate(possible, start=1)
    ]
    return sorted(found, key=lambda c: -c.drop)


def shared_objects(pipe: MustiPipeline, image: Picture, text: str, language: str, vocabulary: Vocabulary) -> list[str]:
    """Names of the shared objects of a pair that is a YES: those without which the logit falls by at least LEAST and by
    SHARE of the largest fall. May be empty."""
    found = carriers(pipe, image, text, language, vocabulary)
    return [c.name for c in found if c.drop >= max(LEAST, SHARE * found[0].drop)]


SHOWN, OTHER, NOTHING, LEFT_OUT = 1, 0, 2, -100  # what a wordpiece names, for ``training.loop.losses.gate_loss``


def gate_labels(passages: Passages, pairs: Sequence[MustiPair], vocabulary: Vocabulary) -> Tensor:
    """What each wordpiece of the passages names, as the gate's own loss takes it: int64 [B, T].

    Of a pair that is a YES, names of its shared objects (``subtask2_labels``) are SHOWN, others OTHER; of a NO all
    names are OTHER; words that are no name are NOTHING. LEFT_OUT are special tokens, padding, doubtful names, and all
    of a pair of which nobody knows where its shared object stands: a YES whose shared objects the vocabulary does not
    find in the passage, and a pair without a label.
    """
    labels = torch.full(passages.input_ids.shape, LEFT_OUT)
    for row, text, words, pair in zip(labels, passages.texts, passages.words, pairs, strict=True):
        shared = {o for name in pair.objects for o in vocabulary.objects_of(name, pair.language)}
        mentions = vocabulary.find(text, pair.language, doubtful=True)
        if pair.label is None or (pair.label == 1 and not any(m.object in shared and m.sure for m in mentions)):
            continue
        for word in words:
            inside = [m for m in mentions if m.start < word.end and m.end > word.start]
            row[list(word.pieces)] = _kind(inside, shared if pair.label else set())
    return labels


def _kind(mentions: list[Mention], shown: set[str]) -> int:
    if not mentions:
        return NOTHING
    if not all(m.sure for m in mentions):
        return LEFT_OUT
    return SHOWN if any(m.object in shown for m in mentions) else OTHER


def _without(text: str, mentions: Iterable[Mention]) -> str:
    for m in sorted(mentions, key=lambda m: -m.start):
        text = text[: m.start] + text[m.end :]
    return text


def object_scores(
    gold: Sequence[Sequence[str]], guess: Sequence[Sequence[str]], languages: Sequence[str], vocabulary: Vocabulary
) -> dict[str, float]:
    """Precision, recall and F1 of labels over all pairs together; two labels are one when the vocabulary has them for
    one object.

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
