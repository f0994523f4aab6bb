"""``python -m training.starter --data DIR --out assets/starter``: everything from raw material to the embedded weights.

Stages, each resumable: images (backbones learn to name objects), words (text learns what names mean), match (focal loss on pairs), finish
(threshold and temperature from dev pairs, scores, baselines, card). DIR holds images/<object>.zip, musti/musti-train.json,
corpora/odeuropa-<language>.txt; see training/README.md.
"""

import argparse
import dataclasses
import json
import math
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from scipy.optimize import minimize_scalar
from torch import Tensor

from musti_model.config import ImageBranchConfig, MustiConfig, preset
from musti_model.model import MustiModel
from musti_model.processing import MustiProcessor

from ..losses import FocalLoss
from ..memory import keep_freed_memory
from ..metrics import best_threshold, scores
from ..train import TrainSettings, draw_curves, save_atomically, train
from .baselines import baselines, naming_probabilities
from .card import write_card
from .lexicon import LANGUAGES, Lexicon
from .match import Batch, Objective, backbone_features, batches, evaluate_pairs, pair_logits
from .pairs import balanced_pairs
from .passages import PassageMill, load_passages
from .pictures import Pictures, load_pictures
from .pretrain_images import ImageSchedule, NamingNet, pretrain
from .reading import reading_scores
from .tokenizer import load_tokenizer, train_tokenizer

VIEWS = 2  # random views of each picture whose features are kept


def images_stage(config: MustiConfig, pictures: dict[str, Pictures], work: Path, start: Path | None = None) -> dict[str, NamingNet]:
    """Both backbones; the ResNet teaches the ViT. A rough training on strongly varied views, then two on milder ones.

    start: folder of finished starter weights; their backbones go into the last training, and the first two are left out.
    """
    vit, resnet = config.branches
    sets = {"train": pictures["train"], "dev": pictures["dev"], "work": work}
    r = {"arch": resnet.backbone, "kwargs": dict(resnet.backbone_args)}
    v = {"arch": vit.backbone, "kwargs": dict(vit.backbone_args)}
    mild = {"strength": 0.5, "smoothing": 0.05}
    if start:
        teacher, student = (backbone_of(start, b, len(config.objects)) for b in (resnet, vit))
    else:
        teacher = pretrain("resnet", **r, schedule=ImageSchedule(epochs=14, small_epochs=7, lr=2e-3), **sets)
        student = pretrain("vit", **v, schedule=ImageSchedule(epochs=16, lr=1.5e-3, patch_drop=0.5), teacher=teacher, **sets)
        teacher = pretrain("resnet-polish", **r, schedule=ImageSchedule(epochs=8, lr=1e-3, seed=1, **mild), start=teacher, **sets)
        student = pretrain(
            "vit-polish", **v, schedule=ImageSchedule(epochs=3, lr=7e-4, seed=1, **mild), teacher=teacher, start=student, **sets
        )
    teacher = pretrain("resnet-fine", **r, schedule=ImageSchedule(epochs=14, lr=2e-3, seed=2, **mild), start=teacher, **sets)
    student = pretrain("vit-fine", **v, schedule=ImageSchedule(epochs=8, lr=1e-3, seed=2, **mild), teacher=teacher, start=student, **sets)
    return {vit.name: student, resnet.name: teacher}


def backbone_of(folder: Path, branch: ImageBranchConfig, n_objects: int) -> NamingNet:
    """The image backbone of finished weights, with new heads. Raises FileNotFoundError, RuntimeError for one of another shape."""
    net = NamingNet(timm.create_model(branch.backbone, num_classes=0, **branch.backbone_args), n_objects)
    prefix = f"branches.{branch.name}.backbone."
    state = load_file(folder / "model.safetensors")
    net.backbone.load_state_dict({k.removeprefix(prefix): v.float() for k, v in state.items() if k.startswith(prefix)})
    return net


def _kept(path: Path, make: Callable[[], list[dict[str, Tensor]]]) -> list[dict[str, Tensor]]:
    """What ``make`` gives, made once and read back after that."""
    if not path.exists():
        save_atomically(make(), path)
    return torch.load(path, weights_only=True, mmap=True)


class Workshop:
    """What the later stages share: pictures, passages, pairs, tokenizer, kept features."""

    def __init__(self, data: Path, work: Path, pictures: dict[str, Pictures], model: MustiModel) -> None:
        objects = model.config.objects
        self.pictures = pictures
        self.lexicons = {language: Lexicon(language, objects) for language in LANGUAGES}
        self.passages = load_passages(data, self.lexicons)
        self.pairs = {s: balanced_pairs(pictures[s], self.passages[s], seed=0) for s in ("train", "dev", "test")}
        if not (work / "tokenizer").exists():
            texts = [p.text for p in self.passages["train"]]
            forms = [f for lexicon in self.lexicons.values() for f in lexicon.forms()]
            length = model.config.text_length
            train_tokenizer(texts, forms, model.config.text["vocab_size"], length).save_pretrained(work / "tokenizer")
        self.tokenizer = load_tokenizer(work / "tokenizer")
        self.views = _kept(work / "features-train.pt", lambda: backbone_features(model, pictures["train"], VIEWS, seed=7))
        self.features = {
            s: _kept(work / f"features-{s}.pt", lambda s=s: backbone_features(model, pictures[s], 0, 0))[0] for s in ("dev", "test")
        }
        self.mill = PassageMill(self.passages["train"], self.lexicons, objects)

    def epoch(self, size: int, steps: int, seed: int, drills: int = 0):
        """epoch -> that epoch's batches; the first ``drills`` epochs have short texts, dense with names, four times as many a batch."""

        def make(epoch: int) -> Iterator[Batch]:
            drill = epoch < drills
            many = size * 4 if drill else size
            return batches(self.mill, self.tokenizer, self.pictures["train"], many, steps, seed * 1000 + epoch, VIEWS, drill)

        return make

    def dev(self, model: MustiModel) -> dict:
        """Score on every third dev pair: quick, for choosing the best epoch."""
        result = evaluate_pairs(
            model, self.tokenizer, self.features["dev"], self.passages["dev"], self.pairs["dev"][::3]
        )
        return {k: result[k] for k in ("score", "auc", "threshold", "collapsed")}


def words_stage(model: MustiModel, shop: Workshop, folder: Path, epochs: int = 24) -> None:
    """The text and the projections learn the object prototypes; no pairs yet. The epoch that reads the dev passages best is kept."""
    frozen = {"branches.vit.backbone": 0.0, "branches.resnet.backbone": 0.0}
    settings = TrainSettings(epochs=epochs, steps_per_epoch=100, lr=2e-3, lr_of=frozen)

    def reads(model: MustiModel) -> dict:
        result = reading_scores(model, shop.tokenizer, shop.passages["dev"])
        return {"score": result.pop("f1"), **result}

    data = shop.epoch(64, settings.steps_per_epoch, seed=1, drills=epochs // 3)
    train(model, data, Objective(shop.views, None), reads, settings, folder)


def match_stage(model: MustiModel, shop: Workshop, folder: Path, epochs: int = 10) -> None:
    """The whole model on pairs with the focal loss; the frozen backbones' features are kept ones."""
    frozen = {"branches.vit.backbone": 0.0, "branches.resnet.backbone": 0.0}
    settings = TrainSettings(
        epochs=epochs, steps_per_epoch=100, lr=6e-4, lr_of={**frozen, "gate": 3e-3, "scale": 1e-2, "bias": 1e-2}, patience=5
    )
    objective = Objective(shop.views, FocalLoss(gamma=2.0, alpha=0.5), naming=0.5)
    train(model, shop.epoch(32, settings.steps_per_epoch, 2), objective, shop.dev, settings, folder)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The divisor of the logits that makes the likelihood of the labels highest (Guo et al. 2017)."""

    def loss(log_t: float) -> float:
        z = logits / math.exp(log_t)
        return float(np.mean(np.logaddexp(0, z) - labels * z))

    return float(math.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x))


def finish(model: MustiModel, shop: Workshop, work: Path, out: Path, seconds: float) -> dict:
    """Threshold and temperature from the dev pairs; scores on dev and test; everything saved in ``out``."""
    run = {
        s: pair_logits(model, shop.tokenizer, shop.features[s], shop.passages[s], shop.pairs[s])[0] for s in ("dev", "test")
    }
    labels = {s: np.array([p.label for p in shop.pairs[s]]) for s in run}
    temperature = fit_temperature(run["dev"], labels["dev"])
    probabilities = {s: 1 / (1 + np.exp(-run[s] / temperature)) for s in run}
    threshold = best_threshold(labels["dev"], probabilities["dev"])
    languages = {s: [shop.passages[s][p.passage].language for p in shop.pairs[s]] for s in run}
    metrics = {s: scores(labels[s], probabilities[s], threshold, languages[s]) for s in run}
    art = [i for i, p in enumerate(shop.pairs["test"]) if shop.pictures["test"].sources[p.picture] == "pacs-art"]
    metrics["test_paintings"] = scores(labels["test"][art], probabilities["test"][art], threshold)
    naming = {s: naming_probabilities(model, f) for s, f in {"train": shop.views[0], **shop.features}.items()}
    metrics["picture_top1_test"] = float((naming["test"].argmax(1) == shop.pictures["test"].labels).mean())
    metrics["baselines"] = baselines(
        model.config.objects, {s: (shop.pairs[s], shop.passages[s], naming[s]) for s in ("train", "dev", "test")}
    )
    model.config = dataclasses.replace(model.config, threshold=threshold, temperature=temperature)
    model._hub_mixin_config = model.config.to_dict()
    metrics |= {
        "caveat": "A small model trained on proxy pairs (photographs and paintings of 52 objects with passages that name them); "
        "not the published MUSTI model.",
        "gate": {"w_image": model.gate.weight[0, 0].item(), "w_text": model.gate.weight[0, 1].item(), "bias": model.gate.bias.item()},
        "training_seconds_recorded": round(seconds),
        "match_epochs_done": len((work / "match" / "log.jsonl").read_text().splitlines()),
        "match_epochs_planned": json.loads((work / "match" / "run.json").read_text())["settings"]["epochs"],
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)  # stored in half precision: under 10 MB; loaded as float32
    MustiProcessor(model.config, shop.tokenizer).save_pretrained(out)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    for stage in ("words", "match"):
        shutil.copy(work / stage / "log.jsonl", out / f"log-{stage}.jsonl")
        rows = [json.loads(line) for line in (work / stage / "log.jsonl").read_text().splitlines()]
        draw_curves(rows, out / f"curves-{stage}.png")
    for path in sorted(work.glob("*.jsonl")):
        shutil.copy(path, out / f"log-images-{path.stem}.jsonl")
    write_card(out, model.config, metrics)
    return metrics


def recorded_seconds(work: Path) -> float:
    """Sum of the seconds that the stages' logs record, over all resumptions."""
    logs = [*work.glob("*.jsonl"), *work.glob("*/log.jsonl")]
    return sum(json.loads(line)["seconds"] for path in logs for line in path.read_text().splitlines())


def main() -> None:
    """Runs all stages; a stage that is done is read back."""
    parser = argparse.ArgumentParser(prog="python -m training.starter", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="raw material")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--work", type=Path, default=Path("runs/starter"), help="folder for checkpoints (about 2 GB)")
    parser.add_argument("--match-epochs", type=int, default=8)
    parser.add_argument("--finish", action="store_true", help="train no further: finish with the best epoch so far")
    parser.add_argument("--backbones", type=Path, help="folder of starter weights whose image backbones are trained on (an hour less)")
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    started = time.time()
    pictures = load_pictures(options.data, options.work)
    model = MustiModel(preset("starter", objects=pictures["train"].objects))
    for name, net in images_stage(model.config, pictures, options.work, options.backbones).items():
        model.branches[name].backbone.load_state_dict(net.backbone.state_dict())
    shop = Workshop(options.data, options.work, pictures, model)
    if options.finish:
        model.load_state_dict(torch.load(options.work / "match" / "best.pt", weights_only=True)["model"])
    else:
        words_stage(model, shop, options.work / "words")
        match_stage(model, shop, options.work / "match", options.match_epochs)
    metrics = finish(model, shop, options.work, options.out, recorded_seconds(options.work))
    print(json.dumps({k: metrics[k] for k in ("dev", "test", "baselines")}, indent=1))
    print(f"done, {time.time() - started:.0f} s in this run")


if __name__ == "__main__":
    main()
