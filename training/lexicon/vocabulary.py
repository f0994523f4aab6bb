"""Names of smell objects by language: this project's own, or CSV files in the form of Odeuropa's vocabularies."""

import csv
import io
import json
import re
import unicodedata
from pathlib import Path

from musti_model.errors import InputError
from musti_model.records import LANGUAGE_NAMES, language_tag

from ..data.copies import few
from .naming import FOLDER, LANGUAGES, WORD, Lexicon, Mention, Name

_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")  # remarks: "Camphor (tree)"
_BETWEEN = re.compile(r"[,;/|\n]")
_ENDS = ' \t\r\n\u00a0.?!*<>"“”„«»-–'
_NOTHING = {"", "nan", "none", "null", "n", "a", "tbd"}


class Vocabulary:
    """Names of smell objects by language.

    Without a folder: this project's own lexicon (52 objects, inflected). With one: CSV files in the form of Odeuropa's
    vocabularies, whose name ends in the language (``olfactory-objects-nl.csv``, ``nl.csv``), columns ID, LABEL or LABEL
    <language>, and SYNONYMS, which may be missing (names with commas or semicolons between them); the ID ties the
    languages together.

    languages: {tag: Lexicon}; notices: sentences on what was not read.

    Raises: InputError for a folder without such files, or with two of one language.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.notices: list[str] = []
        if folder is None:
            self.languages = {tag: _lexicon(tag) for tag in LANGUAGES}
            return
        self.languages = {}
        files: dict[str, Path] = {}
        for path in sorted(p for p in folder.glob("*") if p.suffix.lower() == ".csv"):
            try:
                tag = language_of(path)
                names, more = read_names(path, tag)
            except InputError as error:
                self.notices.append(str(error))
                continue
            if tag in files:
                raise InputError(
                    f"{files[tag].name} and {path.name} in {folder} are both of the language {tag!r}; leave one of "
                    "them there."
                )
            files[tag], self.languages[tag] = path, Lexicon.of(tag, names)
            self.notices += more
        if not self.languages:
            why = f" ({self.notices[0].rstrip('.')})" if self.notices else ""
            raise InputError(
                f"{folder} holds no vocabulary; it should hold files such as olfactory-objects-en.csv{why}."
            )

    def find(self, text: str, language: str, doubtful: bool = False) -> list[Mention]:
        """Names in a text; of an unknown language, those of any language. Doubtful ones are left out unless they are
        asked for."""
        chosen = [self.languages[language]] if language in self.languages else list(self.languages.values())
        return [m for lexicon in chosen for m in lexicon.find(text) if m.sure or doubtful]

    def objects_of(self, label: str, language: str) -> set[str]:
        """The objects that a label can mean, in its language first, else in any; empty when it is not in the
        vocabulary."""
        ordered = [self.languages[language]] if language in self.languages else []
        for lexicon in [*ordered, *self.languages.values()]:
            found = {m.object for m in lexicon.find(label) if m.start == 0 and m.end == len(label)}
            if found:
                return found
        return set()

    def name(self, object: str, language: str) -> str:
        """The plain name of an object in a language (singular), as MUSTI writes labels; in English, or any, where that
        language has none."""
        for lexicon in [self.languages.get(language), self.languages.get("en"), *self.languages.values()]:
            names = lexicon.names.get(object, []) if lexicon else []
            if names:
                return next(iter(names[0].forms.values())).lower()
        return object


def _lexicon(tag: str) -> Lexicon:
    return Lexicon(tag, tuple(json.loads((FOLDER / f"{tag}.json").read_text(encoding="utf-8"))), words="all")


# Files


def language_of(path: Path) -> str:
    """The language at the end of a file's name: "en" of en.csv, olfactory-objects-en.csv, objects_EN.csv,
    objects.en-GB.csv, objects-english.csv.

    Any two or three letters count, known or not. Raises: InputError.
    """
    words = re.split(r"[-_. ]+", path.stem.strip())
    if len(words) > 1 and re.fullmatch(r"[A-Z]{2}", words[-1]) and language_tag(words[-2]) in LANGUAGE_NAMES:
        words.pop()  # a country
    tag = language_tag(words[-1])
    if tag not in LANGUAGE_NAMES and not re.fullmatch(r"[a-z]{2,3}", tag):
        raise InputError(
            f"{path.name} was not read: its name does not end in a language; name it like olfactory-objects-en.csv."
        )
    return tag


def read_names(path: Path, tag: str) -> tuple[dict[str, list[Name]], list[str]]:
    """A CSV file -> {object: its names}, and sentences on rows that were left out; rows without an ID or a name are
    passed over.

    Raises: InputError for a file that cannot be read, has no column ID or LABEL, or no name.
    """
    header, rows = _table(path)
    labels = [f"label {word}" for word in (tag, *LANGUAGE_NAMES.get(tag, ()))] + ["label"]
    label = next((name for name in labels if name in header), None)
    if "id" not in header or label is None:
        lacks = "LABEL" if "id" in header else "ID"
        raise InputError(
            f"{path.name} was not read: its first line names no column {lacks}; it should be like ID,LABEL "
            f"{tag},SYNONYMS."
        )
    names: dict[str, list[Name]] = {}
    odd = []
    for line, row in rows:
        if any(cell.strip() for cell in row[len(header) :]):  # which cell belongs where, nobody knows
            odd.append(str(line))
            continue
        cells = dict(zip(header, row))
        ident = cells.get("id", "").strip().removesuffix(".0")  # as some spreadsheets write numbers
        for form in names_in(f"{cells.get(label, '')};{cells.get('synonyms', '')}") if ident else []:
            names.setdefault(ident, []).append(Name(ident, _inflected(form, tag)))
    if not names:
        raise InputError(f"{path.name} was not read: none of its rows has an ID and a name.")
    said = (
        f"{path.name}: the rows that end in line {few(odd)} have more cells than the first line names, and were "
        "left out."
    )
    return names, [said] if odd else []


def names_in(cell: str) -> list[str]:
    """The names in a cell, each once: without remarks in brackets and signs at the ends, in composed letters."""
    forms = [
        " ".join(form.strip(_ENDS).split())
        for form in _BETWEEN.split(_BRACKETS.sub(" ", unicodedata.normalize("NFC", cell)))
    ]
    return [form for form in dict.fromkeys(forms) if form.casefold() not in _NOTHING and WORD.search(form)]


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """A CSV file -> its column names, in small letters, and (line number, cells) of each row.

    UTF-8 or UTF-16; commas, semicolons or tabs, whichever the first line has most of. Raises: InputError.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
        # Excel's own first line
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("sep=")]
        sign = max(",;\t", key=lines[0].count) if lines else ","
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True)
        rows = [
            (reader.line_num, row)
            for row in reader
            if any(cell.strip() for cell in row) and not row[0].startswith("sep=")
        ]
    except OSError as error:
        raise InputError(f"{path.name} was not read ({error.strerror or error}).") from error
    except UnicodeError as error:
        raise InputError(f"{path.name} was not read: it is not UTF-8 text; save it as CSV UTF-8.") from error
    except csv.Error as error:
        raise InputError(
            f"{path.name} was not read: it is not CSV ({error}, line {reader.line_num}); export it again."
        ) from error
    if not rows:
        raise InputError(f"{path.name} was not read: it is empty.")
    return [" ".join(name.replace("_", " ").casefold().split()) for name in rows[0][1]], rows[1:]


def _inflected(form: str, language: str) -> dict[str, str]:
    """A name and its regular plurals: crude, but a passage seldom has the dictionary's form. In other languages it is
    left as it is."""
    plurals: list[str] = []
    if language == "en":
        plurals = [form + ("es" if form.endswith(("s", "x", "ch", "sh")) else "s")]
    elif language == "fr":
        plurals = [form + "s"]
    elif language == "it" and form[-1:] in "aeo":
        plurals = [form[:-1] + {"a": "e", "e": "i", "o": "i"}[form[-1]]]
    elif language == "de":
        plurals = [form + "e", form + "n", form + "en", form + "s"]
    elif language == "nl":
        # peer, peren; roos, rozen; druif, druiven
        short = re.sub(r"(aa|ee|oo|uu)(\w)$", lambda m: m[1][0] + m[2], form)
        plurals = [
            form + "en",
            form + form[-1] + "en",
            form + "s",
            short + "en",
            short[:-1] + {"s": "z", "f": "v"}.get(short[-1:], short[-1:]) + "en",
        ]
    return {"sg": form} | {f"pl{n}": plural for n, plural in enumerate(plurals)}
