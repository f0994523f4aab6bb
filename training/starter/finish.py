"""What is done once training is over: temperature, threshold, scores, baselines, and the folder of weights."""

import dataclasses
import hashlib
import json
import platform
import shutil
from pathlib import Path

import numpy as np
import torch

from musti_model.model import MustiModel
from musti_model.processing import MustiProcessor

from ..loop import draw_curves
from ..metrics import best_threshold, expected_calibration_error, fit_temperature, scores, sigmoid
from .baselines import baselines, naming_probabilities
from .card import write_card
from .match import pair_logits
from .reading import reading_scores
from .stages import Workshop


def calibrate_reading(model: MustiModel, shop: Workshop) -> dict:
    """Shifts the logit of "names nothing", whose class weight biased it, to where dev passages are read best; scores on test passages."""
    start = model.none_logit.item()

    def dev_f1(shift: float) -> float:
        model.none_logit.data.fill_(start + shift)
        return reading_scores(model, shop.tokenizer, shop.passages["dev"][::3])["f1"]

    best = max(np.linspace(-1, 4, 11), key=dev_f1)
    model.none_logit.data.fill_(start + float(best))
    return reading_scores(model, shop.tokenizer, shop.passages["test"])


def finish(model: MustiModel, shop: Workshop, work: Path, out: Path, seconds: float) -> dict:
    """Threshold and temperature from the dev pairs; scores on dev and test; everything saved in ``out``."""
    metrics_of_reading = calibrate_reading(model, shop)
    run = {
        s: pair_logits(model, shop.tokenizer, shop.features[s], shop.passages[s], shop.pairs[s])[0] for s in ("dev", "test")
    }
    labels = {s: np.array([p.label for p in shop.pairs[s]]) for s in run}
    temperature = fit_temperature(run["dev"], labels["dev"])
    probabilities = {s: sigmoid(run[s] / temperature) for s in run}
    threshold = best_threshold(labels["dev"], probabilities["dev"])
    languages = {s: [shop.passages[s][p.passage].language for p in shop.pairs[s]] for s in run}
    metrics = {s: scores(labels[s], probabilities[s], threshold, languages[s]) for s in run}
    for split, z in run.items():
        metrics[split]["ece"] = expected_calibration_error(labels[split], probabilities[split])
        metrics[split]["ece_before"] = expected_calibration_error(labels[split], sigmoid(z))
    art = [i for i, p in enumerate(shop.pairs["test"]) if shop.pictures["test"].sources[p.picture] == "pacs-art"]
    if art:
        metrics["test_paintings"] = scores(labels["test"][art], probabilities["test"][art], threshold)
    naming = {s: naming_probabilities(model, f) for s, f in {"train": shop.views[0], **shop.features}.items()}
    metrics["reading"] = metrics_of_reading
    metrics["picture_top1_test"] = float((naming["test"].argmax(1) == shop.pictures["test"].labels).mean())
    metrics["baselines"] = baselines(
        model.config.objects, {s: (shop.pairs[s], shop.passages[s], naming[s]) for s in ("train", "dev", "test")}
    )
    model.config = dataclasses.replace(model.config, threshold=threshold, temperature=temperature)
    model._hub_mixin_config = model.config.to_dict()
    metrics |= {
        "caveat": f"A small model trained on proxy pairs (photographs and paintings of {len(model.config.objects)} objects with passages that "
        "name them); not the published MUSTI model.",
        "picture_sources": {str(n): int(c) for n, c in zip(*np.unique(shop.pictures["train"].sources, return_counts=True))},
        "gate": {"w_image": model.gate.weight[0, 0].item(), "w_text": model.gate.weight[0, 1].item(), "bias": model.gate.bias.item()},
        "training_seconds_recorded": round(seconds),
        "match_epochs_done": len((work / "match" / "log.jsonl").read_text().splitlines()),
        "match_epochs_planned": json.loads((work / "match" / "run.json").read_text())["settings"]["epochs"],
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    out.mkdir(parents=True, exist_ok=True)
    model.cpu().half().save_pretrained(out)  # stored in half precision: under 10 MB; loaded as float32
    MustiProcessor(model.config, shop.tokenizer).save_pretrained(out)
    metrics["weights"] = "sha256:" + hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()[:12]
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    for stage in ("words", "match"):
        shutil.copy(work / stage / "log.jsonl", out / f"log-{stage}.jsonl")
        rows = [json.loads(line) for line in (work / stage / "log.jsonl").read_text().splitlines()]
        draw_curves(rows, out / f"curves-{stage}.png")
    for path in sorted(work.glob("*.jsonl")):
        shutil.copy(path, out / f"log-images-{path.stem}.jsonl")
    write_card(out, model.config, metrics)
    return metrics


def recorded_seconds(work: Path) -> float:
    """Sum of the seconds that the stages' logs record, over all resumptions."""
    logs = [*work.glob("*.jsonl"), *work.glob("*/log.jsonl")]
    return sum(json.loads(line)["seconds"] for path in logs for line in path.read_text().splitlines())
