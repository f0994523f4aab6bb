"""The training loop: any config, any data that comes as batches.

AdamW with parameter groups, warm-up then cosine, clipping, one seed; best by development score, early stopping; exact resume after a kill;
one JSON line an epoch; curves as PNG; a collapse is reported and stops the run. An "epoch" is ``steps_per_epoch`` batches.
"""

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

Step = Callable[[nn.Module, Any], tuple[Tensor, dict[str, float]]]


class CollapseError(RuntimeError):
    """The model gives practically the same probability to every pair, or the loss is no longer a number."""


@dataclass(frozen=True)
class TrainSettings:
    """lr: of every parameter; lr_of: {name prefix: lr}, 0 freezes; warmup: share of all steps; patience: epochs without a better score
    (0 = never stop); precision "bf16" (autocast) or "float32"."""

    epochs: int
    steps_per_epoch: int
    lr: float = 1e-3
    lr_of: dict[str, float] = field(default_factory=dict)
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    patience: int = 0
    precision: str = "bf16"
    seed: int = 0


def parameter_groups(model: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """Groups by learning rate (longest matching prefix) and decay (matrices only; the gate, the vote and the other 1 x n weights are vectors).
    Frozen parameters are left out."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        prefixes = [p for p in settings.lr_of if name.startswith(p)]
        lr = settings.lr_of[max(prefixes, key=len)] if prefixes else settings.lr
        parameter.requires_grad_(lr > 0)
        if lr > 0:
            groups.setdefault((lr, parameter.ndim > 1 and min(parameter.shape) > 1), []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "weight_decay": settings.weight_decay if decay else 0.0}
        for (lr, decay), parameters in groups.items()
    ]


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor on the learning rate at ``step``: linear warm-up, then half a cosine down to 0."""
    start = max(1, int(total * warmup))
    if step < start:
        return (step + 1) / start
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, total - start)))


def train(
    model: nn.Module,
    batches: Callable[[int], Iterable[Any]],
    step: Step,
    evaluate: Callable[[nn.Module], dict[str, Any]],
    settings: TrainSettings,
    folder: Path,
    record: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Trains ``model`` in place and leaves it with its best weights.

    Args:
        batches: epoch -> ``steps_per_epoch`` batches, the same for the same epoch (that makes a resumed run exact).
        step: (model, batch) -> (loss [], numbers to log).
        evaluate: model -> at least {"score": higher is better}; {"collapsed": True} stops the run.
        folder: holds checkpoint.pt (atomic, each epoch), best.pt, log.jsonl, curves.png, run.json.
        record: what else it takes to repeat the run (model config, fingerprint of the data ...); goes into run.json with the settings and
            the versions.

    Returns: the log row of the best epoch.

    Raises: CollapseError, also when a collapsed run is started again; ValueError when ``folder`` holds a run with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _describe(folder / "run.json", {"settings": asdict(settings), **(record or {})})
    optimizer = torch.optim.AdamW(parameter_groups(model, settings))
    total = settings.epochs * settings.steps_per_epoch
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: schedule(s, total, settings.warmup))
    rows = _resume(folder, model, optimizer, scheduler)
    for epoch in range(len(rows), settings.epochs):
        if rows and rows[-1].get("collapsed"):
            break
        best = max(rows, key=lambda r: r["score"], default=None)
        if settings.patience and best and epoch - best["epoch"] >= settings.patience:
            break
        rows.append(_epoch(model, optimizer, scheduler, batches(epoch), step, settings, epoch) | {"epoch": epoch + 1})
        with torch.inference_mode():
            rows[-1] |= evaluate(model.eval())
        if not rows[-1].get("collapsed") and (best is None or rows[-1]["score"] > best["score"]):
            save_atomically({"model": model.state_dict()}, folder / "best.pt")
        save_atomically(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
            | {"rows": json.dumps(rows)},
            folder / "checkpoint.pt",
        )
        (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        draw_curves(rows, folder / "curves.png")
        print(json.dumps(rows[-1]), flush=True)
    if rows[-1].get("collapsed"):
        raise CollapseError(f"After epoch {len(rows)} every pair gets practically the same probability; lower the learning rate.")
    model.load_state_dict(torch.load(folder / "best.pt", weights_only=True)["model"])
    model.eval()
    return max(rows, key=lambda r: r["score"])


def _describe(path: Path, run: dict[str, Any]) -> None:
    """Writes what a run is made of, or checks that the folder's run is made of the same. Raises ValueError."""
    run = json.loads(json.dumps(run))
    if path.exists():
        old = json.loads(path.read_text())
        changed = [k for k in run if old.get(k) != run[k]]
        if changed:
            raise ValueError(f"{path.parent} holds a run with other {' and '.join(changed)}; choose another folder, or remove this one.")
        return
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    path.write_text(json.dumps(run | {"versions": versions}, indent=1) + "\n")


def _epoch(model, optimizer, scheduler, batches, step: Step, settings: TrainSettings, epoch: int) -> dict[str, float]:
    torch.manual_seed(settings.seed * 100_003 + epoch)  # dropout of this epoch, resumed or not
    model.train()
    for module in model.modules():  # what is frozen keeps its batch statistics too
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()
    started, sums = time.time(), {}
    device = next(model.parameters()).device.type
    bar = tqdm(batches, total=settings.steps_per_epoch, desc=f"epoch {epoch + 1}/{settings.epochs}", mininterval=5)
    for number, batch in enumerate(bar, start=1):
        with torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bf16"):
            loss, numbers = step(model, batch)
        if not torch.isfinite(loss):
            raise CollapseError(f"The loss is {loss.item()} in step {number} of epoch {epoch + 1}; lower the learning rate.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_((p for g in optimizer.param_groups for p in g["params"]), settings.clip)
        optimizer.step()
        scheduler.step()
        for key, value in {"loss": loss.item(), **numbers}.items():
            sums[key] = sums.get(key, 0.0) + value
        bar.set_postfix({k: f"{v / number:.3f}" for k, v in sums.items()}, refresh=False)
    means = {k: v / settings.steps_per_epoch for k, v in sums.items()}
    return means | {"seconds": round(time.time() - started, 1)}


def save_atomically(state: Any, path: Path) -> None:
    """Atomic: an interrupted write leaves the old file."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def _resume(folder: Path, model, optimizer, scheduler) -> list[dict[str, Any]]:
    if not (folder / "checkpoint.pt").exists():
        return []
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    return json.loads(state["rows"])


def draw_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """Loss and score by epoch, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    epochs = [r["epoch"] for r in rows]
    left.plot(epochs, [r["loss"] for r in rows], color="tab:blue", label="training loss")
    right.plot(epochs, [r["score"] for r in rows], color="tab:orange", label="development score")
    left.set_xlabel("epoch")
    left.set_ylabel("training loss", color="tab:blue")
    right.set_ylabel("development score", color="tab:orange")
    figure.savefig(path, dpi=100)
