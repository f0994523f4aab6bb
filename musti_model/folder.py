"""The files of a folder of weights, read as a stranger's: inside the folder, no larger than such a file is, numbers
that are numbers."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .older import renamed
from .storage import restored_header

LARGEST = {"tokenizer.json": 64_000_000, "metrics.json": 200_000}  # bytes; the largest tokenizers in use have 35 MB
LARGEST_OTHER = 1_000_000


def file_in(folder: str | Path, name: str) -> Path:
    """``folder/name``. Raises FileNotFoundError where there is no such file, ValueError for a link that leads out of
    the folder.

    The Hub's cache keeps its files beside its folders (``snapshots/COMMIT/x`` is a link to ``blobs/y``); those are the
    folder's own.
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
        raise ValueError(f"{name} is larger than {limit / 1e6:g} MB")
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
    if len(digits) > 300:  # transformers writes 10**30 for "no limit"; a float has room for 308
        raise ValueError("a number is too large")
    return int(digits)


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def read_json(folder: str | Path, name: str) -> Any:
    """The values of a JSON file; NaN, the infinite and halves of characters, which no page can show, are refused.
    Raises OSError, ValueError."""
    text = read_text(folder, name)
    try:
        values = json.loads(text, parse_float=_finite, parse_int=_short, parse_constant=_refused)
        if "\\ud" in text.lower():
            json.dumps(values, ensure_ascii=False).encode()
        return values
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{name} cannot be read: {reason}") from error


def check_tensors(file: Path, wanted: Mapping[str, Tensor]) -> None:
    """Whether a safetensors file holds exactly these tensors (be it in fewer bits, see ``storage``), by its header: no
    weight is read. wanted: {name: of the shape and kind}.

    Raises: ValueError for a file that is damaged; RuntimeError, with the names of the first ones, for tensors that are
        missing, unexpected, of another shape or of another kind.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (no dict)
            found = renamed(
                restored_header({name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}),
                ((), "F32"),
            )
    except SafetensorError as error:
        raise ValueError(f"{file.name} is no safetensors file, or it is cut off: {str(error)[:80]}") from error
    kinds = {True: ("F16", "BF16", "F32", "F64"), False: ("I64", "I32", "I16", "I8", "U8", "BOOL")}
    both = [name for name in wanted if name in found]
    faults = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "of another shape": [
            f"{n} {list(found[n][0])} for {list(wanted[n].shape)}"
            for n in both
            if found[n][0] != tuple(wanted[n].shape)
        ],
        "of another kind": [
            f"{n} {found[n][1]}" for n in both if found[n][1] not in kinds[wanted[n].is_floating_point()]
        ],
    }
    told = [f"{len(names)} {fault}: {', '.join(n[:80] for n in names[:3])}" for fault, names in faults.items() if names]
    if told:
        raise RuntimeError(f"the tensors of {file.name} are not those of config.json; {'; '.join(told)}")
