"""Commands in processes of their own, for the tests that kill them, stop them or run several: forks of a server that
has imported torch once for all of them, which takes longer than most of what they do."""

import multiprocessing
import os
import runpy
import socket
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.loop_job", "training.train", "training.predict"])


def start(module: str, arguments: list[str], log: Path, **environment: str) -> BaseProcess:
    """``python -m module arguments`` with these variables, its output in a file."""
    process = FORKS.Process(target=_run, args=(module, arguments, log, environment))
    process.start()
    return process


def start_two(module: str, arguments: list[str], logs: Path) -> list[BaseProcess]:
    """The same in two processes that find each other, as torchrun starts them; outputs in logs/0 and logs/1."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    logs.mkdir(parents=True)
    return [start(module, arguments, logs / rank, RANK=rank, LOCAL_RANK=rank, **shared) for rank in ("0", "1")]


def free_port() -> int:
    """One that nothing on this machine listens at, nor another process of the tests is about to: Gradio's own search
    takes two that start at once to the same."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ended(process: BaseProcess) -> int:
    """Waits for it. -> exit status."""
    process.join(300)
    assert process.exitcode is not None, "The process does not end."
    return process.exitcode


def _run(module: str, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
