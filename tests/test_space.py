"""The check of the Space finds what would keep it from running, and the upload holds what git tracks."""

import shutil
import subprocess
from pathlib import Path

import pytest

from page import space
from tests.hub import running_hub, use_hub

ROOT = Path(__file__).parents[1]


@pytest.fixture
def copy(tmp_path) -> Path:
    """The files that the checks read, in a clone of their own."""
    for name in ("README.md", "requirements.txt", "pyproject.toml", "app.py", "page/calls.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    return tmp_path


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_this_repository_is_right(copy):
    assert space.problems(ROOT, run=False) == []
    assert space.problems(copy, run=False) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("README.md", "---\n", "", "title is missing"),
        ("README.md", "colorTo: yellow", "colorTo: orange", "colorTo is 'orange'"),
        ("README.md", "sdk: gradio", "sdk: docker", "sdk has to be gradio"),
        ("README.md", "app_file: app.py", "app_file: main.py", "no app_file 'main.py'"),
        ("README.md", 'python_version: "3.12"', 'python_version: "3.10"', "python_version 3.10 is not >=3.11"),
        ("README.md", "short_description: ", f"short_description: {'very ' * 9}", "longer than 60"),
        ("README.md", "sdk_version: 6", "sdk_version: 5", "does not allow Gradio 5"),
        ("requirements.txt", "timm>=", "timm>=9", "timm .* is installed here"),
        ("app.py", "import os\n", 'import os\n\nos.environ.get("SECRET_WISH")\n', r"reads \$SECRET_WISH"),
    ],
)
def test_what_is_wrong_is_said(copy, file, old, new, told):
    change(copy / file, old, new)
    with pytest.raises(AssertionError, match=told):
        assert space.problems(copy, run=False) == []


def test_a_page_that_needs_an_untracked_file_is_found_out(copy):
    (copy / "app.py").write_text("import secrets_of_mine\n")
    (copy / "secrets_of_mine.py").write_text("")
    (found,) = space.run_problems(copy)
    assert "did not start from the tracked files alone" in found and "secrets_of_mine" in found


def test_the_upload_holds_what_git_tracks(copy, tmp_path_factory, monkeypatch):
    (copy / "notes.txt").write_text("mine")
    with running_hub() as hub:
        use_hub(monkeypatch, hub.url, tmp_path_factory.mktemp("cache"))
        space.push(copy, "me/smell")
        files = hub.files("me/smell")
    assert {"app.py", "README.md", "page/calls.py"} <= set(files) and "notes.txt" not in files
    assert files["app.py"] == (copy / "app.py").read_bytes()
