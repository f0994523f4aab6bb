"""The model card of the starter, filled from its measured scores."""

from pathlib import Path
from typing import Any

from musti_model.config import MustiConfig

CALIBRATED = ", gate and answers then calibrated anew by `python -m training.starter.measure --data DIR --calibrate`"
SMALL = 300  # pairs of a source under which its score is not worth a row


def _row(name: str, s: dict[str, Any]) -> str:
    return f"| {name} | {s['f1_macro']:.3f} | {s['auc']:.3f} | {s.get('pairs', '')} |"


def _scores(metrics: dict[str, Any]) -> list[str]:
    test = metrics["test"]
    rows = [_row("dev (threshold and epoch chosen here)", metrics["dev"]), _row("**test** (held out)", test)]
    rows += [_row(f"test, {tag}", s) for tag, s in test["languages"].items()]
    rows += [
        _row(f"test, pictures of {source or 'other sources'}", s)
        for source, s in test["sources"].items()
        if s["pairs"] >= SMALL
    ]
    rows += [
        _row(f"names never trained on, {tag}", s)
        for tag, s in metrics.get("unseen_names", {}).get("languages", {}).items()
    ]
    rows += [_row(f"swapped names, {tag}", s) for tag, s in metrics.get("swapped", {}).get("languages", {}).items()]
    return rows + [_row(f"baseline: {name}", s) for name, s in metrics["baselines"].items()]


def _gate(metrics: dict[str, Any]) -> list[str]:
    test, explained, photographs = metrics["test"], metrics.get("explained"), metrics.get("photographs")
    lost, quarter = test["lost"], test.get("gate_in_quarter")
    rows = {
        "F1-macro lost when the gate is shut": f"{lost['shut']:.3f}" if "shut" in lost else "",
        "F1-macro lost when it is open at every word": f"{lost['open']:.3f}" if "open" in lost else "",
        "the word at which the gate opens most names the shared object": f"{test['widest']:.1%}",
        "gate higher at the named word with the right picture than with a wrong one (AUC)": f"{test['gate_auc']:.3f}"
        if "gate_auc" in test
        else "",
        "the gate's own map, share in the right quarter of a grid (chance .25)": f"{quarter['both']:.3f}"
        if quarter
        else "",
        "evidence: share in the right quarter of a grid (chance .25)": (
            f"{explained['in_quarter']:.3f} ({explained['grids']} grids)"
        )
        if explained
        else "",
        "evidence: the top word names the shared object": f"{explained['top_word']:.1%} of {explained['pairs']} pairs"
        if explained
        else "",
        "pictures of nothing answered YES": f"{test['nothing_yes']:.1%}",
    }
    if photographs:
        for key, name in (("first", "own sentence first, of eight"), ("verdicts", "answers right (always NO: 87.5%)")):
            rows[f"three historical photographs: {name}"] = ", ".join(
                f"{tag} {row[key]:.0%}" for tag, row in photographs.items()
            )
    return [f"| {name} | {value} |" for name, value in rows.items() if value]


def write_card(folder: Path, config: MustiConfig, metrics: dict[str, Any]) -> None:
    """Writes ``folder/README.md``."""
    test, lines = metrics["test"], "\n".join
    reading = ", ".join(f"{tag} {share:.0%}" for tag, share in metrics["reading"]["languages"].items())
    sources = ", ".join(f"{count} {source or 'others'}" for source, count in metrics["picture_sources"].items())
    branches = ", ".join(f"{n} {share:.0%}" for n, share in test["picture_top1"].items())
    text = f"""---
license: mit
library_name: musti
pipeline_tag: image-text-to-text
tags: [musti, olfaction, image-text-matching]
language: [en, de, fr, it, sl]
---

# MUSTI starter weights

A compact model of the TSF-gate family: image branches \
{", ".join(f"{b.name} ({b.backbone})" for b in config.branches)}, a multilingual text encoder,
gate "{config.gate}", meeting by {"content" if config.meeting == "content" else "reading order"}, a cosine a branch, \
learned vote. It says
whether a picture and a historical passage evoke the same smell source, and is small enough to travel with the code.

**It is not the published MUSTI model.** It never saw a MUSTI picture. It was trained on *proxy pairs*: pictures of \
{len(config.objects)} objects with
historical passages that name the object (YES) or name others (NO).

## Scores

F1-macro at the saved threshold {config.threshold:.3f} (temperature {config.temperature:.2f}); no picture and no \
passage of dev and test was trained on, nor one that shares half its words in a row with one that was.
Every picture, passage and object stands in three times as many NO pairs as YES pairs, so by construction neither side \
alone gives the answer
("picture only" and "text only" show that it is so).

| pairs | F1-macro | ROC-AUC | number |
| --- | --- | --- | --- |
{lines(_scores(metrics))}

Expected calibration error on test {test["ece"]:.3f} (temperature and bias were fitted on the dev pairs).
Of the names in test passages {metrics["reading"]["recall"]:.0%} are read right ({reading}). The picture side names \
test pictures right, of {len(config.objects)} objects: {branches}.
The picture classifier with a perfect word list uses the very list that labelled the pairs; it shows what the picture \
side alone limits.

## The gate and the explanations, on test pairs

| measure | value |
| --- | --- |
{lines(_gate(metrics))}

## Data

Pictures to train on: {sources} (Tiny-ImageNet, Caltech-101, PACS, Flowers Recognition: research use; Tiny-ImageNet's \
photographs come from ImageNet, which
the convolutional branch was trained on before: its scores flatter). Passages: MUSTI 2022/2023 training texts and \
Odeuropa's corpora. Names of
objects: a lexicon of this project in five languages; training swaps names and adds OCR wear. The towers were \
pretrained: multilingual-e5-small (MIT),
EfficientNet-Lite0 (Apache-2.0), DINOv2 ViT-S/14 (Apache-2.0, its first \
{config.branches[0].backbone_args.get("depth", 12)} blocks).

## Limits

- Knows {len(config.objects)} objects: {", ".join(config.objects)}. Of other smells it knows nothing.
- Trained on pictures of at most 176 px, mostly photographs of 64 px; paintings are few.
- Labels come from word lists: a passage that names a thing without evoking its smell counts as YES.
- Names that were in no passage of the training ("names never trained on") are often not read; a YES is then missed.
- Probabilities fit pairs of which one in four is a YES.
- Seen German passages are few (most German is made by swapping names).
- Stored in 8 bits a value, the word embeddings in 4 as they came; the scores are those of the stored weights.

## Made with

`{metrics["command"]}`{CALIBRATED if metrics.get("calibrated") else ""} (measured again by \
`python -m training.starter.measure --data DIR`); recorded training time \
{metrics["training_seconds_recorded"] / 60:.0f} minutes
({metrics["device"]}); torch {metrics["versions"]["torch"]}, Python {metrics["versions"]["python"]}. Logs and curves \
lie in this folder.
"""
    (folder / "README.md").write_text(text, encoding="utf-8")
