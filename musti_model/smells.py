"""Words that speak of a smell, in the languages of MUSTI: a small list in ``smells.json``, where * stands for any
letters."""

import functools
import json
from pathlib import Path

import regex

_FILE = Path(__file__).parent / "smells.json"


@functools.cache
def _smell() -> regex.Pattern:
    """Any word of the list, in whatever language it stands there."""
    stems = [stem for words in json.loads(_FILE.read_text(encoding="utf-8")).values() for stem in words]
    forms = "|".join(regex.escape(stem, special_only=True).replace(r"\*", r"\p{L}*") for stem in sorted(set(stems)))
    return regex.compile(rf"(?<!\p{{L}})(?:{forms})(?!\p{{L}})", regex.IGNORECASE)  # by which the long s is an s


def smell_words(text: str) -> list[str]:
    """The words of a text that speak of a smell, as they stand there, in order."""
    return _smell().findall(text)
