"""``python -m training.starter --data DIR --out assets/starter``: everything from raw material to the embedded weights.

Stages, each resumable: images (backbones learn to name objects), words (text learns what names mean), match (focal loss on pairs), finish
(threshold and temperature from dev pairs, scores, baselines, card). DIR holds images/<object>.zip, musti/musti-train.json,
corpora/odeuropa-<language>.txt; see training/README.md.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from musti_model.config import preset
from musti_model.model import MustiModel

from ..memory import keep_freed_memory
from .finish import finish, recorded_seconds
from .pictures import load_pictures
from .stages import Workshop, finished_backbones, images_stage, match_stage, words_stage


def main() -> None:
    """Runs all stages; a stage that is done is read back."""
    parser = argparse.ArgumentParser(prog="python -m training.starter", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="raw material")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--work", type=Path, default=Path("runs/starter"), help="folder for checkpoints (about 2 GB)")
    parser.add_argument("--words-epochs", type=int, default=40)
    parser.add_argument("--match-epochs", type=int, default=10)
    parser.add_argument("--finish", action="store_true", help="train no further: finish with the best epoch so far")
    parser.add_argument("--backbones", type=Path, help="folder of starter weights whose image backbones are taken as they are")
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    started = time.time()
    pictures = load_pictures(options.data, options.work)
    model = MustiModel(preset("starter", objects=pictures["train"].objects))
    if options.backbones:
        finished_backbones(model, options.backbones, options.work)
    else:
        for name, net in images_stage(model.config, pictures, options.work).items():
            model.branches[name].backbone.load_state_dict(net.backbone.state_dict())
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    shop = Workshop(options.data, options.work, pictures, model)
    if options.finish:
        model.load_state_dict(torch.load(options.work / "match" / "best.pt", weights_only=True, map_location="cpu")["model"])
    else:
        words_stage(model, shop, options.work / "words", options.words_epochs)
        match_stage(model, shop, options.work / "match", options.match_epochs)
    metrics = finish(model, shop, options.work, options.out, recorded_seconds(options.work))
    print(json.dumps({k: metrics[k] for k in ("dev", "test", "baselines")}, indent=1))
    print(f"done, {time.time() - started:.0f} s in this run")


if __name__ == "__main__":
    main()
