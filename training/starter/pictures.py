"""The pictures of the starter: read from one zip an object, split by picture, kept as one array.

Layout of the raw material: ``DATA/images/<object>.zip``; the folder inside a zip is the picture's source.
"""

import hashlib
import io
import json
import multiprocessing
import os
import zipfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

STORED_SIZE = 176  # px, the largest side in the raw material: crops of a picture stay as sharp as it is
CHUNK = 256  # pictures that one process decodes at a time
SPLITS = ("train", "dev", "test")


def split_of(key: str, dev: float = 0.07, test: float = 0.07) -> str:
    """Assigns a key to "train", "dev" or "test" by its hash: the same on every machine, whatever else is in the
    folder."""
    u = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "dev" if u < dev else "test" if u < dev + test else "train"


@dataclass(frozen=True)
class Pictures:
    """All pictures of one split.

    pixels: uint8 [N, S, S, 3], the whole picture squashed to a square; labels: int64 [N], index into ``objects``;
    sources: [N], e.g. "pacs-art"; names: [N], "<object>/<file>"; objects: the object names, sorted.
    """

    pixels: np.ndarray
    labels: np.ndarray
    sources: np.ndarray
    names: np.ndarray
    objects: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def object_names(data: Path) -> tuple[str, ...]:
    """The objects that have a zip of pictures under ``data/images``, sorted."""
    names = tuple(sorted(path.stem for path in (data / "images").glob("*.zip")))
    if not names:
        raise FileNotFoundError(f"No pictures: expected {data / 'images'}/<object>.zip.")
    return names


@dataclass(frozen=True)
class _Chunk:
    """Pictures of one zip, and where each goes: a row of the file of pixels of its split."""

    archive: Path
    work: Path
    members: tuple[str, ...]
    splits: tuple[str, ...]
    rows: tuple[int, ...]


def _decode(chunk: _Chunk) -> list[str]:
    """Writes the pictures' pixels into their splits' files; -> their digests."""
    files = {split: np.load(_pixels_file(chunk.work, split), mmap_mode="r+") for split in set(chunk.splits)}
    digests = []
    with zipfile.ZipFile(chunk.archive) as archive:
        for member, split, row in zip(chunk.members, chunk.splits, chunk.rows, strict=True):
            with Image.open(io.BytesIO(archive.read(member))) as picture:
                square = np.asarray(picture.convert("RGB").resize((STORED_SIZE, STORED_SIZE), Image.Resampling.BICUBIC))
            files[split][row] = square
            digests.append(hashlib.sha256(square.tobytes()).hexdigest())
    return digests


def _pixels_file(work: Path, split: str) -> Path:
    return work / f"pixels-{split}.npy"


def _listed(data: Path, work: Path, objects: tuple[str, ...]) -> tuple[list[_Chunk], dict[str, np.ndarray]]:
    """All pictures as chunks to decode, and as columns: labels, sources, names, splits."""
    chunks: list[_Chunk] = []
    columns: dict[str, list[Any]] = {"labels": [], "sources": [], "names": [], "splits": []}
    counts = dict.fromkeys(SPLITS, 0)
    for label, name in enumerate(objects):
        path = data / "images" / f"{name}.zip"
        with zipfile.ZipFile(path) as archive:
            members = [m for m in sorted(archive.namelist()) if not m.endswith("/")]
        splits = [split_of(f"{name}/{m}") for m in members]
        rows = []
        for split in splits:
            rows.append(counts[split])
            counts[split] += 1
        for i in range(0, len(members), CHUNK):
            part = slice(i, i + CHUNK)
            chunks.append(_Chunk(path, work, tuple(members[part]), tuple(splits[part]), tuple(rows[part])))
        columns["labels"] += [label] * len(members)
        columns["sources"] += [m.split("/")[0] if "/" in m else "" for m in members]
        columns["names"] += [f"{name}/{m}" for m in members]
        columns["splits"] += splits
    return chunks, {k: np.array(v) for k, v in columns.items()}


def _decode_all(chunks: list[_Chunk], processes: int) -> np.ndarray:
    """Digests of all pictures, decoded by that many processes (by this one where there is little to do)."""
    bar = tqdm(total=sum(len(c.rows) for c in chunks), desc="pictures", unit="")
    digests: list[str] = []
    if processes < 2 or len(chunks) < 16:
        for found in map(_decode, chunks):
            digests += found
            bar.update(len(found))
    else:
        context = multiprocessing.get_context(
            "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        )
        with ProcessPoolExecutor(min(processes, len(chunks)), mp_context=context) as pool:
            for found in pool.map(_decode, chunks):
                digests += found
                bar.update(len(found))
    bar.close()
    return np.array(digests)


def load_pictures(data: Path, work: Path) -> dict[str, Pictures]:
    """Reads, splits and caches the pictures.

    Args:
        data: the raw material (see the module's docstring).
        work: folder for the cache (about 3.7 GB for 39,000 pictures; they are read from there, not held in memory).

    Returns: {"train", "dev", "test"} -> Pictures. The split goes by picture (hash of its name); pictures of dev and
        test that are also in train are left out.

    Raises: ValueError when ``work`` was made from other pictures.
    """
    objects = object_names(data)
    listing = {p.name: p.stat().st_size for p in sorted((data / "images").glob("*.zip"))} | {"size": STORED_SIZE}
    kept = work / "pictures.json"
    if kept.exists() and json.loads(kept.read_text()) != listing:
        raise ValueError(
            f"{work} was made from other pictures than {data / 'images'}; choose another work folder, or remove "
            "this one."
        )
    if not kept.exists():
        _store(data, work, objects)
        kept.write_text(json.dumps(listing) + "\n")
    return {split: _load_split(work, split, objects) for split in SPLITS}


def _store(data: Path, work: Path, objects: tuple[str, ...]) -> None:
    """Decodes all pictures into one file of pixels a split, and the columns beside it."""
    work.mkdir(parents=True, exist_ok=True)
    chunks, columns = _listed(data, work, objects)
    splits = columns.pop("splits")
    for split in SPLITS:
        shape = (int((splits == split).sum()), STORED_SIZE, STORED_SIZE, 3)
        np.lib.format.open_memmap(_pixels_file(work, split), mode="w+", dtype=np.uint8, shape=shape).flush()
    digests = _decode_all(
        chunks, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    for split in SPLITS:
        own = np.flatnonzero(splits == split)
        keep = np.ones(len(own), dtype=bool) if split == "train" else ~np.isin(digests[own], digests[splits == "train"])
        if not keep.all():  # the same picture again: left out
            np.save(_pixels_file(work, split), np.load(_pixels_file(work, split))[keep])
        kept: dict[str, Any] = {k: v[own[keep]] for k, v in columns.items()}
        np.savez(work / f"pictures-{split}.npz", **kept)


def _load_split(work: Path, split: str, objects: tuple[str, ...]) -> Pictures:
    with np.load(work / f"pictures-{split}.npz") as columns:
        fields = {k: columns[k] for k in ("labels", "sources", "names")}
    return Pictures(pixels=np.load(_pixels_file(work, split), mmap_mode="r"), objects=objects, **fields)
