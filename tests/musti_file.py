"""A small MUSTI file with drawn pictures, as ``training.prepare`` leaves it: the colour of the disc decides, given the
passage's word."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"flower": "red", "dog": "brown", "fish": "blue"}
WORDS = {
    "en": {"flower": "roses", "dog": "dogs", "fish": "fish"},
    "it": {"flower": "fiori", "dog": "cane", "fish": "pesce"},
    "sl": {"flower": "cvetlice", "dog": "pes", "fish": "riba"},
}


def make(folder: Path, pairs: int = 90, seed: int = 0) -> Path:
    """30 pictures, each in several pairs. -> pairs.json."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    shown = []
    for i in range(30):
        name = list(COLOURS)[i % 3]
        picture = Image.fromarray(rng.integers(100, 160, (48, 64, 3), dtype=np.uint8))
        x, y = rng.integers(0, 24, 2).tolist()
        ImageDraw.Draw(picture).ellipse((x, y, x + 28, y + 22), fill=COLOURS[name])
        picture.save(folder / "images" / f"{i}.png")
        shown.append(name)
    records = []
    for number in range(pairs):
        language = ("en", "it", "sl")[number % 3]
        picture = int(rng.integers(30))
        named = shown[picture] if rng.random() < 0.1 else list(COLOURS)[int(rng.integers(3))]
        words = ["".join("abcdefgh"[d] for d in rng.integers(0, 8, 4)) for _ in range(8)]
        words[int(rng.integers(8))] = WORDS[language][named]
        yes = named == shown[picture]
        records.append(
            {
                "id": number,
                "image": f"images/{picture}.png",
                "language": language,
                "text": " ".join(words),
                "title": "drawn",
                "subtask1_label": "YES" if yes else "NO",
                "subtask2_labels": [WORDS[language][named]] if yes else [],
            }
        )
    (folder / "pairs.json").write_text(json.dumps({"pairs": records}, ensure_ascii=False), encoding="utf-8")
    return folder / "pairs.json"
