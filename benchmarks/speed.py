"""Latency: python -m benchmarks.speed [--full]

Starter: predict and explain (one pair, a batch of 16) against the bare forward pass on ready tensors; start of the
page. --full: musti-base at full size with random weights, batched with the machine's autocast, against a plain loop
over single pairs in float32. The two of each row run in turn, the median of the rounds counts.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from musti_model import MustiModel, MustiPipeline, preset
from musti_model.device import choose_device

PICTURE = Path(__file__).parents[1] / "assets" / "examples" / "flower.jpg"
PASSAGE = (
    "She pressed the nosegay to her face; the roses and the other flowers filled the whole chamber with their scent. "
    * 4
)


def race(name: str, ours: Callable[[], object], plain: Callable[[], object], plain_name: str, rounds: int) -> None:
    """Prints the medians of both and their ratio."""
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(rounds + 1):  # the first round warms up
        for key, function in (("ours", ours), ("plain", plain)):
            started = time.perf_counter()
            function()
            if number:
                times[key].append(time.perf_counter() - started)
    a, b = statistics.median(times["ours"]), statistics.median(times["plain"])
    print(f"| {name} | {a * 1000:.1f} ms | {plain_name} {b * 1000:.1f} ms | {a / b:.2f} |", flush=True)


def starter(rounds: int) -> None:
    """The embedded weights."""
    started = time.perf_counter()
    pipe = MustiPipeline.from_pretrained()
    loaded = time.perf_counter() - started
    images = dict(pipe.processor.images([pipe_picture()]))
    texts = pipe.processor.passages([PASSAGE])

    def bare(count: int) -> Callable[[], object]:
        many = {n: t.expand(count, -1, -1, -1) for n, t in images.items()}
        ids, mask = texts.input_ids.expand(count, -1), texts.attention_mask.expand(count, -1)

        @torch.inference_mode()
        def forward() -> object:
            with pipe._autocast():
                return pipe.model(many, ids, mask)

        return forward

    race("predict, 1 pair", lambda: pipe(PICTURE, PASSAGE), bare(1), "bare forward", rounds)
    race("predict, 16 pairs", lambda: pipe.predict([PICTURE] * 16, [PASSAGE] * 16), bare(16), "bare forward", rounds)
    race("rank, 1 picture, 16 passages", lambda: pipe.rank(PICTURE, [PASSAGE] * 16), bare(16), "bare forward", rounds)
    race("the same", lambda: pipe.rank(PICTURE, [PASSAGE] * 16), bare(1), "one bare forward", rounds)
    race("explain, 1 pair", lambda: pipe.explain(PICTURE, PASSAGE), bare(1), "bare forward", rounds)
    import app

    started = time.perf_counter()
    demo = app.build(pipe)
    demo.launch(prevent_thread_lock=True, quiet=True, **app.launch_settings())
    print(
        f"\nweights loaded in {loaded:.2f} s; page built and served in {time.perf_counter() - started:.2f} s (after "
        "imports)"
    )
    demo.close()


def pipe_picture() -> Image.Image:
    """The example picture, decoded."""
    from musti_model.processing import open_image

    return open_image(PICTURE)


def full_size(rounds: int, batch: int = 4) -> None:
    """musti-base, random weights, 197 wordpieces."""
    device, autocast = choose_device()
    config = preset("musti-base")
    model = MustiModel(config).eval().to(device)
    images = {b.name: torch.randn(batch, 3, b.image_size, b.image_size, device=device) for b in config.branches}
    ids = torch.randint(1000, 100000, (batch, config.text_length), device=device)
    mask = torch.ones_like(ids)

    @torch.inference_mode()
    def ours() -> object:
        with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
            return model(images, ids, mask).logits.cpu()

    @torch.inference_mode()
    def plain() -> object:
        return [
            model({n: t[i : i + 1] for n, t in images.items()}, ids[i : i + 1], mask[i : i + 1]).logits.cpu()
            for i in range(batch)
        ]

    race(f"musti-base, {batch} pairs, {device}, {autocast or 'float32'}", ours, plain, "one by one in float32", rounds)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--full", action="store_true", help="also musti-base at full size (about 1 GB of memory)")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    print("| what | ours | plain | ratio |\n| --- | --- | --- | --- |")
    if options.full:
        full_size(max(2, options.rounds // 3))
    starter(options.rounds)


if __name__ == "__main__":
    main()
