"""``python -m training.starter.measure --data DIR --weights FOLDER``: the scores of weights that are there already, and
their card anew. With ``--calibrate`` the gate is fitted to words of training pairs before, and temperature, bias and
threshold to the dev pairs; the weights are written anew."""

import argparse
import json
from pathlib import Path
from typing import Any

from musti_model import MustiPipeline

from ..loop.memory import keep_freed_memory
from .finish import calibrate, explained, measured, save_weights, write_metrics
from .pictures import load_pictures
from .stages import Workshop, settle_arithmetic

SHOWN = ("f1_macro", "auc", "ece", "lost", "widest", "gate_auc", "gate_in_quarter", "nothing_yes", "picture_top1")


def summary(metrics: dict[str, Any]) -> dict[str, Any]:
    """The scores that matter most, of all that metrics.json holds."""
    result = {s: {k: metrics[s][k] for k in SHOWN if k in metrics[s]} for s in ("dev", "test")}
    result["languages"] = {tag: row["f1_macro"] for tag, row in metrics["test"]["languages"].items()}
    result["sources"] = {source: row["f1_macro"] for source, row in metrics["test"]["sources"].items()}
    return result | {k: metrics[k] for k in ("explained", "photographs") if k in metrics}


def main() -> None:
    """Measures, and writes metrics.json and README.md in the folder of the weights."""
    parser = argparse.ArgumentParser(prog="python -m training.starter.measure", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="raw material")
    parser.add_argument("--weights", type=Path, default=Path("assets/starter"), help="folder that the training wrote")
    parser.add_argument("--work", type=Path, default=Path("runs/starter"), help="folder for pixels")
    parser.add_argument("--calibrate", action="store_true", help="fit the gate and the answers, and write the weights")
    options = parser.parse_args()
    keep_freed_memory()
    settle_arithmetic()
    pipe = MustiPipeline.from_pretrained(options.weights)
    shop = Workshop(
        options.data, options.work, load_pictures(options.data, options.work), pipe.model, pipe.processor.tokenizer
    )
    metrics, dev = json.loads((options.weights / "metrics.json").read_text()), None
    if options.calibrate:
        dev = calibrate(pipe.model, shop)
        metrics["weights"] = save_weights(pipe.model, options.weights)
        metrics["calibrated"] = True
    metrics |= measured(pipe.model, shop, dev) | explained(options.weights, shop, options.data)
    write_metrics(options.weights, pipe.model.config, metrics)
    print(json.dumps(summary(metrics), indent=1))


if __name__ == "__main__":
    main()
