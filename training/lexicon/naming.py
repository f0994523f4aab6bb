"""How objects are named, by language: finding names in passages, and swapping one object's name for another's.

The tables are ``<language>.json`` beside this file: {object: [{"gender", "forms": {inflection tag: form}, "ambiguous"?,
"old"?, "kind"?}, ...]}. ``held_out.json`` lists, by language and object, forms that training never sees, so that one
can tell afterwards what the text encoder knew by itself; in Dutch ("nl") all are held out.
"""

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np

FOLDER = Path(__file__).parent
LANGUAGES = ("en", "de", "fr", "it", "sl")
RARE = 0.25  # weight of an old spelling or a kind ("mastiff" for dog) beside a plain name, when a name is drawn
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?", re.UNICODE)
# A form that is often another word counts as a name only after one of these.
DETERMINERS = {
    "en": "a an the this that of with his her my your their our some any no every each two three",
    "de": "der die das den dem des ein eine einen einem einer eines kein keine mein sein ihr dieser diese von mit und",
    "fr": "le la les un une des du de ce cet cette ces son sa ses mon ma mes leur leurs au aux",
    "it": "il lo la i gli le un uno una del dello della dei degli delle al alla ai alle di questo questa suo sua con",
    "sl": "ta to te ti tega te svoj svojo moj njegov z s iz od na",
    "nl": "de het een den der des dit dat deze die zijn haar mijn ons onze uw hun geen elke ieder met van",
}
_ELISION = re.compile(r"^(?:[ldcjmtsnLDCJMTSN]|qu|dell|all|nell|sull|dall|un|Dell|All|Un)['’](?=\w)")


@dataclass(frozen=True)
class Name:
    """One name of an object: its inflected forms by tag. rare: an old spelling or one kind of the object, drawn less
    often."""

    object: str
    forms: dict[str, str]
    gender: str = ""
    ambiguous: bool = False
    rare: bool = False


@dataclass(frozen=True)
class Mention:
    """A name found in a text, characters [start, end); sure is False for an ambiguous form without a determiner."""

    start: int
    end: int
    object: str
    tag: str
    gender: str
    sure: bool = True


def fold(text: str) -> str:
    """Case and long s folded, length kept where case folding keeps it."""
    return text.replace("ſ", "s").replace("’", "'").lower()


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end, without an elided article: of "l'église", "église"."""
    spans = []
    for match in WORD.finditer(text):
        cut = _ELISION.match(match.group())
        spans.append((match.start() + (cut.end() if cut else 0), match.end()))
    return spans


def held_out_forms(language: str, folder: Path = FOLDER) -> dict[str, str]:
    """Forms that training never sees, as they are looked up (folded) -> object. Empty for a folder that holds none
    out."""
    path = folder / "held_out.json"
    table = json.loads(path.read_text(encoding="utf-8")).get(language, {}) if path.exists() else {}
    return {_key(form): name for name, forms in table.items() for form in forms}


def _key(form: str) -> str:
    return " ".join(fold(form).split())


class Lexicon:
    """The names of one language.

    Args:
        words: "trained" leaves out the names that are held out, "held out" has none but these, "all" has both.

    Raises: FileNotFoundError for a language without a table.
    """

    def __init__(
        self,
        language: str,
        objects: tuple[str, ...],
        folder: Path = FOLDER,
        words: Literal["trained", "held out", "all"] = "trained",
    ) -> None:
        table = json.loads((folder / f"{language}.json").read_text(encoding="utf-8"))
        held = held_out_forms(language, folder)

        def wanted(name: str, forms: dict[str, str]) -> bool:
            if words == "held out":
                return any(held.get(_key(f)) == name for f in forms.values())
            # Nor one that holds such a word: "haunch of venison".
            return words == "all" or not any(
                w in held for f in forms.values() for w in (_key(f), *re.split(r"[\s'-]", _key(f)))
            )

        names = {
            o: [
                Name(
                    o,
                    n["forms"],
                    n.get("gender", ""),
                    n.get("ambiguous", False),
                    n.get("old", False) or n.get("kind", False),
                )
                for n in table.get(o, [])
                if wanted(o, n["forms"])
            ]
            for o in objects
        }
        self._fill(language, names)

    @classmethod
    def of(cls, language: str, names: dict[str, list[Name]]) -> "Lexicon":
        """From names by object, instead of this project's tables."""
        lexicon = cls.__new__(cls)
        lexicon._fill(language, names)
        return lexicon

    def _fill(self, language: str, names: dict[str, list[Name]]) -> None:
        self.language, self.names = language, names
        # of our own tables' languages, which alone mark ambiguous names
        self._determiners = set(DETERMINERS.get(language, "").split())
        self._drawn: dict[tuple[str, ...], tuple[list[Name], list[float]]] = {}
        self._forms: dict[str, tuple[Name, str]] = {}
        for same in names.values():
            for name in same:
                for tag, form in name.forms.items():
                    self._forms.setdefault(_key(form), (name, tag))
        self._longest = max((len(WORD.findall(f)) for f in self._forms), default=1)

    def forms(self) -> list[str]:
        """All forms, as they are looked up (case folded)."""
        return list(self._forms)

    def find(self, text: str) -> list[Mention]:
        """All names in a text, longest first at each place, left to right."""
        words = word_spans(text)
        folded = fold(text)
        if len(folded) != len(text):  # a rare character changes length when lowered; offsets would be wrong
            folded = "".join(c.lower() if len(c.lower()) == 1 else c for c in text.replace("ſ", "s").replace("’", "'"))
        found, i = [], 0
        while i < len(words):
            for n in range(min(self._longest, len(words) - i), 0, -1):
                start, end = words[i][0], words[i + n - 1][1]
                hit = self._forms.get(" ".join(folded[start:end].split()))
                if hit:
                    name, tag = hit
                    before = folded[words[i - 1][0] : words[i - 1][1]] if i else ""
                    sure = not name.ambiguous or before in self._determiners
                    found.append(Mention(start, end, name.object, tag, name.gender, sure))
                    i += n - 1
                    break
            i += 1
        return found

    def replacement(self, mention: Mention, target: str, rng: np.random.Generator) -> str | None:
        """A form of ``target`` in the inflection of ``mention`` (same gender preferred), or None where there is
        none."""
        same = self._choice(target, mention.tag, mention.gender)
        fitting = same if same[0] and rng.random() < 0.5 else self._choice(target, mention.tag)
        name = _draw_name(fitting if fitting[0] else self._choice(target), rng)
        return None if name is None else name.forms.get(mention.tag) or next(iter(name.forms.values()))

    def any_form(self, target: str, rng: np.random.Generator) -> str | None:
        """Any inflected form of any name of ``target``, or None where there is none."""
        name = _draw_name(self._choice(target), rng)
        return None if name is None else list(name.forms.values())[int(rng.integers(len(name.forms)))]

    def _choice(self, target: str, *narrowed: str) -> tuple[list[Name], list[float]]:
        """The names of ``target`` (with this tag; of this gender), and their weights added up; kept, as training draws
        from few again and again."""
        key = (target, *narrowed)
        if key not in self._drawn:
            names = [n for n in self.names.get(target, []) if n.forms]
            names = [
                n
                for n in names
                if (not narrowed or narrowed[0] in n.forms) and (len(narrowed) < 2 or n.gender == narrowed[1])
            ]
            self._drawn[key] = names, list(accumulate(RARE if n.rare else 1.0 for n in names))
        return self._drawn[key]


def _draw_name(choice: tuple[list[Name], list[float]], rng: np.random.Generator) -> Name | None:
    names, sums = choice
    return names[min(bisect_right(sums, rng.random() * sums[-1]), len(names) - 1)] if names else None
