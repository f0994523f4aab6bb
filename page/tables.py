"""Tables of records: read as spreadsheets of many countries write them, and written so that no spreadsheet takes a text
for a formula."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, TextIO

from musti_model import InputError, Sentence
from musti_model.records import LANGUAGE_NAMES, Flawed, bare_address, language_tag, text_encoding

# whose names may be in capitals
FIELDS = ("id", "image", "text", "language", "title", "subtask1_label", "subtask2_labels")
NEEDED = {"image", "text"}
LANGUAGE_WORDS = 3  # "Middle High German" is a language; more words are the rest of a text that had a comma
DELIMITERS = ",;\t|"
csv.field_size_limit(2**31 - 1)  # a passage may be a chapter; the file's own size is bounded

# What a spreadsheet takes for the start of a formula, also in full width, and what it skips before one: white space,
# quotation marks, what nobody sees.
_SIGNS = "=+\\-@＝＋－＠﹦﹢﹣﹫"
_SKIPPED = (
    r"\s\"'\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u180e"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffc"
)
_ENDS = r";|\t\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029"  # where a spreadsheet may begin a new cell
_BEFORE_FORMULA = re.compile(rf"(?:\A[{_SKIPPED};|]*+|(?<![{_SKIPPED};|])[{_SKIPPED};|]++)(?=[{_SIGNS}])")
_END = re.compile(f"[{_ENDS}]")


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a table with a line of names, as records; a row with cells that have no name, or with quotation marks
    that do not match, is ``Flawed``.

    Commas, semicolons, tabs or bars part the cells; the text is UTF-8 or UTF-16. Without a column id, rows are counted.

    Raises: InputError for another text, a missing or doubled column, a quotation mark that is never closed. OSError.
    """
    with path.open("rb") as file:
        if file.read(4) in (b"PK\3\4", b"\xd0\xcf\x11\xe0"):
            raise InputError("This table is a spreadsheet's own file; save it as CSV UTF-8 and choose that.")
    try:
        with path.open(encoding=text_encoding(path), newline="") as file:
            yield from _rows(file)
    except UnicodeError as error:
        raise InputError("The CSV is not UTF-8 text; save it as CSV UTF-8.") from error


def write_table(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """A CSV with all cells in quotation marks; see ``safe_cell``. Raises OSError."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, columns, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows({name: safe_cell(value) for name, value in row.items()} for row in rows)


def safe_cell(value: Any) -> Any:
    """A text with an apostrophe before whatever a spreadsheet would take for a formula, whether it parts cells at
    commas, semicolons, tabs or lines."""
    return _BEFORE_FORMULA.sub(_marked, value) if isinstance(value, str) else value


def _marked(found: re.Match[str]) -> str:
    before = found[0]
    if found.start() == 0:
        return f"'{before}'" if before else "'"
    return f"{before}'" if _END.search(before) else before


def _rows(file: TextIO) -> Iterator[dict[str, Any]]:
    header, skipped, delimiter = _header(file)
    last = [""]  # line that was read
    reader = csv.reader(_noted(chain([header], file), last), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        names = [_name(cell) for cell in next(reader)]
    except csv.Error as error:
        raise InputError("The quotation marks in the first line of the CSV do not match; mend them.") from error
    _check(names)
    count = 0
    while True:
        first, problem, cells = skipped + reader.line_num + 1, None, []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                raise InputError(
                    "A quotation mark of the CSV that opens in line {line} or after it is never closed; close it.",
                    line=first,
                ) from error
            problem = Sentence(
                "the quotation marks in lines {first} to {last} do not match",
                first=first,
                last=skipped + reader.line_num,
            )
        if not problem and not any(cell.strip() for cell in cells):
            continue  # spreadsheets write empty rows at the end
        count += 1
        record: dict[str, Any] = {name: cell for name, cell in zip(names, cells, strict=False) if name}
        # A text that is cut at its commas spills to the right; before it, programs number the rows under no name.
        nameless = [
            cell
            for name, cell in list(zip_longest(names[: len(cells)], cells, fillvalue=""))[names.index("text") :]
            if not name and cell.strip()
        ]
        if nameless:
            record["cells without a name"] = nameless
            problem = Sentence(
                "its row has more cells than there are names in the first line; put its text in quotation marks"
            )
        language = record.get("language", "")
        # as after a comma in a sentence, not in a table
        spilt = f"{delimiter} {language}" in last[0] and f"{delimiter} {record.get('image')}" not in last[0]
        if (
            not problem
            and language
            and language_tag(language) not in LANGUAGE_NAMES
            and (spilt or len(language.split()) > LANGUAGE_WORDS)
        ):
            problem = Sentence(
                "its language is {language!r}; if that belongs to the text, put the text in quotation marks",
                language=language[:40],
            )
        if "id" not in names:
            record["id"] = count
        yield Flawed(record, problem) if problem else record


def _noted(lines: Iterable[str], last: list[str]) -> Iterator[str]:
    """The same lines, the latest of which stands in ``last``."""
    for line in lines:
        last[:] = [line]
        yield line


def _header(file: TextIO) -> tuple[str, int, str]:
    """The line of names, how many lines stood before it, and what parts the cells."""
    told = ""
    for skipped, line in enumerate(file):
        if mark := re.fullmatch(r'\ufeff?"?sep=(.)"?\s*', line, re.IGNORECASE):  # a line of Excel's
            told = mark[1]
        elif line.strip(DELIMITERS + "\"' \r\n\ufeff"):
            return line, skipped, told or max(DELIMITERS, key=lambda d: _known(line, d))
    raise InputError("The CSV holds no line of names; its first line names the columns.")


def _known(line: str, delimiter: str) -> int:
    """How many of our fields a line of names holds if this parts it."""
    return len(
        set(FIELDS) & {_name(cell) for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))}
    )


def _name(cell: str) -> str:
    bare = bare_address(cell)
    return bare.casefold() if bare.casefold() in FIELDS else bare


def _check(names: list[str]) -> None:
    missing = NEEDED - set(names)
    if missing:
        raise InputError(
            "The CSV has no column {columns}; its first line names the columns.", columns=", ".join(sorted(missing))
        )
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice:
        raise InputError("The CSV has two columns {column!r}; rename one of them.", column=twice[:40])
