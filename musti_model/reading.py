"""What is read of a passage: the beginning that a model can take, cleaned; its words; and each word in letters that a
tokenizer knows.

Visitors paste anything, a million characters of anything: the little that can be read is cut out before any work is
done on it, and what is done to the whole costs the same for every character. Words are slices of the text that is
shown; what the tokenizer gets may be spelled otherwise.
"""

import functools
import sys
import unicodedata
from collections.abc import Collection, Iterator

import numpy as np
import regex

from .errors import InputError

MAX_CHARACTERS = 1_000_000  # of a passage at all
READ_CHARACTERS = 20_000  # of its beginning that are looked at: more than any text grid holds
LONGEST = 200  # characters of a word that is spelled otherwise for the tokenizer, which knows none nearly as long
MARKS = 8  # combining marks in a row that are kept: more than any script stacks on a letter

_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"  # of footnotes: signs beside a word
# with the marks on it; fonts of old prints have letters in the private use area
_LETTER = rf"[\p{{L}}\p{{N}}\p{{M}}\p{{Co}}--[{_RAISED}]]"
_APOSTROPHES, _HYPHENS = "'’‘‛′ʹ`´＇᾽᾿", "-‐‑⸗⹀=¬﹣－"
_JOIN = rf"[{_APOSTROPHES}\{_HYPHENS}]"
# A word is a run of letters or digits with inner apostrophes and hyphens, or one other visible character.
WORD = regex.compile(rf"{_LETTER}++(?:{_JOIN}{_LETTER}++)*+|\S\p{{M}}*+", regex.V1)
_WITHIN = regex.compile(rf"(?:{_LETTER}|{_JOIN})*+", regex.V1)
_COUNTED = regex.compile(rf"[\p{{L}}\p{{N}}--[{_RAISED}]]", regex.V1)  # what makes a word one that is counted
_UNSEEN = r"[\p{Cf}\p{DI}--\xad]"  # joiners, zero-width spaces, marks of direction; not yet the soft hyphen
_INVISIBLE = regex.compile(_UNSEEN + "+", regex.V1)
_CONTROL = regex.compile(r"[\p{Cc}\p{Cs}--[\n\v\f\r\x85]]+", regex.V1)
_NOTHING = regex.compile(r"[\s\p{Cc}\p{Cs}\p{Cf}\p{DI}]*+", regex.V1)
_PILE = regex.compile(
    rf"((?:\p{{M}}[\p{{Cf}}\p{{DI}}--\p{{M}}]*+){{{MARKS}}})[\p{{M}}\p{{Cf}}\p{{DI}}]++|(\xad)[\p{{Cf}}\p{{DI}}]++",
    regex.V1,
)
_LINE_END = regex.compile(r"(?:\r?\n|\r)\f|\r\n|[\v\f\r\x85\u2028\u2029]")  # of any system, and pages
# A word broken at a line's end: a letter, a hyphen of any kind, the line break, a small letter. "Rosen-" before "und"
# stands for a word of its own. Signs that mean nothing else (¬, in transcriptions ∣, the soft hyphen) are believed
# where the line break is lost, too.
_SOFT_END = regex.compile(r"(?<=[\p{L}\p{M}])-?\xad(?=[^\S\n]*+\n)")
_BROKEN = regex.compile(
    rf"(?<=[\p{{L}}\p{{M}}])(?:[\{_HYPHENS}][^\S\n]*+\n[^\S\n]*+|[¬∣\xad]\s*+)(?=\p{{L}})(?![\p{{Lu}}\p{{Lt}}]|(?:und|oder|sowie|bzw|u(?=\.))\b)"
)
_LIGATURES = {
    0xFB00: "ff",
    0xFB01: "fi",
    0xFB02: "fl",
    0xFB03: "ffi",
    0xFB04: "ffl",
    0xFB05: "ſt",
    0xFB06: "st",
    0xAD: "",
}


class Passage(str):
    """A passage as it is shown: cleaned, and no longer than can be read. words_after: how many words came behind it."""

    words_after: int = 0


def clean_passage(text: str) -> Passage:
    """The passage as it is shown: NFC; printers' ligatures (ﬁ) spelled out; words broken at a line's end joined;
    invisible signs (soft hyphens, zero-width spaces) taken out; line breaks of any kind to \\n; other control
    characters and lone surrogates turned to spaces; ends stripped; marks piled on one letter cut to ``MARKS``. Of a
    passage of more than about ``READ_CHARACTERS`` only the beginning; the words after it are counted. What is clean
    already is handed back as it is.

    Raises: InputError for something that is not text, is empty, holds no letter, or has over a million characters.
    """
    if isinstance(text, Passage):
        return text
    if not isinstance(text, str):
        raise InputError("The passage must be text.")
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            "The passage has {count} characters; the limit is {limit}.", count=len(text), limit=MAX_CHARACTERS
        )
    beginning, rest = _beginning(text)
    joined = _BROKEN.sub("", _SOFT_END.sub("-", _LINE_END.sub("\n", beginning)))
    passage = Passage(unicodedata.normalize("NFC", joined.translate(_LIGATURES)).strip())
    if not passage:
        raise InputError("The passage is empty; paste or type a few sentences.")
    if not regex.search(r"\p{L}", passage) and not regex.search(r"\p{L}", rest):
        raise InputError("The passage holds no words, only signs or digits; paste a text.")
    passage.words_after = count_words(rest)
    return passage


def _beginning(text: str) -> tuple[str, str]:
    """The first ``READ_CHARACTERS`` or so that can be seen, cut between words, without what cannot be read; and the
    rest as it came."""
    kept, at = "", _NOTHING.match(text).end()
    while len(kept) < READ_CHARACTERS and at < len(text):
        # Normalising sorts the marks on a letter in time quadratic in their number, and lets nobody else run meanwhile.
        kept = _INVISIBLE.sub("", _PILE.sub(r"\1\2", kept + text[at : at + READ_CHARACTERS]))
        kept, at = _CONTROL.sub(lambda signs: " " * len(signs[0]), kept), at + READ_CHARACTERS
    if at >= len(text):
        return kept, ""
    ends = np.flatnonzero(_kinds_in(kept) == 0)
    if not len(ends):  # one word of this length
        return kept, text[at + _WITHIN.match(text[at:]).end() :]
    return kept[: ends[-1] + 1], kept[ends[-1] + 1 :] + text[at:]


LETTER, JOIN, WITHIN = 1, 2, 3


@functools.cache
def _kinds() -> np.ndarray:
    """Of each code point, which part it takes in words: LETTER, JOIN, WITHIN (marks and what cannot be seen), or 0 for
    none. uint8 [1,114,112]."""
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    kinds = np.zeros(len(everything), np.uint8)
    for kind, signs in ((LETTER, _COUNTED.pattern), (JOIN, _JOIN), (WITHIN, r"[\p{M}\p{Co}\p{Cf}\p{DI}]")):
        kinds[[match.start() for match in regex.finditer(signs, everything, regex.V1)]] = kind
    return kinds


def _kinds_in(text: str) -> np.ndarray:
    return _kinds()[np.array([text]).view(np.uint32)]


def count_words(text: str) -> int:
    """How many words of letters or digits ``WORD`` finds, without walking the text in Python; one broken at a line's
    end counts twice."""
    kinds = _kinds_in(text)
    kinds = np.pad(kinds[kinds != WITHIN], 1)
    letters = kinds == LETTER
    joined = letters[:-2] & (kinds[1:-1] == JOIN) & letters[2:]
    return int((letters[1:] & ~letters[:-1]).sum() - joined.sum())


def is_counted(word: str) -> bool:
    """Whether it is a word, not a sign."""
    return _COUNTED.search(word) is not None


# What the tokenizer gets ----------------------------------------------------------------------------------------------

_SMALL_E = regex.compile("(?<=[aouAOU])\u0364")  # the umlaut of German prints
_EUROPEAN_MARK = regex.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_SAME = {ord(c): "'" for c in _APOSTROPHES + "ʼʻʽ" if c != "’"} | {ord(c): "-" for c in _HYPHENS}
# Unicode names most letters of old prints after what they stand for: "R ROTUNDA", "INSULAR T", "O WITH STROKE", "AE",
# "CON", "RUM".
_NAMED = regex.compile(r"(?:LATIN|MODIFIER LETTER)\b.*?\b([A-Z]{1,2}|CON|RUM)\b")
PHRASE = 5  # letters that one stands for from which it is a phrase, and would make a text many times as long
_LETTERS = {"þ": "th", "ð": "th", "ȝ": "gh", "ƿ": "w", "ŋ": "n", "ʒ": "z", "ꝑ": "per", "ꝓ": "pro"}


def spoken(word: str, alphabet: Collection[str]) -> str:
    """A word in the letters that a tokenizer can read; never empty.

    Long s, ligatures, raised, wide and ornamental letters become plain ones, all apostrophes and hyphens one of each.
    The small e over a vowel is an umlaut; other marks for which there is no ready-made letter are left out, for no
    tokenizer of these languages knows them. Letters that are not in the ``alphabet`` give way to the plainest form of
    theirs that is: ō to o, ꝛ to r.
    """
    if word in _RAISED:
        return unicodedata.normalize("NFKC", word)
    if word.isascii() or len(word) > LONGEST or not is_counted(word):
        return word
    plain = _EUROPEAN_MARK.sub("", unicodedata.normalize("NFC", _SMALL_E.sub("\u0308", word)))
    plain = "".join(map(_plain, plain)).translate(_SAME)
    return "".join(c if c in alphabet or c.lower() in alphabet else _plainest(c) for c in plain) or word


@functools.lru_cache(4096)
def _plain(letter: str) -> str:
    """A raised, wide or ornamental letter, or a ligature, as plain letters; anything else as it is, and so what would
    be a whole phrase."""
    plain = unicodedata.normalize("NFKC", letter)
    return plain if letter.isalpha() and letter not in "ªº" and len(plain) < PHRASE else letter


@functools.lru_cache(4096)
def _plainest(letter: str) -> str:
    """A letter without marks, or what its name says it stands for; itself where there is no plainer form, nothing for
    one of a private font."""
    bare = _EUROPEAN_MARK.sub("", unicodedata.normalize("NFKD", letter)) if letter.isalnum() else letter
    if bare != letter:
        return "".join(map(_plainest, bare)) if len(bare) < PHRASE else letter
    small = letter.lower()
    named = _NAMED.match(unicodedata.name(small, "")) if len(small) == 1 else None
    found = _LETTERS.get(small) or (
        named[1].lower() if named else "" if unicodedata.category(letter) == "Co" else letter
    )
    return found.capitalize() if small != letter else found


def handed(passage: str, spans: list[tuple[int, int]], alphabet: Collection[str]) -> tuple[str, list[tuple[int, int]]]:
    """The text that a tokenizer gets for the words at ``spans``, and where each of them stands in it.

    Signs that are no punctuation (°, ™, emoji) stand apart, because tokenizers would read them and the word beside them
    as one.
    """
    parts: list[str] = []
    places: list[tuple[int, int]] = []
    at, before = 0, 0
    for start, end in spans:
        word = passage[start:end]
        apart = start > before or _is_sticky(word) or (parts and _is_sticky(parts[-1]))
        parts += [" "] * bool(apart and parts) + [spoken(word, alphabet)]
        at += bool(apart and len(parts) > 1)
        places.append((at, at + len(parts[-1])))
        at, before = at + len(parts[-1]), end
    return "".join(parts), places


def _is_sticky(word: str) -> bool:
    kind = unicodedata.category(word[0])[0]
    # a sign with marks on it is one, too
    return word[0] in _RAISED or (kind not in "LNM" and (kind != "P" or len(word) > 1))


def pieces_of(places: list[tuple[int, int]], offsets: list[tuple[int, int]]) -> Iterator[tuple[int, ...]]:
    """The wordpieces of each word, [words]: each piece goes to the one word that it begins in. places, offsets: (start,
    end) of words and pieces in the same text, both in order; pieces without extent, as of [CLS], belong to none."""
    piece = 0
    for _, end in places:
        own = []
        while piece < len(offsets) and offsets[piece][0] < end:
            if offsets[piece][1] > offsets[piece][0]:
                own.append(piece)
            piece += 1
        yield tuple(own)
