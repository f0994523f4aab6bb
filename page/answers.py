"""Answers to the records of a batch (a MUSTI file or a table) with the pictures of a zip, or why there is none;
written. Nothing is lost."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from musti_model import InputError, MustiPipeline, Prediction, Sentence
from musti_model.records import BadRecord, MustiPair, iter_records

from .archive import PictureZip
from .tables import rows_of, write_table
from .take_away import scratch

SIZE = 16  # records answered at once
MOST_BYTES = 50_000_000  # of a file of records; what is read from it takes up to twenty times as much memory
TABLES = (".csv", ".tsv", ".txt")
NAMED = ("objects_in_picture", "objects_in_passage")
COLUMNS = ("id", "image", "text", "language", "answer", "probability", "problem", "unsure", "notices", *NAMED)


Result = TypeVar("Result")
Item = MustiPair | BadRecord


def records_of(path: str | Path) -> Iterator[Any]:
    """Records of a table (columns id, image, text; language if there is one; see ``rows_of``) or of a MUSTI file.
    Raises InputError."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(
                "The file of records has {size:.0f} MB; the limit is {limit:.0f} MB; split it.",
                size=size / 1e6,
                limit=MOST_BYTES / 1e6,
            )
        yield from rows_of(path) if path.suffix.lower() in TABLES else iter_records(path)
    except OSError as error:
        raise InputError("The file of records cannot be read any more; choose it again.") from error


def answered(pipe: MustiPipeline, items: list[MustiPair | BadRecord], pictures: PictureZip) -> list[dict[str, Any]]:
    """One row of COLUMNS for each item, in order; what was seen and read as ``Prediction.to_json`` has it."""
    rows = [row_of(item) for item in items]
    pairs = [(row, item) for row, item in zip(rows, items, strict=True) if isinstance(item, MustiPair)]
    pictures.know((item.image, item.id) for _, item in pairs)
    ready = []
    for row, item in pairs:
        opened = _or_problem(partial(_opened, pipe, item, pictures))
        if isinstance(opened, Sentence):
            row["problem"] = opened
        else:
            ready.append((row, *opened, item.text))
    answers = _predicted(pipe, [image for _, image, _, _ in ready], [text for _, _, _, text in ready])
    for (row, _, notices, _), answer in zip(ready, answers, strict=True):
        if isinstance(answer, Sentence):
            row["problem"] = answer
        else:
            row |= {
                "answer": answer.label,
                "probability": round(answer.probability, 4),
                "unsure": "yes" if answer.unsure else "",
            }
            row["notices"] = " ".join([*notices, *answer.notices])
            row |= {name: value for name, value in answer.to_json().items() if name in NAMED}
    return rows


def row_of(item: MustiPair | BadRecord, problem: str = "") -> dict[str, Any]:
    """The row of an item that is not answered (yet), with its own problem, if it has one, or this."""
    row = dict.fromkeys(COLUMNS, "") | {"id": _writable(item.id), "problem": problem}
    if isinstance(item, BadRecord):
        return row | {"problem": Sentence("record {number}: {reason}", number=item.position, reason=item.reason)}
    return row | {"image": _writable(item.image), "text": _writable(item.text), "language": _writable(item.language)}


def write_results(rows: list[dict[str, Any]], records: list[Any], keep: Callable[[str], str]) -> list[str]:
    """Paths of results.csv and results.json; the latter has every record as it was given, with ``subtask1_label``
    filled in. keep: as in ``take_away.zipped``. Raises InputError where they cannot be written."""
    with scratch() as work:
        table, whole = work / "results.csv", work / "results.json"
        write_table(table, COLUMNS, (row | {name: _listed(row[name]) for name in NAMED} for row in rows))
        with whole.open("w", encoding="utf-8") as file:
            file.write('{"pairs": [\n')
            for number, (row, record) in enumerate(zip(rows, records, strict=True)):
                file.write((",\n" if number else "") + _filled(row, record))
            file.write("\n]}\n")
        return [keep(str(table)), keep(str(whole))]


def _opened(pipe: MustiPipeline, item: MustiPair, pictures: PictureZip) -> tuple[Image.Image, list[str]]:
    """The picture of a pair whose passage can be read, and what is to be said of where it was found. Raises
    InputError."""
    pipe.processor.passages([item.text])
    found = pictures.find(item.image, item.id)
    told = Sentence(
        "The picture was found by its file name alone, in another folder: {name!r}.", name=pictures.name_of(found)
    )
    return pictures.read(found), [] if found.sure else [told]


def _predicted(pipe: MustiPipeline, images: list[Image.Image], texts: list[str]) -> Sequence[Prediction | Sentence]:
    """Answers; where one pair breaks the model, each pair by itself, so that the others are answered."""
    together = _or_problem(lambda: pipe.predict(images, texts, batch=SIZE))
    if not isinstance(together, Sentence):
        return together
    if len(images) == 1:
        return [together]
    return [answer for image, text in zip(images, texts, strict=True) for answer in _predicted(pipe, [image], [text])]


def _or_problem(function: Callable[[], Result]) -> Result | Sentence:
    """What it returns; the sentence to tell where it raises."""
    try:
        return function()
    except InputError as error:
        told: Sentence = error.args[0]
        return told
    except Exception:  # the log tells more than the row should
        logging.getLogger(__name__).exception("a record could not be answered")
        return Sentence("The model could not answer this pair; try another copy of the picture.")


def _listed(pairs: list[list[Any]] | str) -> str:
    """Objects with their probabilities or words, in one cell."""
    return pairs if isinstance(pairs, str) else "; ".join(f"{name}: {_writable(str(value))}" for name, value in pairs)


def _writable(text: str) -> str:
    """Without halves of characters, which no file takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _filled(row: dict[str, Any], record: Any) -> str:
    """JSON of a record as it was given, with its answer."""
    extra = {"problem": row["problem"]}
    if row["answer"]:
        extra = {"subtask1_label": row["answer"], "probability": row["probability"], "unsure": bool(row["unsure"])} | {
            name: row[name] for name in NAMED
        }
    whole = (record if isinstance(record, dict) else {"record": record}) | extra
    try:
        text = json.dumps(whole, ensure_ascii=False, default=str)
        # a half of a character, escaped as it came
        return text if _writable(text) == text else json.dumps(whole, default=str)
    except (TypeError, ValueError, RecursionError):  # no value that was read from JSON, see DEEPEST
        return json.dumps({"id": row["id"]} | extra)
