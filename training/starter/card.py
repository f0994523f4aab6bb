"""The model card of the starter, filled from its measured scores."""

from pathlib import Path
from typing import Any

from musti_model.config import MustiConfig


def _row(name: str, s: dict[str, Any]) -> str:
    return f"| {name} | {s['f1_macro']:.3f} | {s['auc']:.3f} | {s.get('pairs', '')} |"


def write_card(folder: Path, config: MustiConfig, metrics: dict[str, Any]) -> None:
    """Writes ``folder/README.md``."""
    rows = [_row("dev (threshold and epoch chosen here)", metrics["dev"]), _row("**test** (held out)", metrics["test"])]
    rows += [_row(f"test, {tag}", s) for tag, s in metrics["test"]["languages"].items()]
    if "test_paintings" in metrics:
        rows += [_row("test, paintings only", metrics["test_paintings"])]
    rows += [_row(f"baseline: {name}", s) for name, s in metrics["baselines"].items()]
    reading = ", ".join(f"{tag} {share:.0%}" for tag, share in metrics["reading"]["languages"].items())
    text = f"""---
license: mit
library_name: musti
pipeline_tag: image-text-to-text
tags: [musti, olfaction, image-text-matching]
language: [en, de, fr, it, sl]
---

# MUSTI starter weights

A compact model of the TSF-gate family (ViT and ResNet image branches, small BERT, text selection gate, cosine a branch, learned vote) that says
whether a picture and a historical passage evoke the same smell source. It is small enough to travel with the code.

**It is not the published MUSTI model.** It never saw a MUSTI picture. It was trained on *proxy pairs*: pictures of {len(config.objects)} objects with
historical passages that name the object (YES) or name others (NO).

## Scores

F1-macro at the saved threshold {config.threshold:.3f} (temperature {config.temperature:.2f}); no picture and no passage of dev and test was trained on, nor one that shares half its words in a row with one that was.
Every picture, passage and object stands in three times as many NO pairs as YES pairs, so by construction neither side alone gives the answer
("picture only" and "text only" show that it is so).

| pairs | F1-macro | ROC-AUC | number |
| --- | --- | --- | --- |
{chr(10).join(rows)}

Expected calibration error on test {metrics["test"]["ece"]:.3f} ({metrics["test"]["ece_before"]:.3f} before the temperature).
Of the names in test passages {metrics["reading"]["recall"]:.0%} are read right ({reading}). The picture side names
{metrics["picture_top1_test"]:.0%} of the test pictures right, of {len(config.objects)} objects. The picture classifier with a perfect word list uses the very list that labelled the pairs; it shows what the picture side alone limits.

## Data

Pictures to train on: {", ".join(f"{count} {source or 'others'}" for source, count in metrics["picture_sources"].items())} (Tiny-ImageNet, Caltech-101, PACS: research use). Passages: MUSTI 2022/2023 training texts and Odeuropa's corpora. Names of objects: a lexicon
of this project in five languages; training swaps names and adds OCR wear.

## Limits

- Knows {len(config.objects)} objects: {", ".join(config.objects)}. Of other smells it knows nothing.
- Trained on pictures of at most 176 px, mostly photographs of 64 px; paintings are few.
- Labels come from word lists: a passage that names a thing without evoking its smell counts as YES.
- Seen German passages are few (most German is made by swapping names).
- Stored in half precision. Gate w_image {metrics["gate"]["w_image"]:+.4f}, w_text {metrics["gate"]["w_text"]:+.4f}, bias {metrics["gate"]["bias"]:+.4f}.

## Made with

`python -m training.starter --data DIR --out assets/starter`; matching ran {metrics["match_epochs_done"]} of
{metrics["match_epochs_planned"]} planned epochs; recorded training time {metrics["training_seconds_recorded"] / 60:.0f} minutes on two CPU
cores; torch {metrics["versions"]["torch"]}, Python {metrics["versions"]["python"]}. Logs and curves lie in this folder.
"""
    (folder / "README.md").write_text(text, encoding="utf-8")
