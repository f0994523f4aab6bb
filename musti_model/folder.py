"""The files of a folder of weights, read as a stranger's: inside the folder, no larger than such a file is, numbers that are numbers."""

import json
import math
from pathlib import Path
from typing import Any

LARGEST = {"tokenizer.json": 64_000_000}  # bytes; the largest tokenizers in use have 35 MB
LARGEST_OTHER = 1_000_000


def file_in(folder: str | Path, name: str) -> Path:
    """``folder/name``. Raises FileNotFoundError where there is no such file, ValueError for a link that leads out of the folder.

    The Hub's cache keeps its files beside its folders (``snapshots/COMMIT/x`` is a link to ``blobs/y``); those are the folder's own.
    """
    folder = Path(folder)
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{name} is missing")
    real, home = path.resolve(), folder.resolve()
    homes = [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(real.is_relative_to(h) for h in homes):
        raise ValueError(f"{name} is a link that leads out of the folder")
    return path


def read_text(folder: str | Path, name: str) -> str:
    """UTF-8. Raises OSError, and ValueError for a file that is too large or no text."""
    path, limit = file_in(folder, name), LARGEST.get(name, LARGEST_OTHER)
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{name} is larger than {limit // 1_000_000} MB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not text") from error


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _short(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError("a number is too large")
    return int(digits)


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def read_json(folder: str | Path, name: str) -> Any:
    """The values of a JSON file, NaN and the infinite refused. Raises OSError, ValueError."""
    text = read_text(folder, name)
    try:
        return json.loads(text, parse_float=_finite, parse_int=_short, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{name} cannot be read: {reason}") from error
