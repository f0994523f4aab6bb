"""Subtask 2: which smell objects picture and passage share, from the words that carry the match and a multilingual vocabulary.

Candidates are the vocabulary's names that stand in the passage. Each is struck out; one whose absence lowers the logit carries the match.
"""

import csv
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from musti_model import MustiPipeline
from musti_model.errors import InputError
from musti_model.processing import Passages
from musti_model.question import Picture

from .data import MustiPair
from .starter.lexicon import FOLDER, LANGUAGES, WORD, Lexicon, Mention, Name, fold

SHARE = 0.5  # of the largest drop, from which a name counts too
LEAST = 0.25  # drop of the calibrated logit from which a name carries anything at all


@dataclass(frozen=True)
class Carrier:
    """A candidate: name in the passage's language, object (the vocabulary's own id), drop: how much the logit falls without it."""

    name: str
    object: str
    drop: float


class Vocabulary:
    """Names of smell objects by language.

    Without a folder: this project's own lexicon (52 objects, inflected). With one: ``*-<language>.csv`` in the form of Odeuropa's
    vocabularies, columns ID, LABEL <language>, SYNONYMS (names with commas or semicolons between them); the ID ties the languages together.

    Raises: InputError for a folder without such files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.languages = {tag: _lexicon(tag) for tag in LANGUAGES} if folder is None else _from_csv(folder)
        if not self.languages:
            raise InputError(f"{folder} holds no vocabulary; it should hold files such as olfactory-objects-en.csv.")

    def find(self, text: str, language: str, doubtful: bool = False) -> list[Mention]:
        """Names in a text; of an unknown language, those of any language. Doubtful ones are left out unless they are asked for."""
        chosen = [self.languages[language]] if language in self.languages else list(self.languages.values())
        return [m for lexicon in chosen for m in lexicon.find(text) if m.sure or doubtful]

    def objects_of(self, label: str, language: str) -> set[str]:
        """The objects that a label can mean, in its language first, else in any; empty when it is not in the vocabulary."""
        ordered = [self.languages[language]] if language in self.languages else []
        for lexicon in [*ordered, *self.languages.values()]:
            found = {m.object for m in lexicon.find(label) if m.start == 0 and m.end == len(label)}
            if found:
                return found
        return set()

    def name(self, object: str, language: str) -> str:
        """The plain name of an object in a language (singular), as MUSTI writes labels."""
        for lexicon in [self.languages.get(language), *self.languages.values()]:
            names = lexicon.names.get(object, []) if lexicon else []
            if names:
                return next(iter(names[0].forms.values())).lower()
        return object


def _lexicon(tag: str) -> Lexicon:
    return Lexicon(tag, tuple(json.loads((FOLDER / f"{tag}.json").read_text(encoding="utf-8"))), words="all")


def _from_csv(folder: Path) -> dict[str, Lexicon]:
    result = {}
    for path in sorted(folder.glob("*-[a-z][a-z].csv")):
        tag = path.stem[-2:]
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        names: dict[str, list[Name]] = {}
        for row in rows:
            label = next((row[k] for k in (f"LABEL {tag}", "LABEL") if row.get(k)), "")
            written = ",".join([label, row.get("SYNONYMS") or ""]).replace(";", ",").split(",")
            forms = [unicodedata.normalize("NFC", n.strip()) for n in written]
            for form in forms:
                if form and row.get("ID"):
                    names.setdefault(row["ID"].strip(), []).append(Name(row["ID"].strip(), _inflected(form, tag)))
        if names:
            result[tag] = Lexicon.of(tag, names)
    return result


def _inflected(form: str, language: str) -> dict[str, str]:
    """A name and its regular plural: crude, but a passage seldom has the dictionary's form. Slovenian is left as it is."""
    plural = {"en": form + ("es" if form.endswith(("s", "x", "ch", "sh")) else "s"), "fr": form + "s"}.get(language)
    if language == "it" and form[-1:] in "aeo":
        plural = form[:-1] + {"a": "e", "e": "i", "o": "i"}[form[-1]]
    forms = {"sg": form, "pl": plural}
    if language == "de":
        forms |= {"pl": form + "e", "pl2": form + "n", "pl3": form + "en", "gen": form + "s"}
    return {k: v for k, v in forms.items() if v}


def carriers(pipe: MustiPipeline, image: Picture, text: str, language: str, vocabulary: Vocabulary) -> list[Carrier]:
    """The vocabulary's names in a passage by how much of the match they carry, most first; the picture is encoded once. Raises InputError."""
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


SHOWN, OTHER, NOTHING, LEFT_OUT = 1, 0, 2, -100  # what a wordpiece names, for ``training.losses.gate_loss``


def gate_labels(passages: Passages, pairs: Sequence[MustiPair], vocabulary: Vocabulary) -> Tensor:
    """What each wordpiece of the passages names, as the gate's own loss takes it: int64 [B, T].

    Of a pair that is a YES, names of its shared objects (``subtask2_labels``) are SHOWN, others OTHER; of a NO all names are OTHER; words that are no name
    are NOTHING. LEFT_OUT are special tokens, padding, doubtful names, and all of a pair of which nobody knows where its shared object stands: a YES
    whose shared objects the vocabulary does not find in the passage, and a pair without a label.
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
