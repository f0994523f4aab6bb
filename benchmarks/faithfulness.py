"""How true the explanations are: ``python -m benchmarks.faithfulness --pairs pairs.json [--weights ID_OR_FOLDER]
[--number 100] [--out DIR]``.

pairs.json: a MUSTI file with local pictures and, for pointing, ``subtask2_labels`` (``python -m
training.starter.export`` makes one). Only pairs that are labelled YES and answered YES count: what explains a YES is
something that is there, and can be taken away. Measured are

- deletion and insertion (Petsiuk et al. 2018) of words and of 8 x 8 cells of the picture, against random orders;
- word pointing: whether the word with the most evidence is one that names the shared object;
- grid pointing (Boehle et al. 2021): four pictures in one, of which the passage names one: the share of the positive
  evidence that lies in its quarter; of pictures that the model names right by themselves, where the weights can name;
- parameter randomisation (Adebayo et al. 2018): rank correlation of a map with that of the same model with random
  weights;
- agreement between branches: rank correlation of their maps;
- completeness of the gate's effect.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from musti_model import MustiPipeline
from musti_model.methods import BEST, EVIDENCE, combined, total
from musti_model.methods.deletion_insertion import of_regions, of_words, to_cells
from musti_model.methods.gate_effect import gate_effects
from musti_model.processing import open_image
from musti_model.question import Question
from musti_model.records import MustiPair, read_pairs
from musti_model.results import Faithfulness
from training.lexicon.vocabulary import Vocabulary


@dataclass(frozen=True)
class Sample:
    """A YES pair that is answered YES. objects: ids of the shared objects; mentioned: of all that the passage may
    name."""

    pair: MustiPair
    objects: set[str]
    mentioned: set[str]


@dataclass(frozen=True)
class Explained:
    """A pair, and by name every explanation of it. words: [words] each; maps: [h, w] each; gate_errors: of the gate's
    effect, one a branch."""

    question: Question
    words: dict[str, Tensor]
    maps: dict[str, Tensor]
    gate_errors: list[float]


def explained(pipe: MustiPipeline, image: Any, passage: str) -> Explained:
    """Each method for the whole model and, of maps, for each branch; attention, and what the gate mixed and changed, by
    branch."""
    question = pipe.ask(image, passage)
    looks, effects = pipe.explain(question, evidence=False), gate_effects(question)
    words: dict[str, Tensor] = {}
    maps: dict[str, Tensor] = {}
    for method in EVIDENCE:
        values = method.run(question)
        if method.kind == "words":
            words[method.name] = total(values)
        else:
            maps |= ({method.name: combined(values)} if values else {}) | {
                f"{method.name}, {n}": m for n, m in values.items()
            }
    words |= {f"attention, {n}": torch.tensor(values) for n, values in looks.word_attention.items()}
    share, lets_in = ("gate opening", "gate map") if pipe.model.fusion.by_word else ("gate share", "gate share")
    maps |= {n.replace("gate:", f"{lets_in}:").replace(":", ", "): m for n, m in looks.maps.grids.items()}
    for n, effect in effects.items():
        words |= {f"{share}, {n}": torch.tensor(looks.gates[n].words), f"gate effect, {n}": torch.tensor(effect.words)}
        maps |= {} if effect.patches is None else {f"gate effect, {n}": torch.from_numpy(effect.patches)}
    return Explained(question, words, maps, [e.error for e in effects.values()])


def samples(pipe: MustiPipeline, pairs: list[MustiPair], number: int, vocabulary: Vocabulary) -> list[Sample]:
    """The first ``number`` usable pairs."""
    result: list[Sample] = []
    for start in range(0, len(pairs), 32):
        if len(result) >= number:
            break
        rows = [p for p in pairs[start : start + 32] if p.label == 1]
        answers = pipe.predict([p.image for p in rows], [p.text for p in rows]) if rows else []
        for pair, answer in zip(rows, answers, strict=True):
            if answer.label == "YES":
                objects = {o for name in pair.objects for o in vocabulary.objects_of(name, pair.language)}
                result.append(Sample(pair, objects, {m.object for m in vocabulary.find(pair.text, pair.language)}))
    return result[:number]


# Single measures ------------------------------------------------------------------------------------------------------


def points_at_name(values: Tensor, pipe: MustiPipeline, sample: Sample, vocabulary: Vocabulary) -> bool | None:
    """Whether the top word lies in a name of a shared object; None when no such name was read."""
    words = pipe.processor.passages([sample.pair.text])
    found = [m for m in vocabulary.find(words.texts[0], sample.pair.language) if m.object in sample.objects]
    names = [any(w.start < m.end and w.end > m.start for m in found) for w in words.words[0]]
    return names[int(values.argmax())] if any(names) else None


def named_right(pipe: MustiPipeline, sample: Sample) -> bool:
    """Whether the model's best guess at the picture is a shared object; True for weights that cannot name."""
    seen = pipe(sample.pair.image, sample.pair.text).objects_in_picture
    return not seen or seen[0][0] in sample.objects


def grids(chosen: list[Sample], seed: int = 0, side: int = 224) -> Iterator[tuple[Sample, Image.Image, int]]:
    """(sample, its picture among three others whose objects its passage does not name, its quarter) where there are
    three such."""
    rng = np.random.default_rng(seed)
    for sample in chosen:
        others: dict[frozenset[str], Sample] = {}
        for i in rng.permutation(len(chosen)):
            other = chosen[i]
            if other.objects and not other.objects & (sample.mentioned | sample.objects):
                others.setdefault(frozenset(other.objects), other)
        if len(others) < 3:
            continue
        at, four = int(rng.integers(4)), list(others.values())[:3]
        four.insert(at, sample)
        canvas = Image.new("RGB", (side, side))
        for k, s in enumerate(four):
            canvas.paste(
                open_image(s.pair.image).resize((side // 2, side // 2)), (k % 2 * side // 2, k // 2 * side // 2)
            )
        yield sample, canvas, at


def share_in_quarter(values: Tensor, at: int) -> float:
    """Share of the positive values of a map that lies in a quarter (raster order); 0 where nothing is positive."""
    cells = to_cells(values).clamp(min=0)
    half = len(cells) // 2
    quarter = cells[at // 2 * half :, at % 2 * half :][:half, :half]
    return float(quarter.sum() / cells.sum()) if cells.sum() > 0 else 0.0


def randomised(pipe: MustiPipeline) -> MustiPipeline:
    """The same pipeline with every weight matrix drawn anew."""
    twin = copy.copy(pipe)
    twin.model = copy.deepcopy(pipe.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in twin.model.parameters():
            if p.ndim > 1 and p.numel() > 1:
                p.copy_((torch.randn(p.shape, generator=generator) * p.detach().float().cpu().std()).to(p))
    return twin


def correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two maps or lists, 0 for constant ones."""
    x, y = (np.asarray(torch.as_tensor(side).detach().float().cpu()).ravel() for side in (a, b))
    return float(np.nan_to_num(spearmanr(x, y).statistic)) if np.ptp(x) and np.ptp(y) else 0.0


# The whole ------------------------------------------------------------------------------------------------------------


def measure(pipe: MustiPipeline, chosen: list[Sample], vocabulary: Vocabulary) -> dict[str, Any]:
    """All measures over the samples: {"words": {method: {...}}, "regions": {...}, "gate": {...}, "agreement": ...,
    "pairs": n}."""
    table: dict[str, dict[str, dict[str, list[float]]]] = {"words": {}, "regions": {}}
    gate_errors, agreement, twin = [], [], randomised(pipe)

    def note(kind: str, method: str, **values: float | None) -> None:
        for key, value in values.items():
            if value is not None:
                table[kind].setdefault(method, {}).setdefault(key, []).append(float(value))

    def note_curves(kind: str, curves: dict[str, Faithfulness]) -> None:
        for method, f in curves.items():
            note(kind, method, deletion=f.deletion, insertion=f.insertion, better=f.deletion < f.random_deletion)
            note(kind, method, random_deletion=f.random_deletion, random_insertion=f.random_insertion)

    for sample in tqdm(chosen, desc="pairs", mininterval=5):
        own, other = (explained(p, sample.pair.image, sample.pair.text) for p in (pipe, twin))
        note_curves("words", of_words(own.question, own.words, full=True))
        note_curves("regions", of_regions(own.question, own.maps, full=True))
        for n, values in own.words.items():
            note(
                "words",
                n,
                pointing=points_at_name(values, pipe, sample, vocabulary),
                randomised=correlation(values, other.words[n]),
            )
        for n, values in own.maps.items():
            note("regions", n, randomised=correlation(values, other.maps[n]))
        branches = [to_cells(m) for n, m in own.maps.items() if n.startswith(f"{BEST['regions'].name}, ")]
        agreement += [correlation(*branches)] if len(branches) == 2 else []
        gate_errors += own.gate_errors
    pointed = [s for s in chosen if s.objects and named_right(pipe, s)]
    for sample, canvas, at in tqdm(list(grids(pointed)), desc="grids", mininterval=5):
        for n, values in explained(pipe, canvas, sample.pair.text).maps.items():
            note("regions", n, grid=share_in_quarter(values, at))
    result: dict[str, Any] = {
        kind: {
            m: {k: float(np.mean(v)) for k, v in columns.items()} | {"grids": len(columns.get("grid", []))}
            for m, columns in rows.items()
        }
        for kind, rows in table.items()
    }
    result["gate"] = {"worst": max(gate_errors), "median": float(np.median(gate_errors))} if gate_errors else None
    return result | {"agreement": float(np.mean(agreement)) if agreement else None, "pairs": len(chosen)}


def report(result: dict[str, Any]) -> str:
    """Two Markdown tables and a line on the gate."""

    def shown(row: dict[str, float], key: str) -> str:
        return (
            f"{row[key]:.0%}"
            if key in ("better", "pointing") and key in row
            else f"{row[key]:.3f}"
            if key in row
            else ""
        )

    lines = []
    for kind, last, title in (("words", "pointing", "word pointing"), ("regions", "grid", "grid pointing")):
        lines += [
            f"| {kind} | deletion | insertion | better than random | {title} | randomised |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        rows = sorted(result[kind].items(), key=lambda r: r[1]["deletion"])
        lines += [
            f"| {n} | "
            + " | ".join(shown(r, k) for k in ("deletion", "insertion", "better", last, "randomised"))
            + " |"
            for n, r in rows
        ]
        some = rows[0][1]
        lines += [
            (
                f"| random | {some['random_deletion']:.3f} | {some['random_insertion']:.3f} | | "
                f"{'0.250' if last == 'grid' else ''} | |"
            ),
            "",
        ]
    if result["gate"]:
        lines.append(
            f"Gate effect: completeness error at most {result['gate']['worst']:.2%}, median "
            f"{result['gate']['median']:.2%}."
        )
    if result["agreement"] is not None:
        lines.append(f"Agreement of the two branches' maps (rank correlation): {result['agreement']:.2f}.")
    lines.append(
        f"{result['pairs']} pairs answered YES rightly; {max(r['grids'] for r in result['regions'].values())} grids."
    )
    return "\n".join(lines)


def main() -> None:
    """Prints the tables; with --out also writes them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faithfulness", description=__doc__.split("\n\n")[0])
    parser.add_argument("--pairs", required=True, help="a MUSTI file with local pictures")
    parser.add_argument("--weights", help="Hub id or folder; default: the embedded starter")
    parser.add_argument(
        "--number",
        type=int,
        default=100,
        help="pairs answered YES rightly to measure (default 100); grids need some dozens",
    )
    parser.add_argument("--out", type=Path, help="folder for faithfulness.md, .json and .png")
    options = parser.parse_args()
    started = time.time()
    pipe = MustiPipeline.from_pretrained(options.weights, precision="float32")
    pairs, bad = read_pairs(options.pairs)
    for record in bad:
        print(record, file=sys.stderr)
    vocabulary = Vocabulary()
    chosen = samples(pipe, pairs, options.number, vocabulary)
    if not chosen:
        raise SystemExit("None of the pairs is labelled YES and answered YES; there is nothing to measure.")
    result = measure(pipe, chosen, vocabulary) | {"weights": f"{pipe.name} ({pipe.revision})"}
    text = report(result)
    print(text)
    print(f"{time.time() - started:.0f} s", file=sys.stderr)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "faithfulness.json").write_text(json.dumps(result, indent=1) + "\n")
        (options.out / "faithfulness.md").write_text(text + "\n")
        draw(result, options.out / "faithfulness.png")


def draw(result: dict[str, Any], path: Path) -> None:
    """Deletion (left end) and insertion (right end) of each method, random dotted."""
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(8, 1.5 + 0.25 * sum(len(result[kind]) for kind in ("words", "regions"))), layout="constrained"
    )
    heights = [1 + len(result[kind]) for kind in ("words", "regions")]
    for axes, kind in zip(figure.subplots(2, 1, sharex=True, height_ratios=heights), ("words", "regions"), strict=True):
        rows = sorted(result[kind].items(), key=lambda r: -r[1]["deletion"])
        for y, (_, r) in enumerate(rows):
            axes.plot([r["deletion"], r["insertion"]], [y, y], "-", color="grey")
            axes.plot(r["deletion"], y, "o", color="#0072B2")
            axes.plot(r["insertion"], y, "s", color="#D55E00")
        axes.set_yticks(range(len(rows)), [n for n, _ in rows])
        for key, colour in (("random_deletion", "#0072B2"), ("random_insertion", "#D55E00")):
            axes.axvline(rows[0][1][key], linestyle=":", color=colour)
        axes.set(title=kind, ylim=(-0.7, len(rows) - 0.3))
    figure.supxlabel(
        "area under deletion (circle, low is good) and insertion (square, high is good); dotted: random",
        fontsize="medium",
    )
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
