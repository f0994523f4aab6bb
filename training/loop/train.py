"""The training loop: any model, any data that comes as batches, one process or many.

Parameter groups, warm-up then cosine, clipping, one seed; best epoch by development score, early stopping; exact resume
from the last checkpoint, whatever stopped the run; one JSON line an epoch; curves as PNG; a collapse is reported and
stops the run. An "epoch" is ``steps_per_epoch`` optimiser steps.
"""

import errno
import json
import math
import os
import platform
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from tqdm import tqdm

from musti_model.device import PRECISIONS, autocast

from .memory import recompute_activations

Model = TypeVar("Model", bound=nn.Module)
Step = Callable[[Any, Any], tuple[Tensor, dict[str, float]]]  # model, batch -> loss [], numbers to log
Batches = Callable[[int, int], Iterable[Any]]
DISK_WAIT = 30.0  # seconds between tries when the disk is full
_LAYER = re.compile(r"\b(?:blocks|text\.encoder\.layer)\.(\d+)\.")
_EMBEDDING = re.compile(r"\b(?:patch_embed|cls_token|pos_embed|text\.embeddings)\b")


class CollapseError(RuntimeError):
    """The model gives practically the same probability to every pair, or the loss is no longer a number."""


@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained.

    epochs, steps_per_epoch: optimiser steps; accumulate: batches a step, whose gradients are averaged.

    optimizer: "adamw" or "adam"; lr: of every parameter; lr_of: {name prefix: lr}, the longest match counts, 0 freezes;
    freeze_until: {name prefix: epoch from which it is trained}; layer_decay: factor on the lr of each layer of ViT and
    BERT below the last; decay: "cosine" or "constant", after a linear warm-up over the share ``warmup`` of all steps;
    clip: norm of the gradient, 0 = no clipping.

    on_collapse: "stop" ends a run in which every pair gets practically the same probability, "report" lets it go on and
    logs it.

    select: "score" (of ``evaluate``) or "loss" (of training, as published), by which the best epoch is chosen;
    patience: epochs without a better one before stopping, 0 = never.

    batch_norm: "train", or "frozen" (kept statistics: small batches, and the same result for any number of processes);
    precision: see ``musti_model.device.autocast``; recompute: gradient checkpointing, less memory for more arithmetic;
    checkpoint_steps: steps between checkpoints, 0 = at the end of each epoch.
    """

    epochs: int
    steps_per_epoch: int
    lr: float = 1e-3
    lr_of: dict[str, float] = field(default_factory=dict)
    freeze_until: dict[str, int] = field(default_factory=dict)
    layer_decay: float = 1.0
    weight_decay: float = 0.01
    optimizer: str = "adamw"
    warmup: float = 0.1
    decay: str = "cosine"
    clip: float = 1.0
    accumulate: int = 1
    patience: int = 0
    select: str = "score"
    on_collapse: str = "stop"
    batch_norm: str = "train"
    precision: str = "auto"
    recompute: bool = False
    checkpoint_steps: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        allowed: dict[str, tuple[str, ...]] = {
            "optimizer": ("adamw", "adam"),
            "decay": ("cosine", "constant"),
            "on_collapse": ("stop", "report"),
            "select": ("score", "loss"),
        }
        allowed |= {"batch_norm": ("train", "frozen"), "precision": PRECISIONS}
        for key, values in allowed.items():
            if getattr(self, key) not in values:
                raise ValueError(f"{key} is one of {', '.join(values)}, not {getattr(self, key)!r}.")
        if self.recompute and self.batch_norm == "train":
            raise ValueError('recompute would count every batch twice in batch statistics; set batch_norm = "frozen".')
        if min(self.epochs, self.steps_per_epoch, self.accumulate) < 1:
            raise ValueError(
                "epochs, steps_per_epoch and accumulate are at least 1; is there enough data for one batch?"
            )


def _longest(name: str, table: dict[str, Any], default: Any) -> Any:
    prefixes = [p for p in table if name.startswith(p)]
    return table[max(prefixes, key=len)] if prefixes else default


def _depths(model: nn.Module) -> dict[str, int]:
    """{parameter: how many layers of its stack lie above it}; 0 for what belongs to no stack."""
    layers = {n: (n[: m.start()], int(m.group(1))) for n, _ in model.named_parameters() if (m := _LAYER.search(n))}
    top: dict[str, int] = {}
    for stack, index in layers.values():
        top[stack] = max(top.get(stack, 0), index)
    result = {n: top[stack] - i for n, (stack, i) in layers.items()}
    for name, _ in model.named_parameters():
        if name not in layers and (m := _EMBEDDING.search(name)):
            below = [d for stack, d in top.items() if stack == name[: m.start()]]
            result[name] = 1 + (below[0] if below else 0)
    return result


def parameter_groups(model: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """Groups by learning rate, first epoch and decay (matrices only; the gate, the vote and the other 1 x n weights are
    vectors).

    Frozen parameters are left out. Each group has "base_lr" and "from_epoch". By hand: timm's
    ``param_groups_layer_decay`` knows the layers of its own models alone, and these have a text tower beside them, and
    rates and first epochs by name.
    """
    depths = _depths(model) if settings.layer_decay != 1 else {}
    groups: dict[tuple[float, int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        lr = _longest(name, settings.lr_of, settings.lr) * settings.layer_decay ** depths.get(name, 0)
        parameter.requires_grad_(lr > 0)
        if lr > 0:
            key = (lr, _longest(name, settings.freeze_until, 0), parameter.ndim > 1 and min(parameter.shape) > 1)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": p,
            "lr": lr,
            "base_lr": lr,
            "from_epoch": start,
            "weight_decay": settings.weight_decay if decay else 0.0,
        }
        for (lr, start, decay), p in groups.items()
    ]


def schedule(step: int, total: int, warmup: float, decay: str = "cosine") -> float:
    """Factor on the learning rate at ``step``: linear warm-up, then half a cosine down to 0, or 1. By hand: a function
    of the step alone, where those of torch and transformers are objects whose state a resumed run would have to
    restore."""
    start = int(total * warmup)
    if step < start:
        return (step + 1) / start
    return 1.0 if decay == "constant" else 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, total - start)))


def train(
    model: Model,
    batches: Batches,
    step: Callable[[Model, Any], tuple[Tensor, dict[str, float]]],
    evaluate: Callable[[Model], dict[str, Any]],
    settings: TrainSettings,
    folder: Path,
    record: dict[str, Any] | None = None,
    accelerator: Accelerator | None = None,
) -> dict[str, Any]:
    """Trains ``model`` in place and leaves it with its best weights.

    Args:
        batches: (epoch, first) -> that epoch's batches from number ``first`` on, always the same ones (that makes a
            resumed run exact); with several processes, this process's equal share of each.
        step: (model, batch) -> (loss [], numbers to log). The loss is a mean over the batch.
        evaluate: model -> at least {"score": higher is better}; {"collapsed": True} stops the run. Called in the main
            process only.
        folder: holds checkpoint.pt, best.pt, log.jsonl, curves.png, run.json.
        record: what else it takes to repeat the run (model config, fingerprint of the data ...); goes into run.json
            with the settings and the versions.
        accelerator: for several processes or a GPU; None trains here, on the model's device. Processes on several
            machines need ``folder`` on a disk they share.

    Returns: the log row of the best epoch.

    Raises: CollapseError, also when a collapsed run is started again; ValueError when ``folder`` holds a run with other
        settings; SystemExit after SIGTERM or SIGINT, once the running step is done and saved.
    """
    return _Run(model, batches, step, evaluate, settings, folder, record or {}, accelerator).finish()


class _StepModule(nn.Module):
    """Model and step as one module, because several processes exchange gradients at the end of a module's forward."""

    def __init__(self, model: nn.Module, step: Step) -> None:
        super().__init__()
        self.model, self.step = model, step

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, float]]:
        return self.step(self.model, batch)


class _Run:
    """One run and its place: ``rows`` of finished epochs, ``done`` steps of the running one."""

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        step: Step,
        evaluate: Callable[[Any], dict[str, Any]],
        settings: TrainSettings,
        folder: Path,
        record: dict[str, Any],
        accelerator: Accelerator | None,
    ) -> None:
        self.model, self.batches, self.step, self.evaluate, self.settings = model, batches, step, evaluate, settings
        self.folder, self.accelerator = folder, accelerator
        self.rank = accelerator.process_index if accelerator else 0
        self.together = accelerator if accelerator and accelerator.num_processes > 1 else None
        self.device = next(model.parameters()).device
        if settings.recompute:
            recompute_activations(model)
        if self.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            _describe(
                folder / "run.json",
                {"settings": asdict(settings), **record},
                accelerator.num_processes if accelerator else 1,
            )
        self._together()
        optimizer = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[settings.optimizer]
        self.optimizer = optimizer(parameter_groups(model, settings))
        self.rows: list[dict[str, Any]] = []
        self.done, self.seconds = 0, 0.0
        self.sums: dict[str, float] = {}
        self._resume()

    def finish(self) -> dict[str, Any]:
        with _stop_signals() as stop:
            while len(self.rows) < self.settings.epochs and not self._over():
                self._epoch(stop)
        if self._collapsed():
            raise CollapseError(
                f"After epoch {len(self.rows)} every pair gets practically the same probability; lower the learning "
                "rate."
            )
        self.model.load_state_dict(
            torch.load(self.folder / "best.pt", weights_only=True, map_location=self.device)["model"]
        )
        self.model.eval()
        return max(self.rows, key=self._merit)

    def _merit(self, row: dict[str, Any]) -> float:
        return row["score"] if self.settings.select == "score" else -row["loss"]

    def _over(self) -> bool:
        if not self.rows:
            return False
        best = max(self.rows, key=self._merit)
        late = self.settings.patience and len(self.rows) - best["epoch"] >= self.settings.patience
        return bool(self._collapsed() or late)

    def _collapsed(self) -> bool:
        return bool(self.rows[-1].get("collapsed")) and self.settings.on_collapse == "stop"

    def _epoch(self, stop: threading.Event) -> None:
        epoch, settings = len(self.rows), self.settings
        module = self._prepare(epoch)
        source = iter(self.batches(epoch, self.done * settings.accumulate))
        bar = tqdm(
            range(self.done, settings.steps_per_epoch),
            initial=self.done,
            total=settings.steps_per_epoch,
            mininterval=5,
            desc=f"epoch {epoch + 1}/{settings.epochs}",
            disable=self.rank > 0,
        )
        for number in bar:
            started = time.time()
            numbers = self._step(module, source, epoch, number)
            self.done, self.seconds = number + 1, self.seconds + time.time() - started
            for key, value in numbers.items():
                self.sums[key] = self.sums.get(key, 0.0) + value
            bar.set_postfix({k: f"{v / self.done:.3f}" for k, v in self.sums.items()}, refresh=False)
            stopped = self._any(stop.is_set())
            if stopped or (settings.checkpoint_steps and self.done % settings.checkpoint_steps == 0):
                self._save()
            if stopped:
                raise SystemExit(
                    f"Stopped after step {self.done} of epoch {epoch + 1}; the same command goes on from there."
                )
        self._close_epoch(epoch)

    def _prepare(self, epoch: int) -> nn.Module:
        """Learning modules set to train, what is frozen to eval (its batch statistics are kept too)."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(epoch >= group["from_epoch"])
        self.model.train()
        for module in self.model.modules():
            own = list(module.parameters())
            frozen = own and not any(p.requires_grad for p in own)
            if frozen or (self.settings.batch_norm == "frozen" and isinstance(module, nn.modules.batchnorm._BatchNorm)):
                module.eval()
        module = _StepModule(self.model, self.step)
        if not self.together:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=ids, find_unused_parameters=True)

    def _step(self, module: nn.Module, source: Iterator[Any], epoch: int, number: int) -> dict[str, float]:
        settings = self.settings
        total = settings.epochs * settings.steps_per_epoch
        factor = schedule(epoch * settings.steps_per_epoch + number, total, settings.warmup, settings.decay)
        self.optimizer.zero_grad(set_to_none=True)
        means: dict[str, float] = {}
        for micro in range(settings.accumulate):
            # Dropout depends on the place in the run alone, so that no generator's state need be kept.
            torch.manual_seed(
                ((((settings.seed * 1009 + epoch) * 100_003 + number) * 101 + micro) * 1009 + self.rank) % 2**63
            )
            batch = next(source, None)
            if batch is None:
                raise ValueError(f"Epoch {epoch + 1} has too few batches for {settings.steps_per_epoch} steps.")
            with autocast(self.device, settings.precision):
                loss, numbers = module(batch)
            if self._any(not torch.isfinite(loss).item()):
                raise CollapseError(
                    f"The loss is {loss.item()} in step {number + 1} of epoch {epoch + 1}; lower the learning rate."
                )
            (loss / settings.accumulate).backward()
            for key, value in {"loss": loss.item(), **numbers}.items():
                means[key] = means.get(key, 0.0) + value / settings.accumulate
        if settings.clip:
            parameters = (p for g in self.optimizer.param_groups for p in g["params"] if p.grad is not None)
            torch.nn.utils.clip_grad_norm_(list(parameters), settings.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        self.optimizer.step()
        return self._mean(means)

    def _close_epoch(self, epoch: int) -> None:
        """Evaluation in the main process; everybody gets the row. The best weights are written before the checkpoint
        that counts them."""
        means = {k: v / self.settings.steps_per_epoch for k, v in self.sums.items()}
        row = [means | {"seconds": round(self.seconds, 1), "epoch": epoch + 1}]
        if self.rank == 0:
            with torch.inference_mode():
                row[0] |= self.evaluate(self.model.eval())
        if self.together:
            broadcast_object_list(row)
        best = max(self.rows, key=self._merit, default=None)
        counts = not row[0].get("collapsed") or self.settings.on_collapse == "report"
        better = counts and (best is None or self._merit(row[0]) > self._merit(best))
        if better and self.rank == 0:
            patiently(lambda: save_atomically({"model": self.model.state_dict()}, self.folder / "best.pt"))
        self.rows.append(row[0])
        self.done, self.sums, self.seconds = 0, {}, 0.0
        self._save()
        if self.rank == 0:
            patiently(self._write_log)
            print(json.dumps(self.rows[-1]), flush=True)

    # Several processes ------------------------------------------------------------------------------------------------

    def _together(self) -> None:
        if self.accelerator:
            self.accelerator.wait_for_everyone()

    def _any(self, flag: bool) -> bool:
        if not self.together:
            return flag
        return bool(self.together.reduce(torch.tensor(float(flag), device=self.device), "sum").item())

    def _mean(self, numbers: dict[str, float]) -> dict[str, float]:
        if not self.together:
            return numbers
        values = torch.tensor(list(numbers.values()), dtype=torch.float32, device=self.device)
        return dict(zip(numbers, self.together.reduce(values, "mean").tolist(), strict=True))

    # Files ------------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.rank == 0:
            place = {"rows": self.rows, "done": self.done, "sums": self.sums, "seconds": self.seconds}
            state = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "place": json.dumps(place),
            }
            patiently(lambda: save_atomically(state, self.folder / "checkpoint.pt"))
        self._together()

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        place = json.loads(state["place"])
        self.rows, self.done, self.sums, self.seconds = place["rows"], place["done"], place["sums"], place["seconds"]
        if self.rank == 0 and self.rows:
            self._write_log()  # a kill may have come between checkpoint and log

    def _write_log(self) -> None:
        (self.folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in self.rows))
        draw_curves(self.rows, self.folder / "curves.png")


def skipping(make: Callable[[int], Iterable[Any]]) -> Batches:
    """Batches for ``train`` from a function of the epoch alone: those before ``first`` are made and dropped."""
    return lambda epoch, first: islice(make(epoch), first, None)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """SIGTERM and SIGINT set the event, so that the running step can end; a second SIGINT interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, _frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {s: signal.signal(s, ask) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def patiently(save: Callable[[], None]) -> None:
    """Saves; while the disk is full, waits for room and tries again: nothing of the run is lost meanwhile."""
    while True:
        try:
            return save()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            print(f"The disk is full; training waits for room and tries again every {DISK_WAIT:.0f} s.", flush=True)
            time.sleep(DISK_WAIT)


def _describe(path: Path, run: dict[str, Any], processes: int) -> None:
    """Writes what a run is made of, or checks that the folder's run is made of the same. Raises ValueError."""
    run = json.loads(json.dumps(run))
    if path.exists():
        old = json.loads(path.read_text())
        changed = [k for k in run if old.get(k) != run[k]]
        if changed:
            raise ValueError(
                f"{path.parent} holds a run with other {' and '.join(changed)}; choose another folder, or remove "
                "this one."
            )
        return
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {n: version(n) for n in ("timm", "transformers", "accelerate")}
    made = {"versions": versions, "processes": processes, "threads": torch.get_num_threads(), "device": _device_name()}
    path.write_text(json.dumps(run | made, indent=1) + "\n")


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()


def save_atomically(state: Any, path: Path) -> None:
    """Atomic: an interrupted write leaves the old file. Raises OSError."""
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        temporary.unlink(missing_ok=True)  # a half-written file would keep the disk full
        cause: BaseException | None = error  # torch's writer turns a full disk into an error of its own
        while cause is not None:
            if isinstance(cause, OSError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise
    os.replace(temporary, path)


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
