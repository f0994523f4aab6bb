"""Whether this repository runs as a Hugging Face Space, as far as that can be told offline, and putting it there.

    python -m tools.space                       # checks; exit status 1 where something is wrong
    python -m tools.space --push USER/NAME      # checks, then uploads what git tracks (a token from ``hf auth login``
    or $HF_TOKEN)

A plain ``git push`` to the Hub is refused, since it takes pictures and weights by its own storage only; an upload
stores them there.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from huggingface_hub import metadata_load
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from training.hub.push import PublishError, push

ROOT = Path(__file__).parents[1]
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
NEEDED = (
    "title",
    "emoji",
    "colorFrom",
    "colorTo",
    "sdk",
    "sdk_version",
    "python_version",
    "app_file",
    "license",
    "short_description",
)
LONGEST = 60  # characters of short_description that the Hub takes
PATIENCE = 180  # seconds in which the page has to answer


def front_matter(root: Path) -> dict[str, Any]:
    """The block at the top of README.md; {} where there is none."""
    return metadata_load(root / "README.md") or {}


def tracked(root: Path) -> list[str]:
    """The files of the repository that git tracks; all that lies in the folder where it is no clone."""
    if (root / ".git").exists():
        listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=root, text=True).split("\0")
        return [f for f in listed if f and (root / f).is_file()]
    return [str(p.relative_to(root)) for p in sorted(root.rglob("*")) if p.is_file()]


def card_problems(root: Path) -> Iterator[str]:
    """What is wrong with the configuration at the top of README.md."""
    card = front_matter(root)
    yield from (f"README.md: {key} is missing from the block at the top." for key in NEEDED if not card.get(key))
    if card.get("sdk") != "gradio":
        yield "README.md: sdk has to be gradio."
    for key in ("colorFrom", "colorTo"):
        if card.get(key) not in COLOURS:
            yield f"README.md: {key} is {card.get(key)!r}; the Hub knows {', '.join(sorted(COLOURS))}."
    if len(card.get("short_description", "")) > LONGEST:
        yield f"README.md: short_description is longer than {LONGEST} characters."
    if not (root / card.get("app_file", "")).is_file():
        yield f"README.md: there is no app_file {card.get('app_file')!r}."
    asked = SpecifierSet(
        tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    )
    if str(card.get("python_version", "0")) not in asked:
        yield f"README.md: python_version {card.get('python_version')} is not {asked}, as pyproject.toml asks."


def package_problems(root: Path) -> Iterator[str]:
    """Where requirements.txt, the Space's Gradio and what is installed here disagree."""
    lines = [line.split("#")[0].strip() for line in (root / "requirements.txt").read_text().splitlines()]
    asked = {r.name: r for r in map(Requirement, filter(None, lines))}
    sdk = str(front_matter(root).get("sdk_version", "0"))
    if "gradio" not in asked or Version(sdk) not in asked["gradio"].specifier:
        yield f"requirements.txt does not allow Gradio {sdk}, which README.md names."
    if version("gradio") != sdk:
        yield f"Gradio {version('gradio')} is installed here, so {sdk}, which README.md names, is not what was tried."
    for name, requirement in asked.items():
        if Version(version(name)) not in requirement.specifier:
            yield f"{name} {version(name)} is installed here, which requirements.txt does not allow."


def variable_problems(root: Path) -> Iterator[str]:
    """Variables that the code reads and README.md does not name."""
    readme = (root / "README.md").read_text(encoding="utf-8")
    for file in tracked(root):
        if file == "app.py" or (file.startswith(("musti_model/", "page/")) and file.endswith(".py")):
            code = (root / file).read_text(encoding="utf-8")
            for name in re.findall(r"(?:getenv\(|environ(?:\.get\(|\[))\"(\w+)\"", code):
                if name not in readme:
                    yield f"{file} reads ${name}, which README.md does not name."


def run_problems(root: Path) -> Iterator[str]:
    """Starts the page from a copy of the tracked files alone, with the variables of a Space and the Hub out of reach,
    and asks it an example."""
    from gradio_client import Client, handle_file

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        for file in tracked(root):
            (Path(folder) / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / file, Path(folder) / file)
        env = {k: v for k, v in os.environ.items() if k not in ("MUSTI_MODEL", "MUSTI_MODELS", "PYTHONPATH")}
        env |= {
            "SPACE_ID": "user/space",
            "SYSTEM": "spaces",
            "GRADIO_SERVER_PORT": str(port),
            "HF_HUB_OFFLINE": "1",
            "GRADIO_TEMP_DIR": str(Path(folder) / "tmp"),
        }
        log = Path(folder) / "log.txt"
        with log.open("w") as out:
            page = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=env, stdout=out, stderr=out)
        try:
            if not _served(page, f"http://127.0.0.1:{port}/config"):
                yield "The page did not start from the tracked files alone:\n" + log.read_text()[-2000:]
                return
            client = Client(
                f"http://127.0.0.1:{port}", verbose=False, analytics_enabled=False, download_files=f"{folder}/got"
            )
            candle = handle_file(str(root / "assets" / "examples" / "candle.jpg"))
            answer = client.predict(image=candle, passage="She blew out the candle.", api_name="/predict")
            if answer["label"] != "YES":
                yield f"The page answered the candle with {json.dumps(answer)[:300]}."
        finally:
            page.terminate()
            page.wait(30)


def _served(page: subprocess.Popen[bytes], address: str) -> bool:
    started = time.monotonic()
    while page.poll() is None and time.monotonic() - started < PATIENCE:
        try:
            with urlopen(address, timeout=5):
                return True
        except OSError:
            time.sleep(0.5)
    return False


def problems(root: Path, run: bool = True) -> list[str]:
    """Everything that is wrong, one sentence each. run: also start the page."""
    checks: list[Any] = [card_problems, package_problems, variable_problems, *([run_problems] if run else [])]
    return [problem for check in checks for problem in check(root)]


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m tools.space", description=__doc__.split("\n")[0])
    parser.add_argument("--push", metavar="USER/NAME", help="upload to this Space after the checks")
    options = parser.parse_args()
    found = problems(ROOT)
    print(
        "\n".join(found)
        or "All that can be checked offline is right: configuration, packages, variables, and the page runs."
    )
    if found:
        raise SystemExit(1)
    if options.push:
        try:
            print(
                push(
                    {file: ROOT / file for file in tracked(ROOT)},
                    options.push,
                    None,
                    False,
                    "The page",
                    repo_type="space",
                )
            )
        except PublishError as error:
            raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
