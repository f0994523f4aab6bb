"""The training stages of the starter: images, words, match; and what the last two share."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from musti_model.config import MustiConfig
from musti_model.model import MustiModel

from ..loop import TrainSettings, save_atomically, skipping, train
from ..losses import FocalLoss
from .lexicon import LANGUAGES, Lexicon
from .match import Batch, Objective, backbone_features, batches, evaluate_pairs, mosaic_features
from .pairs import balanced_pairs
from .passages import PassageMill, load_passages
from .pictures import Pictures
from .pretrain_images import ImageSchedule, NamingNet, pretrain
from .reading import reading_scores
from .tokenizer import load_tokenizer, train_tokenizer

VIEWS = 2  # random views of each picture whose features are kept
MOSAICS = 8192  # pictures of four pictures whose features are kept


def images_stage(config: MustiConfig, pictures: dict[str, Pictures], work: Path) -> dict[str, NamingNet]:
    """Both backbones; the ResNet teaches the ViT. A rough training on strongly varied views, then two on milder ones."""
    vit, resnet = config.branches
    sets = {"train": pictures["train"], "dev": pictures["dev"], "work": work}
    r = {"arch": resnet.backbone, "kwargs": dict(resnet.backbone_args)}
    v = {"arch": vit.backbone, "kwargs": dict(vit.backbone_args)}
    mild = {"strength": 0.5, "smoothing": 0.05}
    teacher = pretrain("resnet", **r, schedule=ImageSchedule(epochs=14, small_epochs=7, lr=2e-3), **sets)
    student = pretrain("vit", **v, schedule=ImageSchedule(epochs=16, lr=1.5e-3, patch_drop=0.5), teacher=teacher, **sets)
    teacher = pretrain("resnet-polish", **r, schedule=ImageSchedule(epochs=8, lr=1e-3, seed=1, **mild), start=teacher, **sets)
    student = pretrain(
        "vit-polish", **v, schedule=ImageSchedule(epochs=3, lr=7e-4, seed=1, **mild), teacher=teacher, start=student, **sets
    )
    teacher = pretrain("resnet-fine", **r, schedule=ImageSchedule(epochs=10, lr=2e-3, seed=2, **mild), start=teacher, **sets)
    student = pretrain("vit-fine", **v, schedule=ImageSchedule(epochs=4, lr=1e-3, seed=2, **mild), teacher=teacher, start=student, **sets)
    return {vit.name: student, resnet.name: teacher}


def finished_backbones(model: MustiModel, folder: Path, work: Path) -> None:
    """Takes the image backbones of finished weights as they are, and the logs of their training. Raises FileNotFoundError, RuntimeError."""
    state = load_file(folder / "model.safetensors")
    for name, branch in model.branches.items():
        prefix = f"branches.{name}.backbone."
        branch.backbone.load_state_dict({k.removeprefix(prefix): v.float() for k, v in state.items() if k.startswith(prefix)})
    for log in folder.glob("log-images-*.jsonl"):
        shutil.copy(log, work / log.name.removeprefix("log-images-"))


def _kept(
    model: MustiModel, work: Path, split: str, pictures: Pictures, make: Callable[[], list[dict[str, Tensor]]]
) -> list[dict[str, Tensor]]:
    """Features of one split that ``make`` gives, made once for these backbones and pictures and read back after that."""
    weights = [p for b in model.branches.values() for p in b.backbone.state_dict().values()]
    names = "\n".join(pictures.names.tolist()).encode()
    digest = hashlib.sha256(names + b"".join(p.cpu().numpy().tobytes() for p in weights)).hexdigest()[:10]
    path = work / f"features-{split}-{digest}.pt"
    if not path.exists():
        save_atomically(make(), path)
    return torch.load(path, weights_only=True, mmap=True)


class Workshop:
    """What the later stages share: pictures, passages, pairs, tokenizer, kept features."""

    def __init__(self, data: Path, work: Path, pictures: dict[str, Pictures], model: MustiModel) -> None:
        objects = model.config.objects
        self.pictures, self.padding = pictures, model.config.tokenizer_padding
        self.lexicons = {language: Lexicon(language, objects) for language in LANGUAGES}
        self.passages = load_passages(data, self.lexicons)
        self.pairs = {s: balanced_pairs(pictures[s], self.passages[s], seed=0) for s in ("train", "dev", "test")}
        if not (work / "tokenizer").exists():
            texts = [p.text for p in self.passages["train"]]
            forms = [f for lexicon in self.lexicons.values() for f in lexicon.forms()]
            length = model.config.text_length
            train_tokenizer(texts, forms, model.config.text["vocab_size"], length).save_pretrained(work / "tokenizer")
        self.tokenizer = load_tokenizer(work / "tokenizer")
        self.views = _kept(model, work, "train", pictures["train"], lambda: backbone_features(model, pictures["train"], VIEWS, seed=7))
        self.features = {
            s: _kept(model, work, s, pictures[s], lambda s=s: backbone_features(model, pictures[s], 0, 0))[0] for s in ("dev", "test")
        }
        many = min(MOSAICS, len(pictures["train"]))
        self.mosaics = _kept(model, work, "mosaics", pictures["train"], lambda: [mosaic_features(model, pictures["train"], many, seed=9)])[0]
        self.mill = PassageMill(self.passages["train"], self.lexicons, objects)
        self.record = {"model": model.config.to_dict(), "data": self._fingerprint()}

    def _fingerprint(self) -> str:
        """Of all pictures' names, passages and pairs, split by split: equal for equal material."""
        parts = [[list(p.names), [t.text for t in self.passages[s]], [str(q) for q in self.pairs[s]]] for s, p in self.pictures.items()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def epoch(self, size: int, steps: int, seed: int, drills: int = 0, padding: str | None = None):
        """epoch -> that epoch's batches; the first ``drills`` epochs have short texts, dense with names, four times as many a batch."""
        padding = padding or self.padding

        def make(epoch: int) -> Iterator[Batch]:
            drill = epoch < drills
            many = size * 4 if drill else size
            return batches(self.mill, self.tokenizer, self.pictures["train"], many, steps, seed * 1000 + epoch, VIEWS, drill, padding)

        return make

    def dev(self, model: MustiModel) -> dict:
        """Score on every third dev pair: quick, for choosing the best epoch."""
        result = evaluate_pairs(
            model, self.tokenizer, self.features["dev"], self.passages["dev"], self.pairs["dev"][::3]
        )
        return {k: result[k] for k in ("score", "auc", "threshold", "collapsed")}


FROZEN = {"branches.vit.backbone": 0.0, "branches.resnet.backbone": 0.0}


def words_stage(model: MustiModel, shop: Workshop, folder: Path, epochs: int, steps: int = 100) -> None:
    """The text and the projections learn the object prototypes; no pairs yet. The epoch that reads the dev passages best is kept."""
    settings = TrainSettings(epochs=epochs, steps_per_epoch=steps, lr=2e-3, lr_of=FROZEN)
    batch, drills, none = 64, epochs // 3, 0.3

    def reads(model: MustiModel) -> dict:
        result = reading_scores(model, shop.tokenizer, shop.passages["dev"])
        return {"score": result["average_precision"], **result}

    record = shop.record | {"objective": {"batch": batch, "drills": drills, "none": none}}
    data = skipping(shop.epoch(batch, steps, seed=1, drills=drills))
    train(model, data, Objective(shop.views, None, none=none), reads, settings, folder, record)


def match_stage(model: MustiModel, shop: Workshop, folder: Path, epochs: int, steps: int = 100) -> None:
    """The whole model on pairs with the focal loss; the frozen backbones' features are kept ones."""
    rates = {**FROZEN, "gate": 1e-2, "scale": 1e-2, "bias": 1e-2}
    settings = TrainSettings(epochs=epochs, steps_per_epoch=steps, lr=6e-4, lr_of=rates, patience=5)
    batch, focal, naming, none = 32, {"gamma": 2.0, "alpha": 0.5}, 0.5, 0.5
    record = shop.record | {"objective": {"batch": batch, "focal": focal, "naming": naming, "none": none, "mosaics": MOSAICS}}
    objective = Objective(shop.views, FocalLoss(**focal), naming, none, mosaics=shop.mosaics)
    train(model, skipping(shop.epoch(batch, steps, 2)), objective, shop.dev, settings, folder, record)
