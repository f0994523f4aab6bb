"""The page under load: many visitors at once ask questions whose answers are known, then many ask for explanations.
Prints how many were answered, whether all were right, how long it took, and the page's memory before and after.

``python -m benchmarks.load`` starts a page of its own on this machine; ``--url`` takes one that runs here already.
Nothing leaves the machine, and everything ends by itself.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from gradio_client import Client, handle_file

from musti_model import MustiPipeline
from musti_model.weights import STARTER

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "assets" / "examples"
PASSAGES = (
    "She blew out the candle, and the smell of the wick and the warm wax lingered in the dark chamber.",
    "Si odora il limone e si spremono i limoni, e l'odore acuto rimane sulle mani.",
    "Das Pferd dampfte nach dem Ritt, und der ganze Stall roch nach Schweiß und Leder.",
)
QUESTIONS = [
    (EXAMPLES / name, passage)
    for name in ("candle.jpg", "lemons.jpg", "flower.jpg", "china.jpg")
    for passage in PASSAGES
]
NEAR = 0.01  # how far a probability may lie from the known one: sums of another order, not another question's answer
MOST = 1000  # visitors, questions or explanations that may be asked for
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SETTLING = 30  # seconds that the page has to give its memory back


@dataclass
class Tally:
    """What became of the questions of one kind; seconds: of those that were answered."""

    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    def line(self, kind: str, asked: int) -> str:
        """One line to print."""
        told = f"{kind}: {len(self.seconds)} of {asked} answered, {self.wrong} wrong"
        if len(self.seconds) > 1:
            told += (
                f"; p50 {statistics.median(self.seconds):.2f} s, p95 "
                f"{statistics.quantiles(self.seconds, n=20)[-1]:.2f} s"
            )
        return told + "".join(f"\n  {count} x {problem}" for problem, count in self.problems.most_common(5))


def known_answers() -> list[tuple[str, float]]:
    """(label, probability) of each of QUESTIONS, asked of the weights themselves."""
    pipe = MustiPipeline.from_pretrained(STARTER)
    return [(a.label, a.probability) for a in (pipe(picture, passage) for picture, passage in QUESTIONS)]


def clients(url: str, count: int, folder: str) -> list[Client]:
    """Visitors who have opened the page. A few at a time: making a client costs this side more than the page, and both
    share the machine's cores."""
    with ThreadPoolExecutor(4) as pool:
        return list(
            pool.map(
                lambda _: Client(url, verbose=False, analytics_enabled=False, ssl_verify=False, download_files=folder),
                range(count),
            )
        )


def ask(
    client: Client, numbers: list[int], endpoint: str, known: list[tuple[str, float]], tally: Tally, deadline: float
) -> None:
    """One visitor, with Gradio's own client as it comes, who asks some of QUESTIONS one after the other."""
    for number in numbers:
        picture, passage = QUESTIONS[number % len(QUESTIONS)]
        started = time.monotonic()
        try:
            job = client.submit(image=handle_file(str(picture)), passage=passage, api_name=endpoint)
            answer: Any = job.result(timeout=max(0.1, deadline - started))
        except Exception as error:
            tally.problems[f"{type(error).__name__}: {error}"[:120]] += 1
            continue
        tally.seconds.append(time.monotonic() - started)
        answer = answer if endpoint == "/predict" else answer[0]
        label, probability = known[number % len(QUESTIONS)]
        tally.wrong += answer["label"] != label or abs(answer["probability"] - probability) > NEAR


def at_once(tasks: list[Callable[[], None]], deadline: float) -> None:
    """Runs each in a thread of its own, until all are done or time is up."""
    threads = [threading.Thread(target=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def megabytes(process: int | None) -> float:
    """Memory that a process holds; nan where that is not known."""
    if process is None:
        return float("nan")
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(process)])) / 1024


def started_page(folder: str) -> tuple[subprocess.Popen[bytes], str]:
    """A page of our own, on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if k not in ("MUSTI_MODEL", "MUSTI_MODELS")} | {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": folder,
    }
    env["GRADIO_SERVER_NAME"] = "127.0.0.1"
    with Path(folder, "log.txt").open("w") as log:
        page = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            with urlopen(f"{url}/config", timeout=5):
                return page, url
        except OSError:
            if page.poll() is not None:
                break
            time.sleep(0.5)
    page.terminate()
    raise SystemExit("The page did not start:\n" + Path(folder, "log.txt").read_text()[-2000:])


def measure(url: str, process: int | None, visitors: int, questions: int, explanations: int, seconds: float) -> bool:
    """Prints the figures. -> whether all were answered, and rightly."""
    known, end = known_answers(), time.monotonic() + seconds
    warm, quick, slow, beside = Tally(), Tally(), Tally(), Tally()
    with tempfile.TemporaryDirectory() as folder:
        first, *others = clients(url, 1 + max(visitors, explanations), folder)
        ask(first, list(range(4)), "/predict", known, warm, end)
        ask(first, [0], "/explain", known, warm, end)
        before, started = megabytes(process), time.monotonic()
        at_once(
            [
                partial(ask, c, list(range(v, v + questions)), "/predict", known, quick, end)
                for v, c in enumerate(others[:visitors])
            ],
            end,
        )
        print(quick.line(f"{visitors} visitors, {questions} questions each", visitors * questions))
        print(f"  ({time.monotonic() - started:.0f} s in all)")
        tasks = [partial(ask, c, [v], "/explain", known, slow, end) for v, c in enumerate(others[:explanations])]
        at_once([*tasks, lambda: ask(first, list(range(20)), "/predict", known, beside, end)], end)
    print(slow.line(f"{explanations} explanations at once", explanations))
    print(beside.line("one visitor's questions meanwhile", 20))
    after, patience = megabytes(process), time.monotonic() + SETTLING
    while process is not None and after > before + 100 and time.monotonic() < patience:
        time.sleep(1)
        after = megabytes(process)
    print(f"memory: {before:.0f} MB before, {after:.0f} MB after", flush=True)
    answered = (
        len(quick.seconds) == visitors * questions and len(slow.seconds) == explanations and len(beside.seconds) == 20
    )
    return answered and not (quick.wrong or slow.wrong or beside.wrong)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.split("\n\n")[0])
    parser.add_argument("--url", help="a page with the starter's weights that runs on this machine already")
    parser.add_argument("--pid", type=int, help="its process, to tell its memory")
    parser.add_argument("--visitors", type=int, default=200)
    parser.add_argument("--questions", type=int, default=3, help="of each visitor, one after the other")
    parser.add_argument("--explanations", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=300, help="after which nobody waits any longer")
    options = parser.parse_args()
    if options.url and urlsplit(options.url).hostname not in LOOPBACK:
        raise SystemExit("Only a page on this machine (127.0.0.1) may be put under load.")
    if max(options.visitors * options.questions, options.explanations) > MOST:
        raise SystemExit(f"At most {MOST} questions.")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        page, url = (None, options.url) if options.url else started_page(folder)
        try:
            good = measure(
                url,
                options.pid if page is None else page.pid,
                options.visitors,
                options.questions,
                options.explanations,
                options.seconds,
            )
        finally:
            if page is not None:
                page.terminate()
                page.wait(30)
    sys.stdout.flush()
    os._exit(0 if good else 1)  # threads of visitors who were given up may still wait


if __name__ == "__main__":
    main()
