"""How objects are named, by language: finding names in passages, and swapping one object's name for another's.

The tables are ``training/lexicon/<language>.json``: {object: [{"gender", "forms": {inflection tag: form}, "ambiguous"?, "old"?,
"kind"?}, ...]}.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[1] / "lexicon"
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
}
_ELISION = re.compile(r"^(?:[ldcjmtsnLDCJMTSN]|qu|dell|all|nell|sull|dall|un|Dell|All|Un)['’](?=\w)")


@dataclass(frozen=True)
class Name:
    """One name of an object: its inflected forms by tag. rare: an old spelling or one kind of the object, drawn less often."""

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


class Lexicon:
    """The names of one language.

    Raises: FileNotFoundError for a language without a table.
    """

    def __init__(self, language: str, objects: tuple[str, ...], folder: Path = FOLDER) -> None:
        table = json.loads((folder / f"{language}.json").read_text(encoding="utf-8"))
        names = {
            o: [
                Name(o, n["forms"], n.get("gender", ""), n.get("ambiguous", False), n.get("old", False) or n.get("kind", False))
                for n in table.get(o, [])
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
        self._determiners = set(DETERMINERS.get(language, "").split())  # of our own tables' languages, which alone mark ambiguous names
        self._forms: dict[str, tuple[Name, str]] = {}
        for names in self.names.values():
            for name in names:
                for tag, form in name.forms.items():
                    self._forms.setdefault(" ".join(fold(form).split()), (name, tag))
        self._longest = max((len(WORD.findall(f)) for f in self._forms), default=1)

    def forms(self) -> list[str]:
        """All forms, as they are looked up (case folded)."""
        return list(self._forms)

    def find(self, text: str) -> list[Mention]:
        """All names in a text, longest first at each place, left to right."""
        words = []
        for match in WORD.finditer(text):
            cut = _ELISION.match(match.group())
            words.append((match.start() + (cut.end() if cut else 0), match.end()))
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
        """A form of ``target`` in the inflection of ``mention`` (same gender preferred), or None where there is none."""
        names = self.names.get(target, [])
        fitting = [n for n in names if mention.tag in n.forms]
        same = [n for n in fitting if n.gender == mention.gender]
        name = _draw_name(same if same and rng.random() < 0.5 else fitting or names, rng)
        return None if name is None else name.forms.get(mention.tag) or next(iter(name.forms.values()))

    def any_form(self, target: str, rng: np.random.Generator) -> str | None:
        """Any inflected form of any name of ``target``, or None where there is none."""
        name = _draw_name(self.names.get(target, []), rng)
        return None if name is None else list(name.forms.values())[int(rng.integers(len(name.forms)))]


def _draw_name(names: list[Name], rng: np.random.Generator) -> Name | None:
    names = [n for n in names if n.forms]
    if not names:
        return None
    weights = np.array([RARE if n.rare else 1.0 for n in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]
