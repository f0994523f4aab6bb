"""Publishes a trained run on the Hub: weights, model card filled from the evaluation, figures, run.json, in one commit.

``python -m training.publish RUN user/name``; ``--dry-run`` writes what would be pushed to RUN/publish and makes no
request.
"""

import argparse
import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from musti_model.config import MustiConfig
from musti_model.errors import WeightsError
from musti_model.weights import FILES, find_weights

from .hub.model_card import Facts, metrics, model_card
from .hub.push import PublishError, check_name, push

# The folders before a file's name, in a text: /home/me/, C:\Users\me\, ~/, file:///home/me/; not those of an address on
# the web, not "and/or".
_FOLDERS = re.compile(r"""(?:file://|(?<![\w.:/\\~-]))(?:[A-Za-z]:[\\/]|~?/)(?=[^\s/])(?:[^\s'"\\/,;:]+[\\/])*""")
_SAME = 1e-4  # thresholds and temperatures that differ by less are the same: a report may round them


@dataclass(frozen=True)
class Run:
    """A finished run. record: run.json; report: evaluation of these very weights, None without one; doubts: why it
    should not be published, without the full stop."""

    folder: Path
    config: MustiConfig
    record: dict[str, Any]
    report: dict[str, Any] | None
    doubts: list[str]


def publish(
    folder: Path,
    repo: str,
    *,
    revision: str | None = None,
    private: bool = False,
    dry_run: bool = False,
    force: bool = False,
    message: str | None = None,
    dataset: str = "MUSTI",
    license: str = "mit",
) -> str | None:
    """Publishes the run in ``folder``; what is pushed lies in ``folder/publish`` afterwards, whatever happened.

    Args:
        repo: user/name, made when there is none; revision: branch, made likewise; private: for a repository that is
            made.
        dry_run: stop before the first request; force: publish in spite of doubts (not weights that do not load).
        message: of the commit; dataset: name of the pairs; license: of the weights, as the Hub writes it.

    Returns: the commit, None for a dry run.

    Raises: PublishError.
    """
    check_name(repo)
    run = read_run(folder)
    if run.doubts and not force:
        raise PublishError(f"{run.doubts[0]}, or give --force.")
    try:
        files = stage(run, repo, dataset, license)
    except OSError as error:
        raise PublishError(
            f"{folder / 'publish'} could not be written ({error.strerror or error}); make room, or check its rights."
        ) from error
    for path, file in files.items():
        print(f"{file.stat().st_size:>13,}  {path}")
    if dry_run:
        return None
    message = (
        message or f"Weights of {run.record.get('system', run.config.name)}, seed {run.record.get('seed', 'unknown')}"
    )
    return push(files, repo, revision, private, message)


# The run --------------------------------------------------------------------------------------------------------------


def read_run(folder: Path) -> Run:
    """Reads a run and looks at it with doubt. Raises PublishError when it has no record, or weights that do not
    load."""
    record = _read_json(folder / "run.json")
    if record is None:
        raise PublishError(f"{folder} is not the folder of a run: it has no run.json that can be read.")
    if not (folder / "weights").is_dir():
        raise PublishError(f"{folder} holds no weights; let the run finish first.")
    try:
        weights = find_weights(folder / "weights")
        model, _ = weights.load()
    except WeightsError as error:
        raise PublishError(str(error)) from error
    report, doubts = _judge(folder, weights.revision, model.config)
    return Run(folder, model.config, scrub(record), report, doubts)


def _judge(folder: Path, fingerprint: str, config: MustiConfig) -> tuple[dict[str, Any] | None, list[str]]:
    """-> the evaluation if it is one of these weights (scores of others must not stand in their card), and the
    doubts."""
    report = _read_json(folder / "evaluation" / "report.json")
    if report is None:
        return None, [f"{folder} was not evaluated, or its report cannot be read; run training.evaluate on it first"]
    if not _complete(report):
        return None, [f"The evaluation of {folder} lacks scores; run training.evaluate on it again"]
    if report["weights"] != fingerprint:
        return None, [
            f"The evaluation of {folder} belongs to other weights ({report['weights']}, not {fingerprint}); "
            "evaluate again"
        ]
    for key in ("threshold", "temperature"):
        stored = getattr(config, key)
        if abs(report[key] - stored) > _SAME:
            return None, [
                f"The evaluation of {folder} was made at {key} {report[key]:.4f}, the weights carry {stored:.4f}; "
                "evaluate again"
            ]
    report = scrub(report | {"pairs_file": _name(str(report.get("pairs_file", "")))})
    if report["collapsed"]:
        return report, [
            f"{folder} collapsed: its weights give practically the same probability to every pair; train it otherwise"
        ]
    return report, []


def _complete(report: dict[str, Any]) -> bool:
    """Whether a report holds what a card cannot do without."""
    try:
        numbers = [report["threshold"], report["temperature"]] + [
            report[s][k] for s in ("dev", "test") for k in ("f1_macro", "pairs")
        ]
        languages = [scores for s in ("dev", "test") for scores in report[s].get("languages", {}).values()]
    except (KeyError, TypeError, AttributeError):
        return False
    known = isinstance(report.get("weights"), str) and isinstance(report.get("collapsed"), bool)
    return known and all(isinstance(n, (int, float)) for n in numbers) and all(isinstance(s, dict) for s in languages)


def _read_json(file: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


# What is pushed -------------------------------------------------------------------------------------------------------


def stage(run: Run, repo: str, dataset: str = "MUSTI", license: str = "mit") -> dict[str, Path]:
    """Writes ``publish`` anew in the run's folder -> {path in the repository: file}. Raises OSError."""
    target = run.folder / "publish"
    shutil.rmtree(target, ignore_errors=True)
    (target / "figures").mkdir(parents=True)
    # Only what the pipeline would fetch: no checkpoint of an optimiser, no card that a library left beside the weights.
    for file in sorted({f for pattern in FILES for f in (run.folder / "weights").glob(pattern)}):
        _copy(file, target / file.name)
    figures = _copy_figures(run.folder, target)
    facts = Facts(repo, run.config, run.record, run.report, dataset, license, figures)
    _write_json(target / "run.json", run.record)
    _write_json(target / "metrics.json", metrics(facts))
    (target / "README.md").write_text(model_card(facts), encoding="utf-8")
    return {f.relative_to(target).as_posix(): f for f in sorted(target.rglob("*")) if f.is_file()}


def _copy(file: Path, target: Path) -> None:
    """Copies a file; a JSON file loses its local paths (a tokenizer may remember where it came from). A vocabulary is
    left alone."""
    values = _read_json(file) if file.suffix == ".json" and file.name != "tokenizer.json" else None
    if values is not None and scrub(values) != values:
        _write_json(target, scrub(values))
    else:
        shutil.copyfile(file, target)


def _copy_figures(folder: Path, target: Path) -> list[str]:
    """Training curves and figures of the evaluation -> their paths in the repository."""
    figures = []
    for file in [*folder.glob("curves.png"), *sorted((folder / "evaluation").glob("*.png"))]:
        path = f"figures/{file.name}"
        if path in figures:  # the evaluation may have curves too
            path = f"figures/evaluation-{file.name}"
        shutil.copyfile(file, target / path)
        figures.append(path)
    return figures


def _write_json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def scrub(value: Any) -> Any:
    """The same value without the folders of absolute paths, in keys and texts, at any depth: nobody needs to know
    them."""
    if isinstance(value, dict):
        return {scrub(key): scrub(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub(v) for v in value]
    if not isinstance(value, str):
        return value
    whole = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute() or value.startswith("~/")
    return _name(value) if whole and len(PureWindowsPath(value).parts) > 1 else _FOLDERS.sub("", value)


def _name(path: str) -> str:
    """A file's name, whichever system wrote its path."""
    return PureWindowsPath(path).name


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.publish", description="Publish a trained and evaluated run on the Hub."
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("repo", help="user/name on the Hub")
    parser.add_argument(
        "--revision", metavar="BRANCH", help="branch to push to, made when there is none (default: the main one)"
    )
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--dry-run", action="store_true", help="write RUN/publish and list it; no request is made")
    parser.add_argument(
        "--force", action="store_true", help="publish a run that is not evaluated or that collapsed; its card says so"
    )
    parser.add_argument("--message", help="of the commit")
    parser.add_argument("--dataset", default="MUSTI", help="name of the pairs, for the card (default: %(default)s)")
    parser.add_argument("--license", default="mit", help="of the weights, as the Hub writes it (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line -> exit status: 0, or 2 after one sentence on stderr."""
    options = vars(_arguments().parse_args(argv))
    folder, repo = options.pop("run"), options.pop("repo")
    try:
        commit = publish(folder, repo, **options)
    except PublishError as error:
        print(error, file=sys.stderr)
        return 2
    if commit is None:
        print(f"Dry run: nothing was pushed to {repo}; {folder / 'publish'} holds what would be.")
    else:
        print(f"Pushed to {repo} as commit {commit}.\nMUSTI_MODEL={repo}@{commit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
