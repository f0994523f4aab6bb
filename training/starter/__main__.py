"""``python -m training.starter --data DIR --out assets/starter``: everything from raw material to the embedded weights.

Stages, each resumable: names (words and pictures learn the same prototypes of the objects), match (pairs, by the focal
loss), finish (8-bit weights, the gate's score of words, threshold and temperature from dev pairs, scores, card). DIR
holds pretrained/, images/<object>.zip, musti/musti-train.json, corpora/odeuropa-<language>.txt; see training/README.md.
Some hours on two cores that multiply bfloat16, in float32 where they do not.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from ..loop.memory import keep_freed_memory
from .finish import finish
from .measure import summary
from .pictures import load_pictures
from .stages import LARGE, SMALL, Workshop, match_stage, names_stage, settle_arithmetic
from .towers import name_objects, place_objects, starter_model, text_of, toward_pretrained


def main() -> None:
    """Runs all stages; a stage that is done is read back."""
    parser = argparse.ArgumentParser(prog="python -m training.starter", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="raw material")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/starter"), help="folder for checkpoints and pixels (about 6 GB)"
    )
    parser.add_argument(
        "--names", type=int, nargs=2, default=(4, 100), metavar=("EPOCHS", "STEPS"), help="epochs, and steps in each"
    )
    parser.add_argument("--match", type=int, nargs=2, default=(4, 200), metavar=("EPOCHS", "STEPS"))
    parser.add_argument("--layers", type=int, help="of the text encoder, only the first so many")
    parser.add_argument(
        "--large", action="store_true", help="larger batches, and image backbones that go on learning: for a GPU"
    )
    options = parser.parse_args()
    recipe = LARGE if options.large else SMALL
    settle_arithmetic()
    keep_freed_memory()
    torch.manual_seed(0)
    started = time.time()

    def told(what: str) -> None:
        print(f"{time.time() - started:.0f} s: {what}", flush=True)

    pictures = load_pictures(options.data, options.work)
    told("pictures are read")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, tokenizer = starter_model(options.data, pictures["train"].objects, **text_of(options.layers))
    model.to(device)
    name_objects(model, tokenizer)
    if not (options.work / "names" / "checkpoint.pt").exists():  # a run that goes on has its own weights
        place_objects(model, pictures["train"], recipe.each or 240)
    shop = Workshop(options.data, options.work, pictures, model, tokenizer)
    told("the towers stand, the passages are read")
    epochs, steps = options.names
    names_stage(model, shop, options.work / "names", epochs, steps, recipe)
    told("names are learned")
    epochs, steps = options.match
    match_stage(model, shop, options.work / "match", epochs, steps, recipe)
    told("pairs are learned")
    toward_pretrained(model, options.data, recipe.back)
    sizes = " ".join(
        f"--{stage} {epochs} {steps}" for stage, (epochs, steps) in (("names", options.names), ("match", options.match))
    )
    kind = ("--large " if options.large else "") + (f"--layers {options.layers} " if options.layers else "")
    command = f"python -m training.starter --data DIR --out assets/starter {kind}{sizes}"
    metrics = finish(model, shop, options.data, options.work, options.out, command)
    print(json.dumps(summary(metrics), indent=1))
    told("done")


if __name__ == "__main__":
    main()
