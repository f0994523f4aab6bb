"""What is done once training is over: weights in few bits, temperature, threshold, scores, and the folder of
weights."""

import dataclasses
import hashlib
import json
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from musti_model import MustiPipeline
from musti_model.config import MustiConfig
from musti_model.image_tower import ImageTokens
from musti_model.model import MustiModel
from musti_model.processing import MustiProcessor
from musti_model.storage import compressed, restored

from ..report.metrics import best_threshold, expected_calibration_error, fit_platt, scores, sigmoid
from .baselines import Sided, baselines, naming_probabilities
from .card import write_card
from .evidence import evidence_scores, photograph_scores
from .measures import gate_in_quarter, grids, nothing_said_yes, right_and_wrong
from .opening import calibrate_gate
from .pairs import Pair
from .pictures import STORED_SIZE
from .reading import reading_scores
from .scoring import MODES, Scored, encode_pictures, pair_scores, score_pairs
from .stages import PAGES, Workshop, picture_top1
from .typeset import text_pages
from .unseen import held_out_cases, held_out_pairs, swapped_pairs

EXPLAINED = 60  # pairs, and grids, whose explanation is made
FOUR_BITS = ("text.embeddings.word_embeddings.",)  # never trained, and four bits as they came
CAVEAT = (
    "A small model trained on proxy pairs (photographs and paintings of {count} objects with passages that "
    "name them); not the published MUSTI model."
)

Answered = tuple[dict[str, ImageTokens], Scored]  # pictures as image tokens, and the answers to pairs of them


def few_bits(model: MustiModel) -> dict[str, torch.Tensor]:
    """The weights as they will be stored; the model is left with what a reader of the file gets, so that scores are
    those of the file."""
    stored = compressed({n: v.cpu() for n, v in model.state_dict().items()}, FOUR_BITS)
    model.load_state_dict(restored(stored), strict=True)
    return stored


def calibrate_reading(model: MustiModel, shop: Workshop) -> None:
    """Shifts the logit of "names nothing", whose class weight biased it, to where dev passages are read best."""
    start = model.none_logit.item()

    def dev_f1(shift: float) -> float:
        model.none_logit.data.fill_(start + shift)
        return reading_scores(model, shop.tokenizer, shop.passages["dev"][::3])["f1"]

    best = max(np.linspace(-2, 4, 13), key=dev_f1)
    model.none_logit.data.fill_(start + float(best))


def calibrate(model: MustiModel, shop: Workshop) -> Answered:
    """The gate by words of training pairs, then the answers by the dev pairs. -> the dev pictures, and how the pairs
    are answered then."""
    calibrate_gate(model, shop)
    encoded = encode_pictures(model, shop.pictures["dev"].pixels)
    return encoded, calibrate_answers(model, shop, encoded)


def calibrate_answers(model: MustiModel, shop: Workshop, encoded: dict[str, ImageTokens]) -> Scored:
    """Temperature, bias and threshold that fit the dev pairs best: training saw YES more often than they have it, and
    the focal loss holds probabilities back. encoded: the dev pictures. -> the pairs, as they are answered then."""
    pairs, passages = shop.pairs["dev"], shop.passages["dev"]
    scored = score_pairs(model, shop.tokenizer, encoded, passages, pairs)
    logits, labels = scored.logits["learned"], np.array([p.label for p in pairs])
    try:
        temperature, shift = fit_platt(logits, labels)
    except ValueError as error:  # nothing was learned, as after a few steps for a trial
        print(f"The answers are left as they are. {error}", flush=True)
        temperature, shift = 1.0, 0.0
    before = model.bias.item()
    model.bias.data = (model.bias.data + shift).half().float()  # of every branch alike, so of the vote; as it is stored
    logits = logits + model.bias.item() - before
    set_config(model, temperature=temperature, threshold=best_threshold(labels, sigmoid(logits / temperature)))
    return dataclasses.replace(scored, logits={"learned": logits})


def by_source(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float, pairs: Sequence[Pair]
) -> dict[str, dict[str, Any]]:
    """Scores by the source of the picture, where it has pairs of both kinds."""
    sources = np.array([p.source for p in pairs])
    return {
        str(s): scores(labels[sources == s], probabilities[sources == s], threshold)
        for s in sorted(set(sources))
        if len(set(labels[sources == s])) == 2
    }


def measured(model: MustiModel, shop: Workshop, dev: Answered | None = None) -> dict[str, Any]:
    """Scores on dev and test, by language and source; on test also what the gate is held to. dev: of ``calibrate``,
    where that was just done."""
    metrics: dict[str, Any] = {}
    sides = {}
    for split in ("dev", "test"):
        pictures, passages, pairs = shop.pictures[split], shop.passages[split], shop.pairs[split]
        if dev and split == "dev":
            encoded, scored = dev
        else:
            encoded = encode_pictures(model, pictures.pixels)
            modes = MODES if model.fusion.gated and split == "test" else MODES[:1]
            scored = score_pairs(model, shop.tokenizer, encoded, passages, pairs, modes=modes)
        labels, logits = np.array([p.label for p in pairs]), scored.logits["learned"]
        threshold, probabilities = model.config.threshold, sigmoid(logits / model.config.temperature)
        metrics[split] = pair_scores(model, scored, passages, pairs, threshold) | {
            "ece": expected_calibration_error(labels, probabilities),
            "sources": by_source(labels, probabilities, threshold, pairs),
            "picture_top1": picture_top1(model, encoded, pictures.labels),
        }
        sides[split] = Sided(pairs, passages, naming_probabilities(model, encoded))
    metrics["test"] |= gate_scores(model, shop, encoded)
    metrics["baselines"] = baselines(shop.objects, sides["dev"], sides["test"])
    metrics |= unseen(model, shop, encoded)
    metrics["reading"] = reading_scores(model, shop.tokenizer, shop.passages["test"])
    return metrics


def gate_scores(model: MustiModel, shop: Workshop, encoded: dict[str, ImageTokens]) -> dict[str, Any]:
    """Whether the gate opens for the right pictures and in the right places, and what is said of pictures of nothing.
    encoded: the test pictures."""
    pictures, passages, pairs = shop.pictures["test"], shop.passages["test"], shop.pairs["test"]
    pages = torch.from_numpy(text_pages([p.text for p in passages], PAGES, STORED_SIZE, seed=11))
    result: dict[str, Any] = {"nothing_yes": nothing_said_yes(model, shop.tokenizer, passages, pages, 600)}
    if model.fusion.gated:
        result["gate_auc"] = right_and_wrong(model, shop.tokenizer, encoded, pictures, passages, pairs)
        made = grids(pictures, passages, 300) if model.config.meeting == "content" else []
        if made:
            result["gate_in_quarter"] = gate_in_quarter(model, shop.tokenizer, passages, made)
    return result


def unseen(model: MustiModel, shop: Workshop, encoded: dict[str, ImageTokens]) -> dict[str, Any]:
    """Scores on test pairs made for what the test passages do not have: "unseen_names", names never trained on, by
    language, Dutch among them; "swapped", for languages with few pairs, passages in which a name was swapped. encoded:
    the test pictures."""
    pictures, passages = shop.pictures["test"], shop.passages["test"]
    cases = held_out_cases(passages, shop.objects)
    made, pairs = swapped_pairs(pictures, passages, shop.lexicons, shop.pairs["test"])
    sets = {"unseen_names": ([c.passage for c in cases], held_out_pairs(cases, pictures)), "swapped": (made, pairs)}
    result = {}
    for name, (texts, asked) in sets.items():
        if asked:
            scored = score_pairs(model, shop.tokenizer, encoded, texts, asked)
            result[name] = pair_scores(model, scored, texts, asked, model.config.threshold)
    return result


def set_config(model: MustiModel, **changes: Any) -> None:
    """Changes of the config, also of the copy that the mixin saves."""
    model.config = dataclasses.replace(model.config, **changes)
    model._hub_mixin_config = model.config.to_dict()


def explained(folder: Path, shop: Workshop, data: Path) -> dict[str, Any]:
    """What a user of the weights in ``folder`` is shown: evidence, and historical photographs where ``data`` has
    them."""
    pipe = MustiPipeline.from_pretrained(folder)
    result: dict[str, Any] = {
        "explained": evidence_scores(pipe, shop.pictures["test"], shop.passages["test"], shop.pairs["test"], EXPLAINED)
    }
    examples = data / "examples"
    return result | ({"photographs": photograph_scores(pipe, examples)} if examples.is_dir() else {})


def finish(model: MustiModel, shop: Workshop, data: Path, work: Path, out: Path, command: str) -> dict[str, Any]:
    """Everything saved in ``out``; returns the metrics. command: that makes these weights, for the card."""
    few_bits(model)
    calibrate_reading(model, shop)
    dev = calibrate(model, shop)
    weights = save_weights(model, out)  # before the long measuring
    metrics = measured(model, shop, dev) | {
        "caveat": CAVEAT.format(count=len(model.config.objects)),
        "picture_sources": {
            str(n): int(c) for n, c in zip(*np.unique(shop.pictures["train"].sources, return_counts=True), strict=True)
        },
        "command": command,
        "training_seconds_recorded": round(recorded_seconds(work)),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    MustiProcessor(model.config, shop.tokenizer).save_pretrained(out)
    metrics["weights"] = weights
    metrics |= explained(out, shop, data)
    for stage in ("names", "match"):
        for kind in ("log.jsonl", "curves.png"):
            stem, _, end = kind.partition(".")
            shutil.copy(work / stage / kind, out / f"{stem}-{stage}.{end}")
    write_metrics(out, model.config, metrics)
    return metrics


def save_weights(model: MustiModel, out: Path) -> str:
    """Weights and config in ``out``; the model is left with what their reader gets. -> by what the weights are known:
    the beginning of their digest."""
    out.mkdir(parents=True, exist_ok=True)
    save_file(few_bits(model), out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(model.config.to_dict(), indent=2) + "\n")
    return "sha256:" + hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()[:12]


def write_metrics(out: Path, config: MustiConfig, metrics: dict[str, Any]) -> None:
    """metrics.json and the card."""
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    write_card(out, config, metrics)


def recorded_seconds(work: Path) -> float:
    """Sum of the seconds that the stages' logs record, over all resumptions."""
    return sum(
        json.loads(line)["seconds"] for path in work.glob("*/log.jsonl") for line in path.read_text().splitlines()
    )
