"""The MUSTI file format: records -> pairs, one at a time, with the bad ones named."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from .errors import InputError, Sentence

LABELS = {"YES": 1, "NO": 0}
LANGUAGE_NAMES = {  # a tag: how files write it out
    "en": ("eng", "english"),
    "de": ("deu", "ger", "german", "deutsch"),
    "fr": ("fra", "fre", "french", "français", "francais"),
    "it": ("ita", "italian", "italiano"),
    "sl": ("slv", "slo", "slovene", "slovenian", "slovenščina", "slovenscina", "slovensko", "slovenski"),
    "nl": ("nld", "dut", "dutch", "nederlands"),
}
UNKNOWN_LANGUAGE = "und"  # the tag of BCP 47 for "undetermined"
CHUNK = 1 << 16  # characters read at a time
LONGEST = 50_000_000  # characters of one record
DEEPEST = 100  # lists and objects inside each other; what is deeper cannot be written again
# A value that a chunk's end cut in two is found wrong at most this far before the end ("-Infinity", a pair of \u
# escapes), unless it is a string.
_CUT = 16
# What tells how deeply a JSON text is nested; a string without an end is a quotation mark alone.
_NESTING = re.compile(r'"(?:[^"\\]++|\\.)*+"|["\[\]{}]', re.DOTALL)
_TAGS = {name: tag for tag, names in LANGUAGE_NAMES.items() for name in (tag, *names)}
_INVISIBLE = "\ufeff\u200b\u200e\u200f"  # byte order mark, zero-width space, direction marks


@dataclass(frozen=True)
class MustiPair:
    """A picture and a passage.

    image: URL or local path, ends stripped; language: "en", "de", "fr", "it", "sl", ... or "und"; label: 1 YES, 0 NO,
    None unlabelled; objects: the shared smell objects (subtask 2); title: of the picture, "" when the file has none;
    record: as it was read, never changed; folder: of the file, from which local paths go; picture: the same for pairs
    that show one picture, "" until the pictures were compared.
    """

    id: str
    image: str
    language: str
    text: str
    label: int | None = None
    objects: tuple[str, ...] = ()
    title: str = ""
    record: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    folder: Path = field(default=Path(), compare=False, repr=False)
    picture: str = field(default="", compare=False, repr=False)

    @property
    def path(self) -> Path:
        """Of a picture on this machine."""
        return self.folder / self.image


@dataclass(frozen=True)
class BadRecord:
    """A record that is no pair. id: "" when it has none; position: in the file, from 1; reason: a few words; record: as
    it was read."""

    id: str
    position: int
    reason: str
    record: Any = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"id {self.id}: {self.reason}" if self.id else f"record {self.position}: {self.reason}"


class Flawed(dict[str, Any]):
    """Fields of a record that was not read as it was meant. problem: what is wrong with it, in a few words."""

    def __init__(self, fields: dict[str, Any], problem: Sentence) -> None:
        super().__init__(fields)
        self.problem = problem


def read_pairs(path: str | Path) -> tuple[list[MustiPair], list[BadRecord]]:
    """All pairs of a MUSTI file in their order, and the records that are none.

    Raises: InputError as ``iter_records`` does.
    """
    pairs: list[MustiPair] = []
    bad: list[BadRecord] = []
    for item in parse_records(iter_records(path)):
        if isinstance(item, MustiPair):
            pairs.append(replace(item, folder=Path(path).parent))
        else:
            bad.append(item)
    return pairs, bad


def parse_records(records: Iterable[Any]) -> Iterator[MustiPair | BadRecord]:
    """A pair, or what is wrong, for each record, in order. The second record with an id is bad: results are kept by
    id."""
    seen: set[str] = set()
    for position, record in enumerate(records, start=1):
        try:
            item = parse_record(record, position)
        except (ValueError, RecursionError):  # a number of more digits than Python writes, a list without a bottom
            item = BadRecord("", position, Sentence("it holds a value that cannot be read"), record)
        if isinstance(item, MustiPair):
            if item.id in seen:
                item = BadRecord(item.id, position, Sentence("its id was used before"), record)
            seen.add(item.id)
        yield item


def parse_record(record: Any, position: int) -> MustiPair | BadRecord:
    """One record of the file. position: from 1."""
    if not isinstance(record, dict):
        return BadRecord("", position, Sentence("it is not an object with fields"), record)
    name = _id(record.get("id"))
    if isinstance(record, Flawed):
        return BadRecord(name, position, record.problem, record)
    image, text = record.get("image"), record.get("text")
    label = _label(record.get("subtask1_label"))
    if not name:
        reason = Sentence("it has no id")
    elif not isinstance(text, str) or not text.strip():
        reason = Sentence("it has no text")
    elif not isinstance(image, str) or not bare_address(image):
        reason = Sentence("it has no image")
    elif isinstance(label, str):
        reason = Sentence(
            "its subtask1_label is {label!r}, neither YES nor NO", label=str(record["subtask1_label"])[:40]
        )
    else:
        objects = _objects(record.get("subtask2_labels"))
        return MustiPair(
            name,
            bare_address(image),
            language_tag(record.get("language")),
            text,
            label,
            objects,
            _title(record.get("title")),
            record,
        )
    return BadRecord(name, position, reason, record)


def language_tag(value: Any) -> str:
    """A language as files write it ("en", "en-GB", "slv", "Slovene", nothing) -> its tag ("en", "sl", "und"); an
    unknown one in small letters."""
    if not isinstance(value, str) or value.strip().casefold() in ("", "nan", "none"):
        return UNKNOWN_LANGUAGE
    name = value.strip().casefold()
    return _TAGS.get(name) or _TAGS.get(name.replace("_", "-").split("-")[0]) or name


def fingerprint(pairs: Iterable[MustiPair]) -> str:
    """16 hex digits of the ids, texts, images and labels, whatever their order."""
    rows = sorted(json.dumps([p.id, p.text, p.image, p.label]) for p in pairs)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def _id(value: Any) -> str:
    """Ids are numbers in some files and text in others: 7, 7.0 and " 7" are one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else "" if math.isnan(value) else str(value)
    return str(value).strip()


def _label(value: Any) -> int | Literal["bad"] | None:
    """1, 0, None for no label, or "bad"."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str):
        return "bad"
    word = value.strip().upper()
    return None if word in ("", "NAN", "NONE", "NULL") else LABELS.get(word, "bad")


def _objects(value: Any) -> tuple[str, ...]:
    """A list of names, or names in one string with commas; anything else is none."""
    names = value.replace(";", ",").split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(n.strip() for n in names if isinstance(n, str) and n.strip())


def _title(value: Any) -> str:
    return value.strip() if isinstance(value, str) and value.strip() != "nan" else ""


def bare_address(address: str) -> str:
    """Without the white space and invisible signs that stick to the ends of copied addresses."""
    while address != (shorter := address.strip().strip(_INVISIBLE)):
        address = shorter
    return address


def text_encoding(path: Path) -> str:
    """UTF-8, or UTF-16 or UTF-32 where the first bytes say so. Raises OSError."""
    with path.open("rb") as file:
        return json.detect_encoding(file.read(4))


def iter_records(path: str | Path, chunk: int = CHUNK) -> Iterator[Any]:
    """The records of a MUSTI file one at a time: no more than a record and a chunk is held.

    The file is ``{"pairs": [...]}``, a bare list, one record, or a record a line. A record that names a field twice or
    is nested too deeply is ``Flawed``. By hand around ``json``'s decoder: ``json.load`` would hold a stranger's file
    whole, and give nothing of one that is damaged near its end.

    Args:
        chunk: characters read at a time, at least 1.

    Raises: InputError for a file that is missing, unreadable, not UTF-8 (or UTF-16), not JSON (also further on, after
        records), or holds no list of pairs.
    """
    path = Path(path)
    try:
        with path.open(encoding=text_encoding(path)) as file:
            yield from _records(_Json(file, chunk), path.name)
    except OSError as error:
        raise InputError(
            "The MUSTI file {name} cannot be read ({reason}); check the name.",
            name=path,
            reason=error.strerror or error,
        ) from error
    except UnicodeError as error:
        raise InputError("The MUSTI file {name} is not UTF-8 text; save it as UTF-8 JSON.", name=path.name) from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(
            "The MUSTI file {name} is not JSON ({reason}); fetch or export it again.", name=path.name, reason=error
        ) from error


def _records(json_text: "_Json", name: str) -> Iterator[Any]:
    """Walks the outermost list or object by hand and decodes what lies in it whole."""
    found = False
    if json_text.skip("["):
        found = True
        yield from json_text.items()
    elif json_text.skip("{"):
        fields = []
        while not json_text.skip("}"):
            key = json_text.value()
            if not isinstance(key, str):
                raise json_text.error("a field without a name")
            json_text.expect(":")
            if key == "pairs" and json_text.skip("["):
                found = True
                yield from json_text.items()
            else:
                fields.append((key, json_text.value()))
            if not json_text.skip(","):
                json_text.expect("}")
                break
        if not found and not {"id", "image", "text"}.isdisjoint(key for key, _ in fields):
            found = True
            yield _object(fields)
            while json_text.peek() == "{":  # a record a line
                yield json_text.value()
    else:
        json_text.value()
    if json_text.peek():
        raise json_text.error("something follows the end")
    if not found:
        raise InputError('The MUSTI file {name} holds no list of pairs; it is {{"pairs": [...]}} or a list.', name=name)


def _object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; Flawed where a field has two values."""
    result = dict(fields)
    for name, value in fields if len(result) < len(fields) else ():
        if value is not result[name] and value != result[name]:
            return Flawed(result, Sentence("its field {name!r} is there twice", name=name[:40]))
    return result


def _whole_number(digits: str) -> int | str:
    """As text where it has more digits than Python reads."""
    try:
        return int(digits)
    except ValueError:
        return digits


def _nesting(text: str, start: int) -> tuple[int, int]:
    """Where the list or object that starts there ends, -1 where the text ends before; and how many lie inside each
    other."""
    depth = deepest = 0
    for mark in _NESTING.finditer(text, start):
        if mark[0] == '"':
            break
        depth += (mark[0] in "[{") - (mark[0] in "]}")
        deepest = max(deepest, depth)
        if not depth:
            return mark.end(), deepest
    return -1, deepest


class _Json:
    """A JSON text read in chunks: a buffer, the place in it, and what was let go before it."""

    def __init__(self, file: Any, chunk: int) -> None:
        self._file, self._chunk = file, chunk
        self._buffer, self._at, self._gone, self._ended = "", 0, 0, False
        self._decoder = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole_number)

    def error(self, words: str) -> ValueError:
        return ValueError(f"{words} at character {self._gone + self._at + 1}")

    def _grow(self) -> None:
        """Reads on. What is read doubles while one value needs more, so that a long value is not decoded once a
        chunk."""
        kept = self._buffer[self._at :]
        if len(kept) > LONGEST:
            raise self.error("a record that is too long")
        more = self._file.read(max(self._chunk, len(kept)))
        self._gone += self._at
        self._buffer, self._at, self._ended = kept + more, 0, not more

    def peek(self) -> str:
        """The next character that is no white space, "" at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._buffer) or self._ended:
                return self._buffer[self._at : self._at + 1]
            self._grow()

    def skip(self, sign: str) -> bool:
        if self.peek() != sign:
            return False
        self._at += 1
        return True

    def expect(self, sign: str) -> None:
        if not self.skip(sign):
            raise self.error(f"{sign} is missing")

    def items(self) -> Iterator[Any]:
        """The rest of a list whose bracket was read."""
        if self.skip("]"):
            return
        while True:
            yield self.value()
            if not self.skip(","):
                self.expect("]")
                return

    def value(self) -> Any:
        first = self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._buffer) - _CUT
                if self._ended or not cut:
                    self._at = error.pos
                    raise self.error(error.msg) from error
            except RecursionError:
                end, _ = _nesting(self._buffer, self._at)
                if end >= 0:
                    return self._too_deep(end)
                if self._ended:
                    raise self.error("a list or object without an end") from None
            else:
                # A number may go on in the next chunk; what has an end sign may not.
                if first in '{["' or self._ended or end < len(self._buffer) - _CUT:
                    if first in "{[" and self._is_deep(end):
                        return self._too_deep(end)
                    self._at = end
                    return value
            self._grow()

    def _is_deep(self, end: int) -> bool:
        opened = sum(self._buffer.count(sign, self._at, end) for sign in "[{")
        return opened > DEEPEST and _nesting(self._buffer, self._at)[1] > DEEPEST

    def _too_deep(self, end: int) -> Flawed:
        """Its text is kept in its place."""
        start, self._at = self._at, end
        return Flawed({"record": self._buffer[start:end]}, Sentence("it is nested too deeply"))
