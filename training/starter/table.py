"""``python -m training.starter.table --data DIR --work runs/starter --out assets/table``: gates, meetings, losses and
votes side by side.

Every row starts from the same weights and trains the same number of steps on the same pairs, image backbones frozen,
several seeds. The weights to start from are those of the stage "names" of ``python -m training.starter``, whose work
folder this needs; or, with ``--images DIR``, the image backbones of the weights in DIR, and a pretrained text tower
that first learns names, but has seen no pair and no gate. Besides F1-macro it tells what the answers lose when the gate
is shut, and when it is open at every word: a gate that costs nothing when it is shut does nothing. What stands in
OUT/table.json is not run again, so the command can be stopped and given again.
"""

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from musti_model.config import MustiConfig, preset
from musti_model.device import autocast
from musti_model.fusion import Opened
from musti_model.image_tower import ImageTokens
from musti_model.model import MustiModel
from musti_model.weights import find_weights

from ..loop.losses import FocalLoss
from ..loop.memory import keep_freed_memory
from ..loop.train import CollapseError, TrainSettings, train
from ..report.metrics import best_threshold, collapsed, resampled_f1, scores, sigmoid
from .augment import plain_view
from .drawing import KeptAlbum, TextBatches, Texts, text_batches
from .objective import Objective, features_of
from .pairs import Pair
from .passages import Passage, around
from .pictures import STORED_SIZE, load_pictures
from .scoring import MODES, Scored, score_pairs, widest_names
from .stages import SMALL, STILL, Workshop, names_stage, settle_arithmetic, shown_of, texts_of
from .towers import borrow_backbones, name_objects, place_kept, starter_model, text_of

OURS = "word gate, by content (ours)"
# Changes to the model's config, and to the focal loss.
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    OURS: ({}, {}),
    "word gate, by reading order": ({"meeting": "place"}, {}),
    "linear gate, by content": ({"gate": "linear"}, {}),
    "scalar gate, by content": ({"gate": "scalar"}, {}),
    "scalar gate, by reading order (published)": ({"gate": "scalar", "meeting": "place"}, {}),
    "no gate": ({"gate": "none", "meeting": "place"}, {}),
    "mean vote": ({"voting": "mean"}, {}),
    "gamma 0": ({}, {"gamma": 0.0}),
    "alpha .25": ({}, {"alpha": 0.25}),
    "alpha .75": ({}, {"alpha": 0.75}),
}


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a table is. steps: of each run; layers: of the text encoder, None for all; every: of the held-out
    passages every so many are scored; each: pictures of each object that are kept; names: steps in which words learn
    their names before, where image backbones are given; drills: share of the batches that are a few words each, dense
    with names; words: so many of each held-out passage, around a name, None for all; rate: learning rates, as a
    multiple of those of the starter's training."""

    steps: int = 60
    layers: int | None = None
    every: int = 3
    each: int = SMALL.each
    names: int = 200
    drills: float = 0.1
    words: int | None = None
    rate: float = 1.0


class Table:
    """What all runs share: pictures, passages, pairs, the weights to start from, and the held-out pictures as the
    frozen backbones see them."""

    def __init__(self, data: Path, work: Path, so_far: Path, size: Size, images: Path | None = None) -> None:
        self.work, self.size = work, size
        self.done: list[dict[str, Any]] = json.loads(so_far.read_text()) if so_far.exists() else []
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        pictures = load_pictures(data, work)
        model, tokenizer = starter_model(data, pictures["train"].objects, **text_of(size.layers))
        self.shop = Workshop(data, work, pictures, model, tokenizer)
        named = work / "names"
        if images:
            borrow_backbones(model, images)
            name_objects(model, tokenizer)
            named = (
                work / "table" / f"names-{find_weights(images).revision[-12:]}-{size.layers}-{size.each}-{size.names}"
            )
        else:
            model.load_state_dict(_best(named))
        self.album: KeptAlbum = self.shop.kept(model.to(self.device), size.each, **shown_of(SMALL.match))
        if images:
            place_kept(model, self.album.singles)
            names_stage(model, self.shop, named, 1, size.names, STILL, self.album)
        self.start = _best(named)
        self.held = {split: self._features(model, split) for split in ("dev", "test")}

    def config(self, name: str) -> MustiConfig:
        """The row's model."""
        return preset("starter", objects=self.shop.objects, **text_of(self.size.layers), **ROWS[name][0])

    def settings(self, seed: int) -> TrainSettings:
        """The budget of every row."""
        return TrainSettings(
            epochs=1,
            steps_per_epoch=self.size.steps,
            lr=self.size.rate * SMALL.lr,
            lr_of={part: self.size.rate * rate for part, rate in SMALL.match_rates.items()},
            batch_norm="frozen",
            layer_decay=0.95,
            on_collapse="report",
            seed=seed,
        )

    def kind(self, name: str, seed: int) -> str:
        """16 hex digits of all that a run is made of: model, loss, settings, data, and the weights it starts from."""
        made = [
            self.config(name).to_dict(),
            ROWS[name][1],
            dataclasses.asdict(self.settings(seed)),
            SMALL.match,
            self.shop.record["data"],
            self.size.every,
            self.size.each,
            self.size.drills,
            self.size.words,
        ]
        made += [self.start["prototypes"].flatten()[:64].tolist()]
        return hashlib.sha256(json.dumps(made).encode()).hexdigest()[:16]

    def kept(self, name: str, seed: int) -> dict[str, Any] | None:
        """A run that stands in the table so far and is made of the same."""
        kind = self.kind(name, seed)
        return next((r for r in self.done if (r["row"], r["seed"], r["kind"]) == (name, seed, kind)), None)

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """One run. -> scores and answers."""
        started, kind = time.time(), self.kind(name, seed)
        folder = self.work / "table" / f"{''.join(c if c.isalnum() else '-' for c in name)}-{seed}-{kind}"
        torch.manual_seed(seed)
        model = MustiModel(self.config(name))
        model.load_state_dict(self.start, strict=False)  # another gate has other parts
        model.to(self.device)

        def batches(epoch: int, first: int) -> Iterator[Texts]:
            data = TextBatches(
                self.shop.mill,
                self.shop.tokenizer,
                self.shop.objects,
                self.size.steps,
                (30 + seed, epoch),
                self.size.drills,
                **texts_of(SMALL.match),
                padding=self.shop.padding,
            )
            return text_batches(data, first, self.shop.workers)

        objective = Objective(self.album, FocalLoss(**({"gamma": 2.0, "alpha": 0.5} | ROWS[name][1])))
        try:
            train(model, batches, objective, lambda _model: {"score": 0.0}, self.settings(seed), folder)
            stopped = ""
        except CollapseError as error:
            stopped = str(error)
        return self._scores(model) | {
            "row": name,
            "seed": seed,
            "kind": kind,
            "stopped": stopped,
            "seconds": round(time.time() - started),
        }

    def pairs(self, split: str) -> list[Pair]:
        """The pairs of every so many passages."""
        return [p for p in self.shop.pairs[split] if p.passage % self.size.every == 0]

    def asked(self, split: str) -> tuple[list[Passage], list[Pair]]:
        """The pairs, and the passages they count in: whole, or for each pair the words around a name, of the shared
        object where it is YES."""
        passages, pairs = self.shop.passages[split], self.pairs(split)
        if self.size.words is None:
            return passages, pairs
        cut = []
        for pair in pairs:
            sure = [m for m in passages[pair.passage].mentions if m.sure]
            mention = next((m for m in sure if m.object == pair.object), sure[0])
            cut.append(around(passages[pair.passage], mention, self.size.words))
        return cut, [dataclasses.replace(pair, passage=row) for row, pair in enumerate(pairs)]

    def shown(self, split: str) -> list[int]:
        """The pictures of these pairs, in order."""
        return sorted({p.picture for p in self.pairs(split)})

    @torch.inference_mode()
    def _features(self, model: MustiModel, split: str, batch: int = 64) -> dict[str, Tensor]:
        """What the backbones, which are the same in all runs, make of ``shown``."""
        parts: dict[str, list[Tensor]] = {n: [] for n in model.branches}
        rows = self.shown(split)
        for start in range(0, len(rows), batch):
            pixels = torch.from_numpy(self.shop.pictures[split].pixels[rows[start : start + batch]]).to(self.device)
            with autocast(self.device):
                for name, features in features_of(model, plain_view(pixels, STORED_SIZE)).items():
                    parts[name].append(features.bfloat16())
        return {n: torch.cat(p) for n, p in parts.items()}

    def labels(self, split: str) -> np.ndarray:
        """1 YES, 0 NO of ``pairs``."""
        return np.array([p.label for p in self.pairs(split)])

    def _scored(self, model: MustiModel, split: str, modes: Sequence[Opened]) -> Scored:
        model.eval()
        with torch.inference_mode(), autocast(self.device):
            held = {n: features.float() for n, features in self.held[split].items()}
            encoded = {n: b.to_tokens(held[n], model.fusion.norm, model.grid_norm) for n, b in model.towers.items()}
        encoded = {n: ImageTokens(t.tokens.bfloat16(), t.grid) for n, t in encoded.items()}
        number = {picture: row for row, picture in enumerate(self.shown(split))}
        passages, pairs = self.asked(split)
        pairs = [dataclasses.replace(p, picture=number[p.picture]) for p in pairs]
        return score_pairs(model, self.shop.tokenizer, encoded, passages, pairs, modes=modes)

    def _scores(self, model: MustiModel) -> dict[str, Any]:
        dev = self._scored(model, "dev", MODES[:1])  # for the threshold
        test = self._scored(model, "test", MODES if model.fusion.gated else MODES[:1])
        threshold = best_threshold(self.labels("dev"), sigmoid(dev.logits["learned"]))
        labels, answers = self.labels("test"), {m: sigmoid(z) for m, z in test.logits.items()}
        tuned = {m: scores(labels, p, threshold) for m, p in answers.items()}
        return {
            "f1_macro": tuned["learned"]["f1_macro"],
            "auc": tuned["learned"]["auc"],
            "lost": {m: tuned["learned"]["f1_macro"] - s["f1_macro"] for m, s in tuned.items() if m != "learned"},
            "widest": widest_names(test, *self.asked("test")) if model.fusion.gated else None,
            "collapsed": collapsed(answers["learned"]),
            # of the test pairs in order, a bit a pair
            "answers": np.packbits(answers["learned"] >= threshold).tobytes().hex(),
        }

    def difference(self, rows: list[dict[str, Any]], ours: list[dict[str, Any]]) -> list[float]:
        """95 % interval of F1-macro minus that of ours, seed by seed: paired bootstrap over the test pairs' passages,
        mean over the seeds."""
        groups, labels = [p.passage for p in self.pairs("test")], self.labels("test")
        gaps = []
        for a, b in zip(rows, ours, strict=True):
            answers = [
                np.unpackbits(np.frombuffer(bytes.fromhex(r["answers"]), dtype=np.uint8), count=len(labels))
                for r in (a, b)
            ]
            this, other = resampled_f1(labels, answers, groups)
            gaps.append(this - other)
        return [float(v) for v in np.quantile(np.mean(gaps, axis=0), [0.025, 0.975])]


def _best(folder: Path) -> dict[str, Tensor]:
    """The best weights of a run."""
    return torch.load(folder / "best.pt", weights_only=True, map_location="cpu")["model"]


def write(table: Table, results: list[dict[str, Any]], out: Path) -> None:
    """table.json, table.md and table.png in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    heads = [
        "system",
        "seeds",
        "test F1-macro",
        "spread",
        "AUC",
        "lost when shut",
        "lost when open",
        "widest word right",
        "minus ours, 95 %",
    ]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    summary = []
    for name in ROWS:
        rows = [r for r in results if r["row"] == name]
        ours = {r["seed"]: r for r in results if r["row"] == OURS}
        paired = [r for r in rows if r["seed"] in ours]
        if not rows:
            continue
        f1 = [r["f1_macro"] for r in rows]
        gap = table.difference(paired, [ours[r["seed"]] for r in paired]) if paired and name != OURS else None
        summary.append((name, f1))
        mark = " (collapsed)" if any(r["collapsed"] or r["stopped"] for r in rows) else ""
        gated = [r for r in rows if r["lost"]]
        lost = [f"{np.mean([r['lost'][m] for r in gated]):+.3f}" if gated else "" for m in ("shut", "open")]
        widest = f"{np.mean([r['widest'] for r in gated]):.0%}" if gated else ""
        cells = [
            f"{name}{mark}",
            len(rows),
            f"{np.mean(f1):.3f}",
            f"{min(f1):.3f} to {max(f1):.3f}",
            f"{np.mean([r['auc'] for r in rows]):.3f}",
        ]
        cells += [*lost, widest, f"{gap[0]:+.3f} to {gap[1]:+.3f}" if gap else ""]
        lines.append(f"| {' | '.join(str(c) for c in cells)} |")
    lines += ["", told_below(table.size)]
    (out / "table.md").write_text("\n".join(lines) + "\n")
    (out / "table.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(summary, out / "table.png")
    print("\n".join(lines), flush=True)


def told_below(size: Size) -> str:
    """What every row shares, and what not all of them have."""
    shared = ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(size).items() if value is not None)
    return (
        f"Every run: {shared}; PyTorch {torch.__version__}. Word and linear gates are also taught at which words to "
        "open (`gate_loss`), which the others cannot be."
    )


def draw(summary: list[tuple[str, list[float]]], path: Path) -> None:
    """A dot a run, a bar at the mean of the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.34 * len(summary) + 1), layout="constrained")
    axes = figure.subplots()
    for y, (_, values) in enumerate(reversed(summary)):
        axes.plot(values, [y] * len(values), "o", color="tab:purple", alpha=0.6)
        axes.plot([np.mean(values)] * 2, [y - 0.3, y + 0.3], color="black")
    axes.set_yticks(range(len(summary)), [n for n, _ in reversed(summary)])
    axes.axvline(3 / 7, color="grey", linestyle=":")  # always NO at 25 % YES
    axes.set_xlabel("test F1-macro (dotted: always NO)")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Runs seed by seed, so that a stopped table is whole for the seeds it has."""
    parser = argparse.ArgumentParser(prog="python -m training.starter.table", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="raw material")
    parser.add_argument("--work", type=Path, default=Path("runs/starter"), help="folder of a training of the starter")
    parser.add_argument("--out", type=Path, default=Path("assets/table"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=len(ROWS), help="only the first rows")
    parser.add_argument("--steps", type=int, default=Size.steps, help="of each run")
    parser.add_argument("--layers", type=int, help="of the text encoder, as in the training of the starter")
    parser.add_argument("--every", type=int, default=Size.every, help="of the held-out passages, only every so many")
    parser.add_argument("--each", type=int, default=Size.each, help="pictures of each object, varied, that are kept")
    parser.add_argument("--images", type=Path, help="weights whose image backbones all runs share, as they are")
    parser.add_argument("--names", type=int, default=Size.names, help="steps of naming before, with --images")
    parser.add_argument("--drills", type=float, default=Size.drills, help="share of batches of short, dense texts")
    parser.add_argument("--words", type=int, help="of each held-out passage only so many, around a name")
    parser.add_argument("--rate", type=float, default=Size.rate, help="of learning, as a multiple of the starter's")
    options = parser.parse_args()
    keep_freed_memory()
    settle_arithmetic()
    size = Size(**{f.name: getattr(options, f.name) for f in dataclasses.fields(Size)})
    table = Table(options.data, options.work, options.out / "table.json", size, options.images)
    wanted = [(name, seed) for seed in range(options.seeds) for name in list(ROWS)[: options.rows]]
    # also those after a row that is still to be run
    results = [kept for name, seed in wanted if (kept := table.kept(name, seed))]
    for name, seed in wanted:
        if not table.kept(name, seed):
            results.append(table.run(name, seed))
            results.sort(key=lambda r: wanted.index((r["row"], r["seed"])))
            write(table, results, options.out)
    write(table, results, options.out)


if __name__ == "__main__":
    main()
