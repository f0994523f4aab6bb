"""The pictures of the starter: read from one zip an object, split by picture, kept as one array.

Layout of the raw material: ``DATA/images/<object>.zip``; the folder inside a zip is the picture's source.
"""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

STORED_SIZE = 112  # px; a little more than the model's input, so that random crops stay sharp
SPLITS = ("train", "dev", "test")


def split_of(key: str, dev: float = 0.07, test: float = 0.07) -> str:
    """Assigns a key to "train", "dev" or "test" by its hash: the same on every machine, whatever else is in the folder."""
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


def _read_all(data: Path, objects: tuple[str, ...]) -> dict[str, list]:
    rows: dict[str, list] = {"pixels": [], "labels": [], "sources": [], "names": []}
    for label, name in enumerate(tqdm(objects, desc="pictures", unit="zip")):
        with zipfile.ZipFile(data / "images" / f"{name}.zip") as archive:
            for member in sorted(archive.namelist()):
                if member.endswith("/"):
                    continue
                with Image.open(io.BytesIO(archive.read(member))) as picture:
                    square = picture.convert("RGB").resize((STORED_SIZE, STORED_SIZE), Image.Resampling.BICUBIC)
                rows["pixels"].append(np.asarray(square))
                rows["labels"].append(label)
                rows["sources"].append(member.split("/")[0] if "/" in member else "")
                rows["names"].append(f"{name}/{member}")
    return rows


def load_pictures(data: Path, work: Path) -> dict[str, Pictures]:
    """Reads, splits and caches the pictures.

    Args:
        data: the raw material (see the module's docstring).
        work: folder for the cache (about 1.5 GB for 38,000 pictures).

    Returns: {"train", "dev", "test"} -> Pictures. The split goes by picture (hash of its name); pictures of dev and test that
        are also in train are left out.

    Raises: ValueError when ``work`` was made from other pictures.
    """
    objects = object_names(data)
    listing = {p.name: p.stat().st_size for p in sorted((data / "images").glob("*.zip"))}
    kept = work / "pictures.json"
    if kept.exists() and json.loads(kept.read_text()) != listing:
        raise ValueError(f"{work} was made from other pictures than {data / 'images'}; choose another work folder, or remove this one.")
    if kept.exists():
        return {split: _load_split(work, split, objects) for split in SPLITS}
    rows = _read_all(data, objects)
    splits = np.array([split_of(name) for name in rows["names"]])
    digests = np.array([hashlib.sha256(p.tobytes()).hexdigest() for p in rows["pixels"]])
    splits[(splits != "train") & np.isin(digests, digests[splits == "train"])] = "twice"  # the same picture again: left out
    work.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        keep = np.flatnonzero(splits == split)
        np.save(work / f"pixels-{split}.npy", np.stack([rows["pixels"][i] for i in keep]))
        columns = {k: np.array([rows[k][i] for i in keep]) for k in ("labels", "sources", "names")}
        np.savez(work / f"pictures-{split}.npz", **columns)
    kept.write_text(json.dumps(listing) + "\n")
    return {split: _load_split(work, split, objects) for split in SPLITS}


def _load_split(work: Path, split: str, objects: tuple[str, ...]) -> Pictures:
    with np.load(work / f"pictures-{split}.npz") as columns:
        fields = {k: columns[k] for k in ("labels", "sources", "names")}
    return Pictures(pixels=np.load(work / f"pixels-{split}.npy", mmap_mode="r"), objects=objects, **fields)
