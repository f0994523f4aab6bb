"""Full size on a GPU: ``python -m benchmarks.gpu [--batches 1 8 32 128] [--rounds 10] [--peak TFLOPS]``.

``musti-base`` with random weights: inference and training step in bfloat16 over a sweep of batch sizes, pairs a second,
peak memory, and the share of the chip's peak that the arithmetic of the matrices makes up, beside a plain float32 loop
over single pairs. Needs CUDA.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from musti_model.config import preset
from musti_model.model import MustiModel
from training.loop.losses import FocalLoss

# Dense bfloat16 peak in TFLOP/s, from the makers' data sheets.
PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L4": 121.0, "RTX 4090": 165.0}


def inputs(model: MustiModel, pairs: int, device: str) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    """Random pictures, full-length passages, labels."""
    images = {b.name: torch.randn(pairs, 3, b.image_size, b.image_size, device=device) for b in model.config.branches}
    ids = torch.randint(0, model.config.text["vocab_size"], (pairs, model.config.text_length), device=device)
    return images, ids, torch.ones_like(ids), torch.randint(0, 2, (pairs,), device=device).float()


def seconds(work: Callable[[], None], rounds: int) -> float:
    """Median of ``rounds`` after two that warm up."""
    times = []
    for number in range(rounds + 2):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if number > 1:
            times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


def flops(work: Callable[[], None]) -> int:
    """Floating point operations of the matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def jobs(model: MustiModel, data: tuple[Any, ...], optimizer: torch.optim.Optimizer) -> dict[str, Callable[[], None]]:
    """ "inference" and "training step", both in bfloat16 autocast."""
    images, ids, mask, labels = data
    loss = FocalLoss(2.0, 0.5)

    def infer() -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            model.eval()(images, ids, mask)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            value = loss(model.train()(images, ids, mask).logits.float(), labels)
        value.backward()
        optimizer.step()

    return {"inference": infer, "training step": step}


def plain_loop(model: MustiModel, data: tuple[Any, ...]) -> Callable[[], None]:
    """Pair by pair in float32."""
    images, ids, mask, _ = data

    def work() -> None:
        with torch.inference_mode():
            model.eval()
            for i in range(len(ids)):
                model({n: t[i : i + 1] for n, t in images.items()}, ids[i : i + 1], mask[i : i + 1])

    return work


def main() -> int:
    """Prints a Markdown table; exit status 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--peak", type=float, help="dense bfloat16 TFLOP/s of the chip; known for some")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("This benchmark needs a CUDA GPU; benchmarks.speed runs on a CPU.", file=sys.stderr)
        return 2
    name = torch.cuda.get_device_name()
    peak = options.peak or next((v for k, v in PEAKS.items() if k in name), None)
    model = MustiModel(preset("musti-base")).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    plain = seconds(plain_loop(model, inputs(model, 8, "cuda")), 3) / 8
    print(f"{name}, torch {torch.__version__}; plain float32 loop: {1 / plain:.1f} pairs/s\n")
    print(
        "| what | batch | pairs/s | against the plain loop | peak memory | of the chip's peak |\n| --- | --- | --- "
        "| --- | --- | --- |"
    )
    for batch in options.batches:
        for what, work in jobs(model, inputs(model, batch, "cuda"), optimizer).items():
            try:
                done = flops(work)
                torch.cuda.reset_peak_memory_stats()
                each = seconds(work, options.rounds)
            except torch.OutOfMemoryError:
                print(f"| {what} | {batch} | does not fit | | | |")
                continue
            share = f"{done / each / peak / 1e12:.0%}" if peak else "peak unknown"
            memory = torch.cuda.max_memory_allocated() / 2**30
            print(
                f"| {what} | {batch} | {batch / each:.1f} | {plain * batch / each:.1f} | {memory:.1f} GiB | {share} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
