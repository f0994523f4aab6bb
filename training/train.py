"""``python -m training.train SYSTEM --pairs OUT/pairs.json --out runs/NAME``: trains any system of ``training/systems``
on MUSTI pairs.

Several processes: ``torchrun --nproc-per-node N -m training.train ...`` or ``accelerate launch -m training.train ...``.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from musti_model.errors import InputError, WeightsError
from musti_model.records import MustiPair, fingerprint, read_pairs

from .data.parts import divide, usable
from .loop.memory import keep_freed_memory
from .loop.train import CollapseError, patiently, train
from .report.metrics import best_threshold, collapsed, scores, sigmoid
from .systems import System, load_system, system_names
from .systems.learners import Learner, PairBatches, build, labels_of, loss_step, pair_logits

DEFAULT_FOLDS = 5


def main(arguments: list[str] | None = None) -> int:
    """Trains one run; returns the exit status (2: bad input or settings, one sentence on standard error; 3:
    collapsed)."""
    options = parser().parse_args(arguments)
    options.command = "python -m training.train " + shlex.join(sys.argv[1:] if arguments is None else arguments)
    try:
        run(options)
    except (InputError, WeightsError, ValueError, OSError) as error:
        print(str(error).strip().splitlines()[0], file=sys.stderr)
        return 2
    except CollapseError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


def parser() -> argparse.ArgumentParser:
    """The options; ``training.evaluate`` reads those of the split from the run."""
    result = argparse.ArgumentParser(prog="python -m training.train", description=__doc__.split("\n\n")[0])
    result.add_argument("system", help=", ".join(system_names()))
    result.add_argument(
        "--pairs", type=Path, required=True, help="MUSTI file with local pictures, as training.prepare writes it"
    )
    result.add_argument("--out", type=Path, required=True, help="folder of the run; the same command goes on with it")
    result.add_argument(
        "--size", choices=("base", "starter"), default="base", help="starter: the same system small enough for a CPU"
    )
    result.add_argument(
        "--init", help='"pretrained", "random", or weights (folder, Hub id, "starter"); default: as the system says'
    )
    result.add_argument("--folds", type=int, default=DEFAULT_FOLDS)
    result.add_argument("--fold", type=int, default=0, help="the fold to test on; the next one is for development")
    result.add_argument(
        "--whole", action="store_true", help="leave out no pair that ties two folds together (folds are less even)"
    )
    result.add_argument(
        "--leave-out", metavar="LANGUAGE", help="train without a language and test on it, instead of folds"
    )
    result.add_argument("--seed", type=int, default=0)
    result.add_argument(
        "--split-seed", type=int, default=0, help="apart from --seed, so that runs over seeds share their test pairs"
    )
    result.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the system; may be given again: --set loss.alpha=0.3 --set train.epochs=5",
    )
    return result


def run(options: argparse.Namespace) -> None:
    """Data, split, system, loop, weights. Raises as ``main`` catches."""
    keep_freed_memory()
    # Without being told, accelerate takes several processes without a GPU for one.
    accelerator = Accelerator(cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()))
    lead = accelerator.is_main_process
    pairs = from_lead(lambda: usable(*read_pairs(options.pairs)), accelerator)
    parts, split_print = divide(pairs, vars(options))
    system = load_system(options.system, options.size, changes_of(options.set))
    settings = system.settings(len(parts["train"]), options.seed)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    learner, said = build(
        system, options.pairs.parent, options.init, options.out / "names.json", accelerator.device, lead
    )
    learner.model.to(accelerator.device)
    if lead:
        print(
            f"{system.about} {said}\n" + ", ".join(f"{len(rows)} {part} pairs" for part, rows in parts.items()),
            flush=True,
        )
    batches = PairBatches(
        learner, parts["train"], system.batch, options.seed, accelerator.process_index, accelerator.num_processes
    )
    record = record_of(options, system, pairs, split_print) | {"start": said}
    evaluate = lambda _model: dev_row(learner, parts["dev"], system, settings.precision)  # noqa: E731
    try:
        best = train(
            learner.model,
            batches,
            loss_step(learner, system.loss),
            evaluate,
            settings,
            options.out,
            record,
            accelerator,
        )
    except CollapseError:
        if lead:  # so that the collapse can be measured and compared
            patiently(lambda: learner.save(options.out / "weights", 0.5, 1.0))
        raise
    if lead:
        threshold = best["threshold"] if system.threshold == "dev" else float(system.threshold)
        # else evaluate has set temperature and threshold since
        if not saved_since(options.out / "weights", options.out / "best.pt"):
            patiently(lambda: learner.save(options.out / "weights", threshold, 1.0))
        print(
            f"Best epoch {best['epoch']}, development F1-macro {best['score']:.4f}. Next: python -m "
            f"training.evaluate {options.out}"
        )
    accelerator.end_training()


def from_lead(make: Callable[[], Any], accelerator: Accelerator) -> Any:
    """What the leading process makes, for all processes: two that look at the same files may not find the same. Raises
    what ``make`` raises; the other processes then end without a word."""
    box: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            box = [make()]
        except Exception:
            broadcast_object_list([SystemExit(2)])
            raise
    broadcast_object_list(box)
    if isinstance(box[0], SystemExit):
        raise box[0]
    return box[0]


def saved_since(weights: Path, best: Path) -> bool:
    """Whether the weights were saved after the best epoch."""
    file = weights / "model.safetensors"
    return (weights / "config.json").exists() and file.exists() and file.stat().st_mtime >= best.stat().st_mtime


def record_of(options: argparse.Namespace, system: System, pairs: list[MustiPair], split_print: str) -> dict[str, Any]:
    """What it takes to repeat the run, for run.json."""
    chosen = ("folds", "fold", "whole", "leave_out", "split_seed", "size", "init")
    loss = {
        f: getattr(system.loss, f)
        for f in ("kind", "gamma", "alpha", "normalization", "branches", "gate", "gate_other", "gate_none")
    }
    return {
        "system": system.name,
        "about": system.about,
        "seed": options.seed,
        "model": system.model.to_dict(),
        "loss": loss,
        "batch": system.batch,
        "threshold": system.threshold,
        "data": fingerprint(pairs),
        "split": split_print,
        "pairs_file": str(options.pairs),
        "options": {k: getattr(options, k) for k in chosen},
        "command": options.command,
    }


def changes_of(pairs: list[str]) -> dict[str, Any]:
    """["loss.alpha=0.3"] -> {"loss.alpha": 0.3}; values are JSON, or else text. Raises ValueError."""
    changes = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--set takes KEY=VALUE, not {pair!r}.")
        try:
            changes[key] = json.loads(value)
        except json.JSONDecodeError:
            changes[key] = value
    return changes


def dev_row(learner: Learner, pairs: list[MustiPair], system: System, precision: str) -> dict[str, Any]:
    """Development F1-macro at the best threshold, or at the system's own."""
    probabilities = sigmoid(pair_logits(learner, pairs, precision=precision))
    labels = labels_of(pairs).numpy().astype(int)
    if not np.isfinite(probabilities).all():
        return {"score": 0.0, "auc": 0.5, "threshold": 0.5, "collapsed": True}
    threshold = best_threshold(labels, probabilities) if system.threshold == "dev" else float(system.threshold)
    result = scores(labels, probabilities, threshold)
    return {
        "score": result["f1_macro"],
        "auc": result["auc"],
        "threshold": threshold,
        "collapsed": collapsed(probabilities),
    }


if __name__ == "__main__":
    raise SystemExit(main())
