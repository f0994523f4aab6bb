"""A small training as a command, for the tests that kill it, stop it or run it in two processes.

With --kills N the training runs in forked children that are killed with SIGKILL until N have died.
"""

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path

import matplotlib.figure  # noqa: F401, once, before the forks
import torch
from accelerate import Accelerator

from training.loop.train import TrainSettings, skipping, train

SETTINGS = {"epochs": 3, "steps_per_epoch": 20, "lr": 0.05, "warmup": 0.2, "precision": "float32"}


def run(options: argparse.Namespace) -> None:
    """One training to its end; end.pt holds the best weights."""
    torch.manual_seed(0)
    dropout = torch.nn.Dropout(0.0 if options.no_dropout else 0.2)
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), dropout, torch.nn.ReLU(), torch.nn.Linear(16, 1))
    accelerator = Accelerator(cpu=True) if "RANK" in os.environ else None
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)

    @skipping
    def batches(epoch: int):
        generator = torch.Generator().manual_seed(epoch)
        for _ in range(SETTINGS["steps_per_epoch"]):
            x = torch.randn(16, 4, generator=generator)
            y = (x[:, 0] > x[:, 1]).float()
            yield x[rank::world], y[rank::world]

    count = iter(range(10_000))

    def step(model, batch):
        x, y = batch
        life = next(count) + 1
        if life == getattr(options, "die_at", None):
            os.kill(os.getpid(), signal.SIGKILL)
        if options.slow:
            print("step", life, y.sum().item(), flush=True)
            time.sleep(0.05)
        return torch.nn.functional.binary_cross_entropy_with_logits(model(x).squeeze(1), y), {"mean": y.mean().item()}

    def evaluate(model):
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(99))
        return {"score": ((model(x).squeeze(1) > 0) == (x[:, 0] > x[:, 1])).float().mean().item()}

    settings = TrainSettings(**SETTINGS, checkpoint_steps=options.checkpoint_steps)
    train(model, batches, step, evaluate, settings, options.folder, accelerator=accelerator)
    if rank == 0:
        torch.save(model.state_dict(), options.folder / "end.pt")


def killed_until_done(options: argparse.Namespace) -> None:
    """Children are forked, so that none has to import torch again. Each kills itself (SIGKILL) in a random step, some
    of them halfway through writing a checkpoint, until enough have died; the last one is left alone."""
    rng = random.Random(options.seed)
    for _ in range(options.kills):
        status = child(options, rng.randrange(1, 4), rng.random() < 0.3)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit("The run ended before it was killed often enough.")
        print("killed", flush=True)
    sys.exit(os.waitstatus_to_exitcode(child(options, None, False)))


def child(options: argparse.Namespace, die_at: int | None, while_saving: bool) -> int:
    """Runs the training in a fork that dies in its ``die_at``-th step, or in the save after it. -> status."""
    pid = os.fork()
    if pid == 0:
        save, count = torch.save, iter(range(1, 10_000))

        def dying_save(state, file):
            if while_saving and next(count) == die_at:
                file.write(b"half a checkpoint")
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            save(state, file)

        torch.save = dying_save
        options.die_at = None if while_saving else die_at
        run(options)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--no-dropout", action="store_true")
    parser.add_argument("--checkpoint-steps", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    killed_until_done(options) if options.kills else run(options)
