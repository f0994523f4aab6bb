"""``python -m training.predict IN.json OUT.json``: a MUSTI file in, the same file with its labels filled in out.

A pair that cannot be answered is reported by its id and stays as it was. A stopped run goes on when the same command is
given again.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from musti_model import MustiPipeline
from musti_model.errors import InputError, WeightsError
from musti_model.records import BadRecord, MustiPair, iter_records, parse_records
from musti_model.weights import find_weights

from .lexicon.objects import object_scores, shared_objects
from .lexicon.vocabulary import Vocabulary
from .report.metrics import f1_macro, sigmoid
from .systems.learners import MustiLearner, load_learner, pair_logits

Job = tuple[int, MustiPair | BadRecord]


class Predictor:
    """Answers pairs with any system's weights. root: folder that local pictures are relative to; vocabulary: for
    subtask 2, or None."""

    def __init__(self, weights: str | None, root: Path, vocabulary: Vocabulary | None = None) -> None:
        found = find_weights(weights)
        self.learner = load_learner(found.own_folder, root)
        self.root, self.vocabulary = root, vocabulary
        self.pipe: MustiPipeline | None = None
        if vocabulary:
            if not isinstance(self.learner, MustiLearner):
                raise InputError(
                    f"{found.name} is a detector with BERT; subtask 2 needs a model of pictures and words."
                )
            device = str(next(self.learner.model.parameters()).device)
            self.pipe = MustiPipeline(
                self.learner.model, self.learner.processor, found, device=device, precision="float32"
            )

    def __call__(self, pairs: list[MustiPair]) -> list[dict[str, Any] | str]:
        """For each pair {"subtask1_label", "probability", "subtask2_labels"?}, or what is wrong with it."""
        try:
            return self._answers(pairs)
        except InputError as error:
            if len(pairs) == 1:
                return [str(error)]
            return [self([pair])[0] for pair in pairs]  # one of them is bad; the others are not to suffer

    def _answers(self, pairs: list[MustiPair]) -> list[dict[str, Any] | str]:
        for pair in pairs:
            if "://" in pair.image:
                raise InputError("Its picture is not on this machine; run training.prepare first.")
        config = self.learner.model.config
        answers: list[dict[str, Any] | str] = []
        for pair, p in zip(
            pairs, sigmoid(pair_logits(self.learner, pairs, quiet=True) / config.temperature), strict=True
        ):
            if not np.isfinite(p):
                raise InputError("The weights give no number for this pair.")
            yes = bool(p >= config.threshold)
            answer: dict[str, Any] = {"subtask1_label": "YES" if yes else "NO", "probability": round(float(p), 6)}
            if self.vocabulary and self.pipe:
                shared = (
                    shared_objects(self.pipe, self.root / pair.image, pair.text, pair.language, self.vocabulary)
                    if yes
                    else []
                )
                answer["subtask2_labels"] = shared
            answers.append(answer)
        return answers


_predictor: Predictor | None = None  # of a worker process


def _start(weights: str | None, root: Path, vocabulary: Path | None, subtask2: bool, threads: int) -> None:
    global _predictor
    torch.set_num_threads(threads)
    _predictor = Predictor(weights, root, Vocabulary(vocabulary) if subtask2 else None)


def _work(jobs: list[Job]) -> list[dict[str, Any]]:
    """Jobs -> lines of the part file: position, the record with its labels, and what was wrong."""
    good = [item for _, item in jobs if isinstance(item, MustiPair)]
    if _predictor is None:
        raise RuntimeError("This process was not started by ``_start``.")
    answers = iter(_predictor(good) if good else [])
    lines: list[dict[str, Any]] = []
    for position, item in jobs:
        answer = next(answers) if isinstance(item, MustiPair) else str(item.reason)
        if isinstance(item, BadRecord) or isinstance(answer, str):
            lines.append({"position": position, "id": item.id, "record": item.record, "bad": answer})
            continue
        labels = {k: answer[k] for k in ("subtask1_label", "subtask2_labels") if k in answer}
        known = {"label": item.label, "objects": item.objects, "language": item.language}
        lines.append(
            {
                "position": position,
                "id": item.id,
                "record": item.record | labels,
                "probability": answer["probability"],
                "known": known,
            }
        )
    return lines


def predict(
    source: Path, out: Path, weights: str | None, subtask2: bool, vocabulary: Path | None, processes: int, batch: int
) -> dict[str, Any]:
    """Fills in a file; only a chunk of it is in memory. -> counts, the bad records, scores where labels were known.

    Raises: InputError, WeightsError, OSError.
    """
    part = out.with_name(out.name + ".part")
    # what is wrong with them is said before any work
    found, known = find_weights(weights), Vocabulary(vocabulary) if subtask2 else None
    for sentence in known.notices if known else []:
        print(sentence, file=sys.stderr)
    job = {
        "weights": found.revision,
        "settings": hashlib.sha256((found.own_folder / "config.json").read_bytes()).hexdigest()[:12],
        "subtask2": subtask2,
        "vocabulary": str(vocabulary),
        "input": [source.name, source.stat().st_size if source.exists() else 0],
    }
    done = _resume(part, job)
    jobs = islice(enumerate(parse_records(iter_records(source)), start=1), done, None)
    arguments = (weights, source.parent, vocabulary, subtask2, max(1, (os.cpu_count() or 1) // processes))
    with (
        open(part, "a", encoding="utf-8") as file,
        tqdm(desc="pairs", unit=" pairs", initial=done, mininterval=1) as bar,
    ):
        for lines in _spread(_chunks(jobs, batch), processes, arguments):
            # ASCII: half a surrogate pair cannot be written otherwise
            file.write("".join(json.dumps(line) + "\n" for line in lines))
            file.flush()
            bar.update(len(lines))
    report = _assemble(part, out, known)
    part.unlink()
    return report


def _chunks(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
    jobs = iter(jobs)
    while chunk := list(islice(jobs, size)):
        yield chunk


def _spread(chunks: Iterator[list[Job]], processes: int, arguments: tuple[Any, ...]) -> Iterator[list[dict[str, Any]]]:
    """In order. Chunks are handed out a few at a time: a pool's own imap would read the whole file ahead."""
    if processes == 1:
        _start(*arguments)
        yield from map(_work, chunks)
        return
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, context, _start, arguments) as pool:
            while ahead := [pool.submit(_work, c) for c in islice(chunks, processes * 4)]:
                for result in ahead:
                    yield result.result()
    except BrokenProcessPool as error:
        raise InputError(
            "A process could not start or was killed (no memory left?); the same command goes on, --processes 1 "
            "tells more."
        ) from error


def _resume(part: Path, job: dict[str, Any]) -> int:
    """Number of records done. Starts the part file, or cuts off its torn last line. Raises InputError for another job's
    file."""
    if not part.exists():
        part.write_text(json.dumps(job) + "\n")
        return 0
    whole = part.read_bytes().rpartition(b"\n")[0] + b"\n"
    first, *lines = whole.splitlines()
    if not first or json.loads(first) != job:
        raise InputError(
            f"{part} belongs to other weights, another file or other options; remove it, or choose another output."
        )
    os.truncate(part, len(whole))
    return len(lines)


def _assemble(part: Path, out: Path, vocabulary: Vocabulary | None) -> dict[str, Any]:
    """The output file, record by record, written beside and moved into place."""
    temporary = out.with_name(out.name + ".tmp")
    bad, labels, said, counts = [], [], [], {"YES": 0, "NO": 0}
    objects: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    with open(part, encoding="utf-8") as lines, open(temporary, "w", encoding="utf-8") as file:
        next(lines)
        file.write('{"pairs": [')
        for number, line in enumerate(map(json.loads, lines)):
            file.write((",\n" if number else "\n") + json.dumps(_as_given(line["record"])))
            if "bad" in line:
                bad.append(f"{line['id'] or 'record ' + str(line['position'])}: {line['bad']}")
                continue
            counts[line["record"]["subtask1_label"]] += 1
            if line["known"]["label"] is not None:
                labels.append(line["known"]["label"])
                said.append(line["record"]["subtask1_label"] == "YES")
            if vocabulary and (line["known"]["label"] == 0 or line["known"]["objects"]):
                row = (line["known"]["objects"], line["record"].get("subtask2_labels", []), line["known"]["language"])
                for column, value in zip(objects, row):
                    column.append(value)
        file.write("\n]}\n")
    os.replace(temporary, out)
    report: dict[str, Any] = {"counts": counts, "bad": bad}
    if len(set(labels)) == 2:
        report["f1_macro"] = f1_macro(np.array(labels), np.array(said, dtype=float))
    if objects[0] and vocabulary:
        report["objects"] = object_scores(*objects, vocabulary)
    return report


def _as_given(record: Any) -> Any:
    """A record as it was before ``training.prepare`` put the local picture into it."""
    if isinstance(record, dict) and "image_url" in record:
        record = record | {"image": record["image_url"]}
    if isinstance(record, dict):
        record = {k: v for k, v in record.items() if k not in ("image_url", "missing")}
    return record


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, 1 when records were bad (all others are answered), 2 for one sentence on standard
    error."""
    parser = argparse.ArgumentParser(prog="python -m training.predict", description=__doc__.split("\n\n")[0])
    parser.add_argument("source", type=Path, help="MUSTI file with local pictures, as training.prepare writes it")
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--weights", help="folder (also RUN/weights) or Hub id; default $MUSTI_MODEL or the embedded starter"
    )
    parser.add_argument("--subtask2", action="store_true", help="also name the shared objects")
    parser.add_argument(
        "--vocabulary", type=Path, help="folder of olfactory-objects-<language>.csv; default: this project's lexicon"
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    o = parser.parse_args(arguments)
    try:
        report = predict(o.source, o.out, o.weights, o.subtask2, o.vocabulary, max(1, o.processes), max(1, o.batch))
    except (InputError, WeightsError, OSError) as error:
        print(str(error).strip().splitlines()[0], file=sys.stderr)
        return 2
    print(
        f"{report['counts']['YES']} YES, {report['counts']['NO']} NO, {len(report['bad'])} not answered; written to "
        f"{o.out}."
    )
    for sentence in report["bad"]:
        print(f"  {sentence}")
    if "f1_macro" in report:
        print(f"F1-macro where labels were known: {report['f1_macro']:.4f}")
    if "objects" in report:
        print("Objects where known: " + ", ".join(f"{k} {v:.3f}" for k, v in report["objects"].items()))
    return 1 if report["bad"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
