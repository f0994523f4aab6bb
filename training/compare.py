"""``python -m training.compare RUN... [--against SYSTEM] [--out FILE.md]``: any number of evaluated runs in one table.

Runs that differ by seed and fold alone make a row: mean and spread. Differences are paired: only runs with the same
split and seed are held against each other, on the same test pairs and the same bootstrap samples.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musti_model.errors import InputError

from .report.metrics import resampled_f1, sigmoid


@dataclass(frozen=True)
class Run:
    """An evaluated run. system: name, with the size; kind: all that makes it more than a seed's difference from another
    run, flat; ids, labels, guesses, groups: of its test pairs, [N]."""

    folder: Path
    system: str
    kind: dict[str, Any]
    report: dict[str, Any]
    ids: tuple[str, ...]
    labels: np.ndarray
    guesses: np.ndarray
    groups: np.ndarray


def load_run(folder: Path) -> Run:
    """Raises InputError for a run without evaluation."""
    try:
        report = json.loads((folder / "evaluation" / "report.json").read_text())
        rows = json.loads((folder / "evaluation" / "logits.json").read_text())["test"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} has no evaluation; run training.evaluate on it first.") from error
    rows.sort(key=lambda r: r["id"])
    size = report.get("options", {}).get("size", "base")
    logits = np.array([r["logit"] for r in rows])
    guesses = np.nan_to_num(sigmoid(logits / report["temperature"])) >= report["threshold"]
    settings = {
        k: v for k, v in report.get("settings", {}).items() if k not in ("seed", "steps_per_epoch", "checkpoint_steps")
    }
    options = {k: v for k, v in report.get("options", {}).items() if k in ("init", "leave_out", "whole", "folds")}
    kind = _flat(
        {
            "model": report.get("model"),
            "loss": report.get("loss"),
            "train": settings,
            "batch": report.get("batch"),
            **options,
        }
    )
    kind = {k: v for k, v in kind.items() if k not in ("model.threshold", "model.temperature")}
    return Run(
        folder,
        report["system"] + ("" if size == "base" else f" ({size} size)"),
        kind,
        report,
        tuple(r["id"] for r in rows),
        np.array([r["label"] for r in rows]),
        guesses,
        np.array([r["group"] for r in rows]),
    )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries -> {"model.text.hidden_size": ...}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def rows_of(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs that differ by seed and fold alone, under one name; where others bear the same name, what differs is added
    to it."""
    kinds: dict[str, list[list[Run]]] = {}
    for run in runs:
        alike = kinds.setdefault(run.system, [])
        same = next((rows for rows in alike if rows[0].kind == run.kind), None)
        if same is None:
            alike.append([run])
        else:
            same.append(run)
    named: dict[str, list[Run]] = {}
    for system, alike in kinds.items():
        keys = sorted({k for rows in alike for k in rows[0].kind})
        unlike = [k for k in keys if len({json.dumps(rows[0].kind.get(k)) for rows in alike}) > 1]
        for rows in alike:
            named[system + "".join(f", {k}={rows[0].kind.get(k)}" for k in unlike)] = rows
    return named


def differences(this: list[Run], other: list[Run], draws: int = 2000) -> tuple[float, list[float], int] | None:
    """F1-macro of ``this`` minus ``other``: mean, 95 % interval, number of paired runs; None when no split is shared.

    Runs of the same split and seed are paired; every pair of runs sees the same bootstrap samples of groups.
    """
    gaps = []
    for a in this:
        for b in other:
            if [a.report.get(k) for k in ("split", "seed")] != [b.report.get(k) for k in ("split", "seed")]:
                continue
            if a.ids != b.ids:
                raise InputError(
                    f"{a.folder} and {b.folder} were evaluated on different pairs of the same split; evaluate them "
                    "again."
                )
            values = resampled_f1(a.labels, [a.guesses, b.guesses], a.groups, draws)
            gaps.append(values[0] - values[1])
    if not gaps:
        return None
    mean = np.mean(gaps, axis=0)
    return float(mean.mean()), [float(v) for v in np.quantile(mean, [0.025, 0.975])], len(gaps)


def table(runs: list[Run], against: str | None = None) -> str:
    """A Markdown table. Raises InputError when there is no system called ``against``."""
    systems = rows_of(runs)
    against = against or next(iter(systems))
    if against not in systems:
        raise InputError(f"There is no run of {against!r} among {', '.join(systems)}.")
    lines = [
        f"| system | runs | test F1-macro | spread (sd) | F1 NO | F1 YES | AUC | ECE | minus {against}, 95 % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, rows in sorted(
        systems.items(), key=lambda item: -np.mean([r.report["test"]["f1_macro"] for r in item[1]])
    ):
        tests = [r.report["test"] for r in rows]
        mean = {k: np.mean([t[k] for t in tests]) for k in ("f1_macro", "f1_no", "f1_yes", "auc", "ece")}
        spread = f"{np.std([t['f1_macro'] for t in tests], ddof=1):.4f}" if len(tests) > 1 else "one run"
        gap = None if name == against else differences(rows, systems[against])
        shown = "" if gap is None else f"{gap[0]:+.4f} ({gap[1][0]:+.3f} to {gap[1][1]:+.3f}, {gap[2]} paired)"
        mark = " (collapsed)" if any(r.report["collapsed"] for r in rows) else ""
        lines.append(
            f"| {name}{mark} | {len(rows)} | {mean['f1_macro']:.4f} | {spread} | {mean['f1_no']:.4f} | "
            f"{mean['f1_yes']:.4f} | {mean['auc']:.3f} | {mean['ece']:.3f} | {shown} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; returns the exit status (2: one sentence on standard error)."""
    parser = argparse.ArgumentParser(prog="python -m training.compare", description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--against", help="system that the others are held against; default: that of the first run")
    parser.add_argument("--out", type=Path, help="also write the table there")
    options = parser.parse_args(arguments)
    try:
        text = table([load_run(folder) for folder in options.runs], options.against)
        if options.out:
            options.out.write_text(text)
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
