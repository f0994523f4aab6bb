"""What an installation asks for is what a Space and the Makefile install, and all that the library reads goes along."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def asked(name: str) -> set[str]:
    """Requirements of a file, its comments and those that it includes left out."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith(("#", "-r"))}


def test_both_ways_to_install_ask_for_the_same():
    library, extras = (
        set(PROJECT["project"]["dependencies"]),
        {k: set(v) for k, v in PROJECT["project"]["optional-dependencies"].items()},
    )
    assert library | extras["demo"] == asked("requirements.txt")
    assert extras["train"] == asked("requirements-train.txt") and extras["test"] == asked("requirements-test.txt")


def test_every_package_and_every_file_that_it_reads_goes_along():
    packages, folders = PROJECT["tool"]["setuptools"]["packages"], PROJECT["tool"]["setuptools"]["package-dir"]
    found = {
        ".".join(p.parent.relative_to(ROOT).parts)
        for top in ("musti_model", "training")
        for p in (ROOT / top).rglob("*.py")
    }
    assert found <= set(packages)
    kinds = {pattern.removeprefix("*") for pattern in PROJECT["tool"]["setuptools"]["package-data"]["*"]}
    for package in packages:
        folder = ROOT / folders.get(package, package.replace(".", "/"))
        assert folder.is_dir(), package
        assert {p.suffix for p in folder.iterdir() if p.is_file()} <= kinds | {".py", ".pyi", ".png", ".jsonl"}, package


def test_commands_and_files_that_the_documents_name_are_there():
    """Modules move; what a reader types must not break."""
    for name in ("README.md", "CONTRIBUTING.md", "training/README.md", "Makefile"):
        text = (ROOT / name).read_text(encoding="utf-8")
        commands = set(re.findall(r"python -m ((?:musti_model|training|benchmarks|tools|page)[\w.]*)", text))
        for command in commands:
            path = ROOT / command.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), (name, command)
        for file in re.findall(r"`((?:assets|benchmarks|musti_model|page|tests|tools|training)/[\w./-]*)`", text):
            assert (ROOT / file).exists(), (name, file)
