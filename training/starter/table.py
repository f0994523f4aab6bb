"""``python -m training.starter.table --data DIR --work runs/starter --out assets/table``: the paper's table in small.

Every system at the starter's size on the starter's pairs: the same frozen image backbones (their features are kept), the same text side to
start from (the stage "words"), new projections, gate and vote, the same budget, several seeds. Needs a work folder in which
``python -m training.starter`` has finished the stage "words". What stands in OUT/table.json is not run again, so the command can be stopped and given again.
"""

import argparse
import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from musti_model.config import preset
from musti_model.model import MustiModel

from ..detector import DetectorBert
from ..loop import CollapseError, TrainSettings, skipping, train
from ..losses import FocalLoss
from ..memory import keep_freed_memory
from ..metrics import best_threshold, collapsed, resampled_f1, scores, sigmoid
from ..systems import System, load_system
from .baselines import naming_probabilities
from .match import Batch, Objective, PixelObjective, backbone_features, pair_logits
from .pictures import load_pictures
from .stages import FROZEN, Workshop, finished_backbones

TEXT_LENGTH = 128  # of every system: with padding "carry" all positions are computed, and 256 would double the budget
TEXT_SIDE = ("text_embedding.", "text_encoder.", "pooler.", "prototypes", "none_logit", "hidden_norm.")
BATCH, STEPS, EPOCHS = 16, 100, 2
DETECTED = 3  # objects that the stand-in for the detector names


@dataclass(frozen=True)
class Row:
    """system: of training/systems; changes: to it; own_rates: learning rates and optimiser of the system instead of the common ones; backbones: they
    are trained too, from the pictures themselves."""

    system: str
    changes: dict[str, Any] = field(default_factory=dict)
    own_rates: bool = False
    backbones: bool = False


PAPER = {
    "ResNet + BERT, entropy": Row("resnet101-bert-entropy"),
    "ResNet + BERT, focal": Row("resnet101-bert-focal"),
    "detector + BERT": Row("detector-bert"),
    "MMM2024, published alpha .25": Row("mmm2024-a25"),
    "MMM2024, published alpha .3": Row("mmm2024-a30"),
}
OURS = {
    "ours": Row("starter"),
    "no gate": Row("starter", {"model.fusion": "none"}),
    "mean vote": Row("starter", {"model.voting": "mean"}),
    "padding carried": Row("starter", {"model.padding": "carry"}),
    "published ResNet axes": Row("starter", {"published_axes": True}),
    "gamma 0": Row("starter", {"loss.gamma": 0.0}),
    "gamma 1": Row("starter", {"loss.gamma": 1.0}),
    "gamma 5": Row("starter", {"loss.gamma": 5.0}),
    "alpha .25": Row("starter", {"loss.alpha": 0.25}),
    "alpha .3": Row("starter", {"loss.alpha": 0.3}),
    "alpha .75": Row("starter", {"loss.alpha": 0.75}),
    "no loss on single branches": Row("starter", {"loss.branches": 0.0}),
    "published optimiser, 1e-3 on all but the frozen backbones": Row("mmm2024-a30", own_rates=True),
    "published optimiser, 1e-3 on everything": Row("mmm2024-a30", own_rates=True, backbones=True),
}
ROWS = PAPER | OURS


def system_of(row: Row) -> System:
    """The row's system at the starter's size."""
    changes = dict(row.changes)
    axes = changes.pop("published_axes", False)
    system = load_system(row.system, "starter", changes)
    config = dataclasses.replace(system.model, text_length=TEXT_LENGTH)
    if axes:
        branches = tuple(dataclasses.replace(b, axes="published") if b.name == "resnet" else b for b in config.branches)
        config = dataclasses.replace(config, branches=branches)
    return dataclasses.replace(system, model=config)


def settings_of(row: Row, system: System, seed: int) -> TrainSettings:
    """The common budget; rates and optimiser are common too unless the row has its own."""
    common: dict[str, Any] = {"lr": 6e-4, "lr_of": {**FROZEN, "gate": 1e-2, "scale": 1e-2, "bias": 1e-2}}
    if row.own_rates:
        common = {k: v for k, v in system.train.items() if k not in ("epochs", "patience", "select", "precision")} | {"lr_of": {} if row.backbones else FROZEN}
    return TrainSettings(epochs=EPOCHS, steps_per_epoch=STEPS, seed=seed, **common)


class DetectorObjective:
    """Loss of DetectorBert on training batches; the classifier of the frozen backbones stands for the detector."""

    def __init__(self, shop: Workshop, names: np.ndarray, loss: FocalLoss) -> None:
        self.shop, self.names, self.loss = shop, names, loss

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """-> loss [], parts."""
        rows, columns, labels = batch.pairs.T
        texts = [self.shop.tokenizer.decode(ids, skip_special_tokens=True) for ids in batch.input_ids[rows]]
        loss = self.loss(model(**read(self.shop, self.names[batch.pictures[columns].numpy()], texts)).float(), labels.float())
        return loss, {}


def read(shop: Workshop, names: list[str], texts: list[str]) -> dict[str, Tensor]:
    """Names and passages as DetectorBert reads them."""
    encoded = shop.tokenizer(
        list(names), texts, truncation="only_second", max_length=TEXT_LENGTH, padding="longest", return_token_type_ids=True, return_tensors="pt"
    )
    return {k: encoded[k] for k in ("input_ids", "attention_mask", "token_type_ids")}


class Table:
    """What all runs share: pictures, passages, pairs, features, the text side to start from."""

    def __init__(self, data: Path, work: Path, backbones: Path | None, so_far: Path) -> None:
        self.work = work
        self.done: list[dict[str, Any]] = json.loads(so_far.read_text()) if so_far.exists() else []
        pictures = load_pictures(data, work)
        config = preset("starter", objects=pictures["train"].objects)
        self.full = MustiModel(config)
        state = torch.load(work / "words" / "best.pt", weights_only=True)["model"]
        self.full.load_state_dict(state)
        if backbones:
            finished_backbones(self.full, backbones, work)
        self.shop = Workshop(data, work, pictures, self.full)
        self.shop.tokenizer.model_max_length = TEXT_LENGTH
        self.start = {k: v for k, v in state.items() if k.startswith(TEXT_SIDE)}
        features = {"train": self.shop.views[0], **self.shop.features}
        self.names = {s: self._names(naming_probabilities(self.full, f)) for s, f in features.items()}

    def _names(self, probabilities: np.ndarray) -> np.ndarray:
        objects = np.array(self.full.config.objects)
        return np.array([", ".join(objects[np.argsort(-p)[:DETECTED]]).replace("_", " ") for p in probabilities])

    def kept(self, name: str, seed: int) -> dict[str, Any] | None:
        """A run that stands in the table so far and is made of the same."""
        kind = self.kind(name, seed)
        return next((r for r in self.done if (r["row"], r["seed"], r["kind"]) == (name, seed, kind)), None)

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """One run. -> scores and answers."""
        started, row = time.time(), ROWS[name]
        system, kind = system_of(row), self.kind(name, seed)
        folder = self.work / "table" / f"{''.join(c if c.isalnum() else '-' for c in name)}-{seed}-{kind}"
        torch.manual_seed(seed)
        detector = row.system == "detector-bert"
        objects = self.full.config.objects
        model: Any = DetectorBert(system.model) if detector else MustiModel(dataclasses.replace(system.model, objects=objects))
        model.load_state_dict({k: v for k, v in self.start.items() if not detector or k.startswith(TEXT_SIDE[:3])}, strict=False)
        if row.backbones:
            for branch, own in model.branches.items():
                own.backbone.load_state_dict(self.full.branches[branch].backbone.state_dict())
        objective = self._objective(system, row, detector)
        data = self.shop.epoch(BATCH, STEPS, seed=30 + seed, padding="longest" if detector else system.model.tokenizer_padding)
        try:
            train(model, skipping(data), objective, lambda m: self._dev(m, row), settings_of(row, system, seed), folder)
            stopped = ""
        except CollapseError as error:
            stopped = str(error)
        return self._scores(model, row) | {"row": name, "seed": seed, "kind": kind, "stopped": stopped, "seconds": round(time.time() - started)}

    def kind(self, name: str, seed: int) -> str:
        """16 hex digits of all that a run is made of: system, loss, settings, data, and the text side it starts from."""
        system = system_of(ROWS[name])
        made = [system.model.to_dict(), dataclasses.asdict(system.loss), dataclasses.asdict(settings_of(ROWS[name], system, seed)), BATCH]
        made += ["backbones"] if ROWS[name].backbones else []
        made += [self.shop.record["data"], self.start["pooler.dense.weight"].flatten()[:64].tolist()]
        return hashlib.sha256(json.dumps(made).encode()).hexdigest()[:16]

    def _objective(self, system: System, row: Row, detector: bool):
        loss = system.loss.make()
        if detector:
            return DetectorObjective(self.shop, self.names["train"], loss)
        naming = 0.0 if row.own_rates else 0.5  # the published training knows no naming
        if row.backbones:
            return PixelObjective(self.shop.pictures["train"], loss, naming=naming, none=0.5, branches=system.loss.branches)
        return Objective(self.shop.views, loss, naming=naming, none=0.5, branches=system.loss.branches)

    def _logits(self, model: nn.Module, split: str, row: Row) -> np.ndarray:
        """Of every third pair of a split."""
        passages, pairs = self.shop.passages[split], self.shop.pairs[split][::3]
        if not isinstance(model, DetectorBert):
            features = backbone_features(model, self.shop.pictures[split], 0, 0)[0] if row.backbones else self.shop.features[split]
            return pair_logits(model, self.shop.tokenizer, features, passages, pairs)[0]
        logits = np.zeros(len(pairs))
        order = sorted(range(len(pairs)), key=lambda i: len(passages[pairs[i].passage].text))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for start in range(0, len(order), 96):
                rows = order[start : start + 96]
                names = self.names[split][[pairs[i].picture for i in rows]]
                logits[rows] = model(**read(self.shop, names, [passages[pairs[i].passage].text for i in rows])).float().numpy()
        return logits

    def labels(self, split: str) -> np.ndarray:
        return np.array([p.label for p in self.shop.pairs[split][::3]])

    def _dev(self, model: nn.Module, row: Row) -> dict[str, Any]:
        probabilities, labels = sigmoid(self._logits(model, "dev", row)), self.labels("dev")
        result = scores(labels, probabilities, best_threshold(labels, probabilities))
        return {"score": result["f1_macro"], "auc": result["auc"], "spread": float(probabilities.std())}

    def _scores(self, model: nn.Module, row: Row) -> dict[str, Any]:
        dev, test = (sigmoid(self._logits(model.eval(), s, row)) for s in ("dev", "test"))
        threshold = best_threshold(self.labels("dev"), dev)
        tuned, half = scores(self.labels("test"), test, threshold), scores(self.labels("test"), test, 0.5)
        return {
            "f1_macro": tuned["f1_macro"], "f1_at_half": half["f1_macro"], "auc": tuned["auc"], "spread": float(test.std()),
            "collapsed": collapsed(test), "dev_f1": scores(self.labels("dev"), dev, threshold)["f1_macro"],
            "answers": np.packbits(test >= threshold).tobytes().hex(),  # of the test pairs in order, a bit a pair
            "gate": model.gate.weight[0].tolist() if hasattr(model, "gate") else None,
        }  # fmt: skip

    def difference(self, rows: list[dict[str, Any]], ours: list[dict[str, Any]]) -> list[float]:
        """95 % interval of F1-macro minus that of ours, seed by seed: paired bootstrap over the test pairs' passages, mean over the seeds."""
        groups, labels = [p.passage for p in self.shop.pairs["test"][::3]], self.labels("test")
        gaps = []
        for a, b in zip(rows, ours, strict=True):
            answers = [np.unpackbits(np.frombuffer(bytes.fromhex(r["answers"]), dtype=np.uint8), count=len(labels)) for r in (a, b)]
            this, other = resampled_f1(labels, answers, groups)
            gaps.append(this - other)
        return [float(v) for v in np.quantile(np.mean(gaps, axis=0), [0.025, 0.975])]


def write(table: Table, results: list[dict[str, Any]], out: Path) -> None:
    """table.json, table.md and table.png in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    lines = ["| system | seeds | test F1-macro | spread | at .5 | AUC | minus ours, 95 % |", "| --- | --- | --- | --- | --- | --- | --- |"]
    summary = []
    for name in ROWS:
        rows = [r for r in results if r["row"] == name]
        ours = {r["seed"]: r for r in results if r["row"] == "ours"}
        paired = [r for r in rows if r["seed"] in ours]
        if not rows:
            continue
        f1 = [r["f1_macro"] for r in rows]
        gap = table.difference(paired, [ours[r["seed"]] for r in paired]) if paired and name != "ours" else None
        summary.append((name, f1))
        shown = f"{gap[0]:+.3f} to {gap[1]:+.3f}" if gap else ""
        mark = " (collapsed)" if any(r["collapsed"] or r["stopped"] for r in rows) else ""
        lines.append(
            f"| {name}{mark} | {len(rows)} | {np.mean(f1):.3f} | {min(f1):.3f} to {max(f1):.3f} | {np.mean([r['f1_at_half'] for r in rows]):.3f} "
            f"| {np.mean([r['auc'] for r in rows]):.3f} | {shown} |"
        )
    (out / "table.md").write_text("\n".join(lines) + "\n")
    (out / "table.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(summary, out / "table.png")
    print("\n".join(lines), flush=True)


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
    parser = argparse.ArgumentParser(prog="python -m training.starter.table", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="raw material")
    parser.add_argument("--work", type=Path, default=Path("runs/starter"), help="folder of a training of the starter")
    parser.add_argument("--out", type=Path, default=Path("assets/table"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--backbones", type=Path, help="as given to training.starter")
    options = parser.parse_args()
    keep_freed_memory()
    table = Table(options.data, options.work, options.backbones, options.out / "table.json")
    wanted = [(name, seed) for seed in range(options.seeds) for name in ROWS]
    results = [kept for name, seed in wanted if (kept := table.kept(name, seed))]  # also those after a row that is still to be run
    for name, seed in wanted:
        if not table.kept(name, seed):
            results.append(table.run(name, seed))
            results.sort(key=lambda r: wanted.index((r["row"], r["seed"])))
            write(table, results, options.out)
    write(table, results, options.out)


if __name__ == "__main__":
    main()
