"""``python -m training.evaluate RUN``: how good a run's weights are, and how far to trust the numbers.

Temperature and threshold come from the development pairs and are saved with the weights; the test pairs are only
scored. Also ``python -m training.evaluate --weights FOLDER --pairs FILE --out DIR`` for any weights on any labelled
file, as they are.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from musti_model.errors import InputError, WeightsError
from musti_model.records import MustiPair, fingerprint, read_pairs

from .data.folds import components
from .data.parts import divide, usable
from .report.metrics import (
    FLATTEST,
    best_threshold,
    collapsed,
    expected_calibration_error,
    fit_temperature,
    interval,
    resampled_f1,
    scores,
    sigmoid,
)
from .report.plots import draw_confusion, draw_curve, draw_reliability
from .systems.learners import labels_of, load_learner, pair_logits

DRAWS = 2000


def main(arguments: list[str] | None = None) -> int:
    """Writes evaluation/{report.json, report.md, logits.json, *.png}; returns the exit status (2: one sentence on
    standard error)."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path, nargs="?", help="folder of a finished run")
    parser.add_argument("--pairs", type=Path, help="MUSTI file with local pictures (of a run: if it has moved)")
    parser.add_argument("--weights", type=Path, help="folder of weights, instead of a run")
    parser.add_argument("--out", type=Path, help="folder for the report of --weights")
    options = parser.parse_args(arguments)
    try:
        if options.run:
            folder = evaluate_run(options.run, options.pairs)
        elif options.weights and options.pairs and options.out:
            folder = evaluate_weights(options.weights, options.pairs, options.out)
        else:
            raise InputError("Give the folder of a run, or --weights, --pairs and --out.")
    except (InputError, WeightsError, OSError, ValueError) as error:
        print(str(error).strip().splitlines()[0], file=sys.stderr)
        return 2
    print((folder / "report.md").read_text())
    return 0


def evaluate_run(run: Path, pairs_file: Path | None = None) -> Path:
    """Scores a run's weights, saves temperature and threshold with them, and writes the report. -> its folder.

    Raises: InputError when the run is not finished or its pairs are not those it was trained on; WeightsError, OSError.
    """
    if not (run / "weights" / "config.json").exists():
        raise InputError(f"{run} holds no finished run; train it first.")
    about = json.loads((run / "run.json").read_text())
    file = pairs_file or Path(about["pairs_file"])
    pairs = usable(*read_pairs(file))
    parts, split_print = divide(pairs, about["options"])
    if fingerprint(pairs) != about["data"] or split_print != about["split"]:
        raise InputError(f"{file} does not hold the pairs that {run} was trained on; give the right file with --pairs.")
    learner = load_learner(run / "weights", file.parent)
    logits = {part: pair_logits(learner, parts[part]) for part in ("dev", "test")}
    labels = {part: labels_of(parts[part]).numpy().astype(int) for part in logits}
    finite = all(np.isfinite(z).all() for z in logits.values())
    temperature = fit_temperature(logits["dev"], labels["dev"]) if finite else 1.0
    dev = sigmoid(logits["dev"] / temperature)
    if about["threshold"] == "dev":
        threshold = best_threshold(labels["dev"], dev) if finite else 0.5
    else:  # a number is meant before the temperature
        threshold = float(sigmoid(np.log(float(about["threshold"]) / (1 - float(about["threshold"]))) / temperature))
    if temperature >= FLATTEST:
        print(FLAT, file=sys.stderr)
    learner.save(run / "weights", threshold, temperature)
    report = {
        k: about[k]
        for k in (
            "system",
            "about",
            "seed",
            "data",
            "split",
            "pairs_file",
            "options",
            "settings",
            "loss",
            "model",
            "batch",
            "start",
            "versions",
            "command",
        )
    }
    report |= {
        "fold": about["options"]["fold"],
        "threshold": threshold,
        "temperature": temperature,
        "weights": fingerprint_of(run / "weights"),
    }
    for part in logits:
        report[part] = measure(parts[part], logits[part], threshold, temperature)
    report["collapsed"] = collapsed(sigmoid(logits["test"]))
    _write_card(run / "weights", report)
    return write(run / "evaluation", report, {part: (parts[part], logits[part]) for part in logits})


def evaluate_weights(weights: Path, file: Path, out: Path) -> Path:
    """Scores weights on every labelled pair of a file, at the threshold and temperature they were saved with. Raises as
    ``evaluate_run``."""
    pairs = usable(*read_pairs(file))
    learner = load_learner(weights, file.parent)
    logits = pair_logits(learner, pairs)
    config = learner.model.config
    report = {
        "system": config.name,
        "about": f"{weights} on {file.name}, at their own threshold.",
        "data": fingerprint(pairs),
        "pairs_file": str(file),
        "threshold": config.threshold,
        "temperature": config.temperature,
        "weights": fingerprint_of(weights),
        "test": measure(pairs, logits, config.threshold, config.temperature),
        "collapsed": collapsed(sigmoid(logits)),
    }
    return write(out, report, {"test": (pairs, logits)})


def measure(pairs: list[MustiPair], logits: np.ndarray, threshold: float, temperature: float) -> dict[str, Any]:
    """Scores of all pairs and of each language.

    Intervals are 95 % bootstrap intervals of F1-macro; pairs that share a picture or a passage are drawn together. ECE
    before and after the temperature. logits: [N], before it.
    """
    labels, groups = labels_of(pairs).numpy().astype(int), np.array(components(pairs))
    probabilities = np.nan_to_num(sigmoid(logits / temperature), nan=0.0)
    languages = np.array([p.language for p in pairs])

    def of(rows: np.ndarray) -> dict[str, Any]:
        y, p = labels[rows], probabilities[rows]
        result = scores(y, p, threshold)
        result["interval"] = {"f1_macro": interval(resampled_f1(y, [p >= threshold], groups[rows], DRAWS)[0])}
        result["groups"] = len(np.unique(groups[rows]))
        result["ece"] = expected_calibration_error(y, p)
        result["ece_before"] = expected_calibration_error(y, np.nan_to_num(sigmoid(logits[rows]), nan=0.0))
        return result

    tags = sorted(set(languages))
    return of(np.arange(len(pairs))) | {"languages": {t: of(np.flatnonzero(languages == t)) for t in tags}}


def fingerprint_of(weights: Path) -> str:
    """As the page shows it."""
    return "sha256:" + hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest()[:12]


def write(out: Path, report: dict[str, Any], sets: dict[str, tuple[list[MustiPair], np.ndarray]]) -> Path:
    """report.json, report.md, logits.json (what ``training.compare`` reads) and the figures of the test pairs. ->
    ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    rows = {
        part: [
            {"id": p.id, "label": p.label, "language": p.language, "group": g, "logit": float(z)}
            for p, g, z in zip(pairs, components(pairs), logits, strict=True)
        ]
        for part, (pairs, logits) in sets.items()
    }
    (out / "logits.json").write_text(json.dumps(rows) + "\n")
    pairs, logits = sets["test"]
    labels = labels_of(pairs).numpy().astype(int)
    calibrated = np.nan_to_num(sigmoid(logits / report["temperature"]), nan=0.0)
    draw_curve("pr", labels, calibrated, report["threshold"], out / "pr.png")
    draw_curve("roc", labels, calibrated, report["threshold"], out / "roc.png")
    draw_confusion(labels, calibrated >= report["threshold"], out / "confusion.png")
    draw_reliability(labels, np.nan_to_num(sigmoid(logits), nan=0.0), calibrated, out / "reliability.png")
    (out / "report.md").write_text(markdown(report))
    return out


FLAT = (
    "The temperature ran to its bound: on the development pairs the logits tell nothing about the labels, so every "
    "probability lies near .5. Train longer, or on more pairs."
)


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"# {report['system']}", "", report["about"], ""]
    if report["collapsed"]:
        lines += ["**Collapsed: every pair gets practically the same probability. These weights answer nothing.**", ""]
    lines += [
        (
            f"Threshold {report['threshold']:.3f}, temperature {report['temperature']:.3f}. Intervals: 95 %, bootstrap "
            "over groups of pairs that share a picture or a passage."
        ),
        "",
        "| pairs | F1-macro | 95 % | F1 NO | F1 YES | AUC | ECE before, after | number | groups |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for part in ("dev", "test"):
        if part in report:
            lines.append(_line(f"**{part}**", report[part]))
            lines += [_line(f"{part}, {tag}", s) for tag, s in report[part]["languages"].items()]
    figures = {
        "pr.png": "Precision and recall",
        "roc.png": "ROC",
        "confusion.png": "Confusion",
        "reliability.png": "Reliability",
    }
    lines += ["", "Figures are of the test pairs.", "", *(f"![{title}]({file})" for file, title in figures.items())]
    if report["temperature"] >= FLATTEST:
        lines += ["", f"**{FLAT}**"]
    if "tensors start from" in report.get("start", ""):
        lines += [
            "",
            (
                f"{report['start']} Pairs held out here may have been read by those weights (the embedded starter read "
                "the passages of MUSTI's training file, not its pictures or labels)."
            ),
        ]
    if "command" in report:
        lines += [
            "",
            f"Made with `{report['command']}`, seed {report['seed']}, data {report['data']}, split {report['split']}.",
        ]
    return "\n".join(lines) + "\n"


def _line(name: str, s: dict[str, Any]) -> str:
    low, high = s["interval"]["f1_macro"]
    return (
        f"| {name} | {s['f1_macro']:.4f} | {low:.3f} to {high:.3f} | {s['f1_no']:.4f} | {s['f1_yes']:.4f} | "
        f"{s['auc']:.3f} | {s['ece_before']:.3f}, {s['ece']:.3f} | {s['pairs']} | {s['groups']} |"
    )


def _write_card(weights: Path, report: dict[str, Any]) -> None:
    """metrics.json beside the weights: what the page shows."""
    caveat = (
        f"{report['about']} Trained on MUSTI pairs; scores are of this project's own split, not of the official "
        "test set."
    )
    card = {k: report[k] for k in ("dev", "test", "threshold", "temperature", "collapsed", "split", "data")} | {
        "caveat": caveat
    }
    (weights / "metrics.json").write_text(json.dumps(card, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
