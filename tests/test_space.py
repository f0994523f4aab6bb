"""The check of the Space finds what would keep it from running, the upload holds what git tracks, and a borrowed GPU
gets what can be sent."""

import importlib.util
import pickle
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest

from musti_model import MustiPipeline, MustiProcessor
from page.tabs.batch import Fields
from tests.conftest import ANSWER, tiny_model
from tests.hub import running_hub, use_hub
from tools import space
from training.hub.push import push

ROOT = Path(__file__).parents[1]
PASSAGE = "She pressed the nosegay to her face; the roses filled the whole chamber with their scent."


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


def test_the_page_runs_from_the_tracked_files():
    assert list(space.run_problems(ROOT)) == []


def test_a_page_that_needs_an_untracked_file_is_found_out(copy):
    (copy / "app.py").write_text("import secrets_of_mine\n")
    (copy / "secrets_of_mine.py").write_text("")
    (found,) = space.run_problems(copy)
    assert "did not start from the tracked files alone" in found and "secrets_of_mine" in found


def test_the_upload_holds_what_git_tracks(copy, tmp_path_factory, monkeypatch):
    (copy / "notes.txt").write_text("mine")
    with running_hub() as hub:
        use_hub(monkeypatch, hub.url, tmp_path_factory.mktemp("cache"))
        push(
            {file: copy / file for file in space.tracked(copy)}, "me/smell", None, False, "The page", repo_type="space"
        )
        files = hub.files("me/smell")
    assert {"app.py", "README.md", "page/calls.py"} <= set(files) and "notes.txt" not in files
    assert files["app.py"] == (copy / "app.py").read_bytes()


def test_a_borrowed_gpu_hands_on_sentences(monkeypatch, tokenizer, flower, tmp_path):
    """On a ZeroGPU Space the marked functions run in another process: other exceptions than gr.Error lose their text,
    results are pickled."""
    import gradio as gr

    # a page that begins again takes another folder; the one that runs keeps its own
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))

    def lend(duration):
        def mark(function):
            def borrowed(*arguments):
                try:
                    return pickle.loads(pickle.dumps(function(*pickle.loads(pickle.dumps(arguments)))))
                except gr.Error:
                    raise
                except Exception as error:
                    raise gr.Error(type(error).__name__) from error

            return borrowed

        return mark

    monkeypatch.setitem(sys.modules, "spaces", types.SimpleNamespace(GPU=lend))
    spec = importlib.util.spec_from_file_location("app_on_a_space", Path(__file__).parents[1] / "app.py")
    app = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, app)
    spec.loader.exec_module(app)
    model = tiny_model()
    handlers = {
        f.name: f.fn
        for f in app.build(MustiPipeline(model, MustiProcessor(model.config, tokenizer), device="cpu")).fns.values()
    }
    assert set(handlers["predict"](str(flower), PASSAGE)) == ANSWER
    for name in ("predict", "explain"):
        with pytest.raises(gr.Error, match="passage is empty"):
            handlers[name](str(flower), "")
    with pytest.raises(gr.Error, match="deleted meanwhile"):
        handlers["predict"]("/nowhere/gone.jpg", PASSAGE)
    (tmp_path / "pairs.csv").write_text("image,text\nflower.jpg,A rose.\n")
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.write(flower, "flower.jpg")
    files = str(tmp_path / "pairs.csv"), str(tmp_path / "pictures.zip")
    assert "1 answered" in list(handlers["answer_all"](Fields(), None, *files, 1.0))[-1][0]
    assert handlers["rank"]([str(flower)], ["A rose."])[0]["index"] == 0
    assert handlers["explain"](str(flower), PASSAGE)[0]["words"][0] == "She"
