"""``python -m training.starter.export --data DIR --work runs/starter --out OUT``: held-out proxy pairs as a MUSTI file
with its pictures.

For the commands that take such a file: ``training.evaluate``, ``training.predict``, ``benchmarks.faithfulness``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..lexicon.naming import LANGUAGES, Lexicon
from ..lexicon.vocabulary import Vocabulary
from .pairs import Pair, balanced_pairs
from .passages import Passage, load_passages
from .pictures import Pictures, load_pictures


def choose(pairs: list[Pair], yes: int, seed: int) -> list[Pair]:
    """``yes`` YES pairs, and as many NO pairs as the balanced set has to a YES pair."""
    rng = np.random.default_rng(seed)
    kinds = [[p for p in pairs if p.label == label] for label in (1, 0)]
    counts = [yes, round(yes * len(kinds[1]) / len(kinds[0]))]
    return [kind[i] for kind, n in zip(kinds, counts, strict=True) for i in rng.permutation(len(kind))[:n]]


def write_pairs(pairs: list[Pair], pictures: Pictures, passages: list[Passage], out: Path) -> Path:
    """pairs.json and pictures/ in ``out``. -> the file. ``subtask2_labels`` of a YES pair is the object's name in the
    passage's language."""
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    vocabulary, records = Vocabulary(), []
    for number, pair in enumerate(pairs):
        passage, name = passages[pair.passage], f"pictures/{pair.picture}.png"
        Image.fromarray(np.array(pictures.pixels[pair.picture])).save(out / name)
        record: dict[str, Any] = {
            "id": number,
            "image": str((out / name).resolve()),
            "language": passage.language,
            "text": passage.text,
        }
        labels = [vocabulary.name(pair.object, passage.language)] if pair.label else []
        records.append(record | {"subtask1_label": "YES" if pair.label else "NO", "subtask2_labels": labels})
    path = out / "pairs.json"
    path.write_text(json.dumps({"pairs": records}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(prog="python -m training.starter.export", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="raw material")
    parser.add_argument("--work", type=Path, default=Path("runs/starter"), help="folder of a training of the starter")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--yes", type=int, default=200, help="YES pairs; NO pairs are three times as many")
    options = parser.parse_args()
    pictures = load_pictures(options.data, options.work)[options.split]
    passages = load_passages(options.data, {tag: Lexicon(tag, pictures.objects) for tag in LANGUAGES})[options.split]
    pairs = choose(balanced_pairs(pictures, passages, seed=0), options.yes, seed=0)
    print(f"{len(pairs)} pairs: {write_pairs(pairs, pictures, passages, options.out)}")


if __name__ == "__main__":
    main()
