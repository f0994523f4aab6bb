"""``python -m training.starter.choices --data DIR --work runs/starter``: measures the design choices that have a default.

What padding does (mask or carry) and how the ResNet's features reach the text's grid (natural or published axes), each alone changed from the
starter's configuration. Needs a work folder in which ``python -m training.starter`` has finished its stages: image features and the text
side are taken from there; projections, gate and vote start anew and are trained alike for every choice.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import torch

from musti_model.config import MustiConfig, preset
from musti_model.model import MustiModel

from ..loop import TrainSettings, skipping, train
from ..losses import FocalLoss
from ..memory import keep_freed_memory
from .match import Objective
from .pictures import load_pictures, object_names
from .stages import Workshop

TEXT_SIDE = ("text_embedding.", "text_encoder.", "pooler.", "prototypes", "none_logit", "hidden_norm.")


def choices(config: MustiConfig) -> dict[str, MustiConfig]:
    """Name -> configuration."""
    vit, resnet = config.branches
    published = (vit, dataclasses.replace(resnet, axes="published"))
    return {
        "mask, natural axes": config,
        "carry, natural axes": dataclasses.replace(config, padding="carry"),
        "mask, published axes (ResNet)": dataclasses.replace(config, branches=published),
    }


def measure(name: str, config: MustiConfig, options: argparse.Namespace) -> dict:
    """Trains one choice briefly and returns its best dev row."""
    torch.manual_seed(0)
    model = MustiModel(config)
    state = torch.load(options.work / "words" / "best.pt", weights_only=True)["model"]
    model.load_state_dict({k: v for k, v in state.items() if k.startswith(TEXT_SIDE)}, strict=False)
    shop = Workshop(options.data, options.work, load_pictures(options.data, options.work), model)
    frozen = {f"branches.{b.name}.backbone": 0.0 for b in config.branches}
    settings = TrainSettings(options.epochs, steps_per_epoch=100, lr=6e-4, lr_of={**frozen, "gate": 1e-2, "scale": 1e-2, "bias": 1e-2})
    objective = Objective(shop.views, FocalLoss(gamma=2.0, alpha=0.5), naming=0.5, none=0.5)
    folder = options.work / "choices" / "".join(c if c.isalnum() else "-" for c in name)
    return train(model, skipping(shop.epoch(16, settings.steps_per_epoch, seed=3)), objective, shop.dev, settings, folder, shop.record)


def main() -> None:
    """Measures every choice; a choice that is done is read back."""
    parser = argparse.ArgumentParser(prog="python -m training.starter.choices", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="raw material")
    parser.add_argument("--work", type=Path, default=Path("runs/starter"), help="folder of a finished training of the starter")
    parser.add_argument("--epochs", type=int, default=3, help="of 100 steps of 16 passages")
    options = parser.parse_args()
    keep_freed_memory()
    rows = {n: measure(n, c, options) for n, c in choices(preset("starter", objects=object_names(options.data))).items()}
    print("| choice | dev F1-macro | dev AUC | seconds an epoch |\n| --- | --- | --- | --- |")
    for name, row in rows.items():
        print(f"| {name} | {row['score']:.3f} | {row['auc']:.3f} | {row['seconds']:.0f} |")
    (options.work / "choices.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
