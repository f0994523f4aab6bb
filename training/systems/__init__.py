"""Every system of the paper, and ours, as a configuration: ``*.toml`` in this folder, one table a system.

A table may extend another one; what it says itself counts. ``training.train``, ``evaluate``, ``predict`` and
``compare`` take any of them.
"""

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from musti_model.config import ImageBranchConfig, MustiConfig, preset
from musti_model.fusion import GATES

from ..loop.losses import FocalLoss
from ..loop.train import TrainSettings
from .detector import DetectorConfig

FOLDER = Path(__file__).parent
# Branches of the starter's size by the kind of the branch they stand for. There is no small Swin among the embedded
# weights: it starts anew.
SMALL_SWIN = {"img_size": 96, "window_size": 3, "embed_dim": 48, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]}


@dataclass(frozen=True)
class LossSettings:
    """kind: "focal" or "entropy" (binary cross-entropy: focal with gamma 0 and no alpha); gamma, alpha, normalization:
    of FocalLoss; branches: weight of the same loss on each branch's own logit, so that the better branch does not let
    the other one starve; gate: weight of the loss of a gate that opens word by word (``gate_loss``; 0 leaves it out);
    gate_other, gate_none: its weights ``other`` and ``none``."""

    kind: str = "focal"
    gamma: float = 2.0
    alpha: float | None = 0.5
    normalization: str = "mean"
    branches: float = 0.0
    gate: float = 0.0
    gate_other: float = 4.0
    gate_none: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("focal", "entropy"):
            raise ValueError(f"A loss is focal or entropy, not {self.kind!r}.")
        if min(self.branches, self.gate, self.gate_other, self.gate_none) < 0:
            raise ValueError("The weights of the branches' and the gate's own loss are at least 0.")
        self.make()

    def make(self) -> FocalLoss:
        """The loss function of (logits, labels)."""
        return FocalLoss(0.0, None) if self.kind == "entropy" else FocalLoss(self.gamma, self.alpha, self.normalization)


@dataclass(frozen=True)
class System:
    """One system: name; about: a sentence; model: what is built; loss; train: fields of TrainSettings except
    steps_per_epoch; batch: pairs a batch, all processes together (a step takes ``accumulate`` batches); threshold:
    "dev" (chosen on development pairs) or a number; start: where weights come from, "pretrained" (timm and
    transformers), "random", or a folder of weights."""

    name: str
    about: str
    model: MustiConfig | DetectorConfig
    loss: LossSettings
    train: dict[str, Any]
    batch: int
    threshold: str | float
    start: str

    def settings(self, pairs: int, seed: int) -> TrainSettings:
        """For a training set of ``pairs``; the last, smaller batch of an epoch is left out. Raises ValueError for less
        than one batch."""
        accumulate = self.train.get("accumulate", 1)
        return TrainSettings(steps_per_epoch=pairs // (self.batch * accumulate), seed=seed, **self.train)


def _tables() -> dict[str, dict[str, Any]]:
    return {
        n: t
        for path in sorted(FOLDER.glob("*.toml"))
        for n, t in tomllib.loads(path.read_text(encoding="utf-8")).items()
    }


def system_names() -> list[str]:
    """All systems."""
    return [n for n, t in _tables().items() if not t.get("abstract")]


def load_system(name: str, size: str = "base", changes: dict[str, Any] | None = None) -> System:
    """A system by name.

    Args:
        size: "base" (as described) or "starter": the same system with the starter's backbones and text encoder, for two
            CPU cores.
        changes: {"loss.alpha": .3, "train.lr": 1e-4, "batch": 8 ...}, counting before the file.

    Raises: ValueError for an unknown name, key or value.
    """
    tables = _tables()
    if name not in tables or tables[name].get("abstract"):
        raise ValueError(
            f"There is no system {name!r}; there are {', '.join(n for n in tables if not tables[n].get('abstract'))}."
        )
    if size not in ("base", "starter"):
        raise ValueError(f"size is base or starter, not {size!r}.")
    table = _extended(tables, name)
    for key, value in (changes or {}).items():
        part, _, inner = key.rpartition(".")
        (table.setdefault(part, {}) if part else table)[inner] = value
    unknown = set(table) - {f.name for f in fields(System)} - {"kind"}
    if unknown:
        raise ValueError(
            f"A system does not know {', '.join(sorted(unknown))}; change model.NAME, loss.NAME, train.NAME, batch, "
            "threshold or start."
        )
    train, known = table["train"], {f.name for f in fields(TrainSettings)} - {"steps_per_epoch", "seed"}
    if set(train) - known:
        raise ValueError(
            f"train does not know {', '.join(sorted(set(train) - known))}; it knows {', '.join(sorted(known))}."
        )
    losses = {f.name for f in fields(LossSettings)}
    if set(table["loss"]) - losses:
        raise ValueError(
            f"loss does not know {', '.join(sorted(set(table['loss']) - losses))}; it knows "
            f"{', '.join(sorted(losses))}."
        )
    make = _detector if table["kind"] == "detector" else _musti
    try:
        model = make(name, table["model"], size)
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"The model of {name} cannot be built from these settings ({error}); check their spelling."
        ) from error
    # the published ones have other shapes
    start = "starter" if size == "starter" and table["start"] == "pretrained" else table["start"]
    about = (
        table["about"] if size == "base" else f"Built small, at the starter's size, after this system: {table['about']}"
    )
    if table["loss"].get("gate") and not (isinstance(model, MustiConfig) and GATES[model.gate].by_word):
        raise ValueError(
            "Only a gate that opens word by word has a loss of its own; set loss.gate=0, or model.gate to "
            f"{' or '.join(n for n, g in GATES.items() if g.by_word)}."
        )
    return System(
        name=name,
        about=about,
        model=model,
        loss=LossSettings(**_nullable(table["loss"])),
        train=train,
        batch=table["batch"],
        threshold=table["threshold"],
        start=start,
    )


def _extended(tables: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """The table with all that it extends, key by key; in [model] a list of branches replaces the older one."""
    table = {k: v for k, v in tables[name].items() if k not in ("extends", "abstract")}
    if "extends" not in tables[name]:
        return table
    base = _extended(tables, tables[name]["extends"])
    return base | {k: base.get(k, {}) | v if isinstance(v, dict) else v for k, v in table.items()}


def _nullable(table: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: alpha = "none"."""
    return {k: None if v == "none" else v for k, v in table.items()}


def _musti(name: str, table: dict[str, Any], size: str) -> MustiConfig:
    changes = dict(table)
    base = preset(changes.pop("preset"))
    chosen = changes.pop("branches", [b.name for b in base.branches])
    named = {b.name: b for b in base.branches}
    branches = [named[b] if isinstance(b, str) else ImageBranchConfig(**b) for b in chosen]
    config = MustiConfig.from_dict({**base.to_dict(), "branches": tuple(branches), "name": name, **changes})
    return config if size == "base" else at_starter_size(config)


def _detector(name: str, table: dict[str, Any], size: str) -> DetectorConfig:
    config = DetectorConfig(name=name, **table)
    if size == "base":
        return config
    small = preset("starter")
    return replace(config, text=small.text, text_length=small.text_length)


def at_starter_size(config: MustiConfig) -> MustiConfig:
    """The same architecture with the backbones, text encoder and text grid of the embedded starter."""
    small = preset("starter")
    vit, cnn = small.branches
    branches = []
    for b in config.branches:
        if b.backbone.startswith("swin"):
            like = ImageBranchConfig(b.name, "swin_tiny_patch4_window7_224", SMALL_SWIN, image_size=96)
        else:
            like = vit if b.backbone.startswith("vit") else cnn
        project = like.project and b.axes == "natural"
        branches.append(
            replace(like, name=b.name, axes=b.axes, project=project, norm_eps=b.norm_eps, resample=b.resample)
        )
    return replace(config, branches=tuple(branches), text=small.text, text_length=small.text_length)
