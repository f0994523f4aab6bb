"""Records of a batch: read from a MUSTI file or a CSV, with pictures from a zip; answered, or told why not; written. Nothing is lost."""

import csv
import io
import itertools
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image

from musti_model import InputError, MustiPipeline, Sentence
from musti_model.processing import MAX_BYTES, open_image
from training.data import BadRecord, MustiPair, iter_records

SIZE = 16  # records answered at once
COLUMNS = ("id", "image", "text", "language", "answer", "probability", "problem", "unsure", "notices")


class Pictures:
    """The pictures of a zip, found by the last part of a record's address; of two with one name, the one whose longer path fits."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        try:
            self.archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError("The second file is not a zip of pictures we can read; make it again.") from error
        self.members = {m.filename: m for m in self.archive.infolist() if not m.is_dir()}

    def __reduce__(self) -> tuple:
        """Sent to the process of a borrowed GPU, it is opened there again."""
        return Pictures, (self.path,)

    def open(self, address: str) -> Image.Image:
        """Raises InputError for a picture that is not there, too large, or no picture."""
        path = PurePosixPath(unquote(urlsplit(address).path.replace("\\", "/")))
        fitting = [n for n in self.members if PurePosixPath(n).name == path.name]
        if not fitting:
            raise InputError("The zip holds no picture {name!r}.", name=path.name)
        member = self.members[max(fitting, key=lambda n: _common_end(PurePosixPath(n).parts, path.parts))]
        if member.file_size > MAX_BYTES:
            raise InputError("The picture {name!r} is over {limit:.0f} MB.", name=path.name, limit=MAX_BYTES / 1e6)
        try:
            file = io.BytesIO(self.archive.read(member))
            return open_image(Image.open(file))
        except InputError:
            raise
        except Exception as error:  # damaged, encrypted, or no picture at all: zipfile and Pillow raise almost anything
            raise InputError("The picture {name!r} cannot be read.", name=path.name) from error


def _common_end(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """How many last parts of two paths are equal."""
    pairs = zip(reversed(a), reversed(b), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def records_of(path: str | Path) -> Iterator[Any]:
    """Records of a .csv (columns id, image, text; language if there is one) or of a MUSTI file. Raises InputError."""
    if Path(path).suffix.lower() != ".csv":
        yield from iter_records(path)
        return
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()  # spreadsheets of many countries write semicolons
            file.seek(0)
            rows = csv.DictReader(file, delimiter=max(",;\t", key=header.count))
            missing = {"image", "text"} - set(rows.fieldnames or ())
            if missing:
                raise InputError("The CSV has no column {columns}; its first line names the columns.", columns=", ".join(sorted(missing)))
            for number, row in enumerate(rows, start=1):
                yield {k: v for k, v in row.items() if k is not None} | ({} if row.get("id") else {"id": number})
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError("The CSV is not UTF-8 text with commas; export it again.") from error


def answered(pipe: MustiPipeline, items: list[MustiPair | BadRecord], pictures: Pictures) -> list[dict[str, Any]]:
    """One row of COLUMNS for each item, in order."""
    rows = [_row(item) for item in items]
    ready = []
    for row, item in zip(rows, items, strict=True):
        if isinstance(item, MustiPair):
            try:
                pipe.processor.passages([item.text])
                ready.append((row, pictures.open(item.image), item.text))
            except InputError as error:
                row["problem"] = error.args[0]
    answers = pipe.predict([image for _, image, _ in ready], [text for _, _, text in ready], batch=SIZE)
    for (row, _, _), answer in zip(ready, answers, strict=True):
        row |= {"answer": answer.label, "probability": round(answer.probability, 4), "unsure": "yes" if answer.unsure else ""}
        row["notices"] = " ".join(answer.notices)
    return rows


def _row(item: MustiPair | BadRecord) -> dict[str, Any]:
    empty = dict.fromkeys(COLUMNS, "") | {"id": item.id}
    if isinstance(item, BadRecord):
        return empty | {"problem": Sentence("record {number}: {reason}", number=item.position, reason=item.reason)}
    return empty | {"image": item.image, "text": item.text, "language": item.language}


def write_results(rows: list[dict[str, Any]], records: list[Any], keep: Callable[[str], str]) -> list[str]:
    """Paths of results.csv and results.json; the latter has every record as it was given, with ``subtask1_label`` filled in. keep: as in
    ``take_away.zipped``."""
    filled = []
    for row, record in zip(rows, records, strict=True):
        extra = {"subtask1_label": row["answer"], "probability": row["probability"], "unsure": bool(row["unsure"])} if row["answer"] else {"problem": row["problem"]}
        filled.append((record if isinstance(record, dict) else {"record": record}) | extra)
    with tempfile.TemporaryDirectory() as work:
        table, whole = Path(work) / "results.csv", Path(work) / "results.json"
        with table.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows({k: _safe_cell(v) for k, v in row.items()} for row in rows)
        whole.write_text(json.dumps({"pairs": filled}, indent=1, ensure_ascii=False), encoding="utf-8")
        return [keep(str(table)), keep(str(whole))]


def _safe_cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
