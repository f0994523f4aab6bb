"""Publishing: what is pushed, what is refused, and the way back from a loopback Hub into the page, with the real
client."""

import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard, constants
from PIL import Image

from musti_model import MustiPipeline, MustiProcessor, WeightsError
from musti_model.weights import find_weights
from page.weights import weights_html
from tests.conftest import tiny_model
from tests.hub import READ, running_hub, use_hub
from training.hub.push import PublishError
from training.publish import main, publish, scrub

REPO = "me/smells"
TEXT = "The roses smelled sweet in the old house."
THRESHOLD, TEMPERATURE = 0.41, 1.7
PUSHED = {
    "README.md",
    "config.json",
    "metrics.json",
    "model.safetensors",
    "processor.json",
    "run.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "figures/curves.png",
    "figures/calibration.png",
    "figures/evaluation-curves.png",
}


def scores(f1: float, pairs: int, **more) -> dict:
    values = {"f1_macro": f1, "f1_no": 0.9, "f1_yes": 0.6, "auc": 0.81, "pairs": pairs, "yes_share": 0.25, "ece": 0.04}
    return values | {"interval": {"f1_macro": [f1 - 0.05, f1 + 0.05]}} | more


@pytest.fixture(scope="module")
def template(tmp_path_factory, tokenizer):
    """A finished run; its record and its report know the folders of the machine it ran on."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    model = tiny_model(threshold=THRESHOLD, temperature=TEMPERATURE)
    model.save_pretrained(folder / "weights")
    MustiProcessor(model.config, tokenizer).save_pretrained(folder / "weights")
    (folder / "weights" / "checkpoint.pt").write_bytes(b"optimiser")
    (folder / "checkpoint.pt").write_bytes(b"optimiser")
    (folder / "log.jsonl").write_text("{}\n")
    (folder / "evaluation").mkdir()
    for name in ("curves.png", "evaluation/calibration.png", "evaluation/curves.png"):
        Image.new("RGB", (4, 4), "red").save(folder / name)
    run = {
        "system": "tiny",
        "seed": 3,
        "settings": {"lr": 0.001, "lr_of": {"gate": 0.01}, "pairs": f"{folder}/pairs.json"},
        "model": {},
        "loss": {"gamma": 2.0},
        "data": "sha256:da7a",
        "split": "sha256:5917",
        "versions": {"torch": "2.14"},
        "command": f"train --out {folder} --seed 3",
    }
    (folder / "run.json").write_text(json.dumps(run))
    languages = {"en": scores(0.75, 50), "sl": scores(0.70, 30, auc=float("nan"))}
    report = {
        "system": "tiny",
        "seed": 3,
        "data": "sha256:da7a",
        "split": "sha256:5917",
        "fold": 0,
        "command": f"evaluate {folder}",
        "pairs_file": f"{folder}/pairs.json",
        "threshold": THRESHOLD,
        "temperature": TEMPERATURE,
        "collapsed": False,
        "weights": find_weights(folder / "weights").revision,
        "dev": scores(0.8, 90),
        "test": scores(0.7312, 80, languages=languages),
    }
    (folder / "evaluation" / "report.json").write_text(json.dumps(report))
    return folder


@pytest.fixture
def run(template, tmp_path):
    return Path(shutil.copytree(template, tmp_path / "run"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits between its tries
    with running_hub() as hub:
        use_hub(monkeypatch, hub.url, tmp_path / "cache")
        yield hub


def change(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def said(capsys) -> str:
    """The one sentence on stderr; bars and warnings of the client stand on lines of their own before it."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert lines and "Traceback" not in lines
    return lines[-1]


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in range(3)]


def logits(pipe: MustiPipeline) -> list[float]:
    return [a.logit for a in pipe.predict(pictures(), [TEXT, "roses", "Die Hunde"])]


# What is pushed -------------------------------------------------------------------------------------------------------


def test_a_dry_run_writes_everything_and_asks_nobody(run, template, hub, capsys):
    assert main([str(run), REPO, "--dry-run"]) == 0
    out = capsys.readouterr().out
    staged = {f.relative_to(run / "publish").as_posix(): f for f in (run / "publish").rglob("*") if f.is_file()}
    assert set(staged) == PUSHED and not hub.log
    for path, file in staged.items():
        assert re.search(rf"^ *{file.stat().st_size:,}  {re.escape(path)}$", out, re.MULTILINE), path
        for secret in (run.parent, template.parent, Path.home()):
            assert str(secret).encode() not in file.read_bytes(), path
    assert json.loads(staged["run.json"].read_text())["command"] == "train --out finished --seed 3"
    assert logits(MustiPipeline.from_pretrained(run / "publish", "cpu", "float32")) == pytest.approx(
        logits(MustiPipeline.from_pretrained(run / "weights", "cpu", "float32"))
    )


def test_the_card_holds_the_evaluation(run):
    publish(run, REPO, dry_run=True)
    card = ModelCard.load(run / "publish" / "README.md")
    assert card.data.library_name == "musti" and card.data.license == "mit" and card.data.language == ["en", "sl"]
    results = {(r.dataset_config, r.metric_type): r for r in card.data.eval_results}
    assert {key: r.metric_value for key, r in results.items()} == {
        ("all", "f1"): 0.7312,
        ("all", "roc_auc"): 0.81,
        ("en", "f1"): 0.75,
        ("sl", "f1"): 0.7,
    }
    test = results["all", "f1"]
    assert (
        test.dataset_name == "MUSTI (own split)"
        and test.dataset_split == "test"
        and test.dataset_revision == "sha256:5917"
    )
    assert test.dataset_args == {"split": "sha256:5917", "data": "sha256:da7a", "fold": 0, "pairs": 80}
    text = card.text
    assert "| **test** (held out) | 0.731 | 0.681 to 0.781 | 0.900 | 0.600 | 0.810 | 0.040 | 80 | 25% |" in text
    assert "| test, sl | 0.700 | 0.650 to 0.750 | 0.900 | 0.600 | – |" in text  # an AUC that is no number
    for words in (
        "| lr_of.gate | 0.01 |",
        "| seed | 3 |",
        "| loss.gamma | 2.0 |",
        "0.410",
        "1.700",
        "(figures/curves.png)",
        f'from_pretrained("{REPO}@',
        "MMM2024",
    ):
        assert words in text, words


def test_metrics_are_what_the_page_shows(run):
    publish(run, REPO, dry_run=True, dataset="My pairs")
    text = (run / "publish" / "metrics.json").read_text()
    values = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (
        values["test"]["f1_macro"] == 0.7312
        and values["test"]["pairs"] == 80
        and values["test"]["languages"]["sl"]["auc"] is None
    )
    assert "own split of My pairs (sha256:5917)" in values["caveat"] and values["pairs_file"] == "pairs.json"
    # MUSTI's test file has nothing to do with these pairs
    assert "814 pairs" not in (run / "publish" / "README.md").read_text()


@pytest.mark.parametrize(
    "text, rest",
    [
        ("/home/me/my data/musti.json", "musti.json"),
        (r"C:\Users\me\musti.json", "musti.json"),
        ("~/runs/a", "a"),
        ("train /home/me/a.json --out=/tmp/x/y", "train a.json --out=y"),
        ("file:///home/me/a.png", "a.png"),
        ("https://museum.org/a/b.jpg", "https://museum.org/a/b.jpg"),
        ("and/or, 3 / 4, runs/a/b, user/name", "and/or, 3 / 4, runs/a/b, user/name"),
    ],
)
def test_folders_of_this_machine_are_left_out(text, rest):
    assert scrub({text: [text, 1, None, {"deep": text}]}) == {rest: [rest, 1, None, {"deep": rest}]}


# What is refused ------------------------------------------------------------------------------------------------------


def other_weights(run):
    change(run / "evaluation" / "report.json", weights="sha256:000000000000")


DOUBTS = {
    "unevaluated": (lambda run: shutil.rmtree(run / "evaluation"), "was not evaluated"),
    "unreadable": (lambda run: (run / "evaluation" / "report.json").write_text("{"), "cannot be read"),
    "incomplete": (lambda run: change(run / "evaluation" / "report.json", test={}), "lacks scores"),
    "collapsed": (lambda run: change(run / "evaluation" / "report.json", collapsed=True), "collapsed"),
    "other weights": (other_weights, "belongs to other weights"),
    "other threshold": (
        lambda run: change(run / "weights" / "config.json", threshold=0.9),
        "was made at threshold 0.4100",
    ),
}


@pytest.mark.parametrize("case", DOUBTS)
def test_a_doubtful_run_is_refused_unless_forced(case, run, hub, capsys):
    spoil, words = DOUBTS[case]
    spoil(run)
    assert main([str(run), REPO]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and not hub.log and not (run / "publish").exists()
    assert main([str(run), REPO, "--force"]) == 0
    card, shown = hub.files(REPO)["README.md"].decode(), json.loads(hub.files(REPO)["metrics.json"])
    if case == "collapsed":
        assert "These weights collapsed" in card and "collapsed" in shown["caveat"]
    else:  # scores that are not of these weights are not shown
        assert (
            "not evaluated" in card
            and "not evaluated" in shown["caveat"]
            and "model-index" not in card
            and "0.731" not in card
        )
        assert "test" not in shown


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda run: (run / "weights" / "model.safetensors").write_bytes(b"\0" * 200), "incomplete or damaged"),
        (lambda run: (run / "weights" / "tokenizer.json").unlink(), "incomplete or damaged"),
        (lambda run: (run / "weights" / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda run: shutil.rmtree(run / "weights"), "holds no weights"),
        (lambda run: (run / "run.json").unlink(), "no run.json"),
    ],
)
def test_weights_that_do_not_load_are_always_refused(spoil, words, run, hub, capsys):
    spoil(run)
    assert main([str(run), REPO, "--force"]) == 2
    assert words in capsys.readouterr().err and not hub.log


@pytest.mark.parametrize("name", ["smells", "me/sm ells", "me/a/b", "me/smells@main"])
def test_bad_names(name, run, hub):
    with pytest.raises(PublishError, match="user/name"):
        publish(run, name)
    assert not hub.log


# There and back -------------------------------------------------------------------------------------------------------


def test_push_then_pull_by_revision_then_the_page(run, hub, tmp_path, monkeypatch, capsys):
    import app

    assert main([str(run), REPO, "--message", "First weights"]) == 0
    source = re.search(r"^MUSTI_MODEL=(.+)$", capsys.readouterr().out, re.MULTILINE)[1]
    commit = hub.repos[REPO]["branches"]["main"]
    assert (
        source == f"{REPO}@{commit}" and hub.commits(REPO) == 2 and set(hub.files(REPO)) == PUSHED | {".gitattributes"}
    )
    assert hub.verified and hub.files(REPO)["model.safetensors"] == (run / "weights" / "model.safetensors").read_bytes()

    change(run / "weights" / "config.json", threshold=0.6)
    change(run / "evaluation" / "report.json", threshold=0.6)
    later = publish(run, REPO)
    assert later != commit and [hub.messages[c] for c in (commit, later)] == [
        "First weights",
        "Weights of tiny, seed 3",
    ]

    use_hub(monkeypatch, hub.url, tmp_path / "fresh", token=None)
    shutil.move(run / "publish", tmp_path / "away")
    pulled = MustiPipeline.from_pretrained(source, "cpu", "float32")
    assert Path(tmp_path / "fresh") in pulled.weights.folder.parents and pulled.revision == commit
    assert logits(pulled) == logits(MustiPipeline.from_pretrained(run / "weights", "cpu", "float32"))
    assert (pulled.config.threshold, MustiPipeline.from_pretrained(REPO, "cpu").config.threshold) == (THRESHOLD, 0.6)

    monkeypatch.setenv("MUSTI_MODEL", source)
    pipe, problem = app.load_pipeline()
    assert problem is None and pipe.name == REPO
    told = weights_html(pipe)
    assert REPO in app.weights_banner(pipe, problem) and commit in told
    assert "F1-macro 0.73 on 80 held-out test pairs" in told and "own split of MUSTI" in told
    app.build(pipe, problem)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # a pinned commit in the cache needs no Hub
    assert logits(MustiPipeline.from_pretrained(source, "cpu", "float32")) == logits(pulled)


def test_a_second_push_sends_what_is_new_and_takes_old_figures_away(run, hub):
    first = publish(run, REPO)
    (run / "evaluation" / "calibration.png").rename(run / "evaluation" / "reliability.png")
    hub.log.clear()
    second = publish(run, REPO)
    # the same weights, and a figure that only has a new name
    assert not [path for method, path in hub.log if method == "PUT"]
    assert "figures/reliability.png" in hub.files(REPO, second) and "figures/calibration.png" not in hub.files(
        REPO, second
    )
    assert "figures/calibration.png" in hub.files(REPO, first)
    assert publish(run, REPO) == second and hub.commits(REPO) == 3  # nothing new, no commit


def test_a_branch_leaves_the_main_one_alone(run, hub):
    commit = publish(run, REPO, revision="trial/1")
    assert hub.repos[REPO]["branches"] == {"main": "0" * 40, "trial/1": commit}
    assert MustiPipeline.from_pretrained(f"{REPO}@trial/1", "cpu").revision == commit
    assert publish(run, REPO, revision="trial/1") == commit


def test_private_is_kept(run, hub, tmp_path, monkeypatch):
    publish(run, REPO, private=True)
    use_hub(monkeypatch, hub.url, tmp_path / "stranger", token=None)
    with pytest.raises(WeightsError, match="private"):
        MustiPipeline.from_pretrained(REPO)
    use_hub(monkeypatch, hub.url, tmp_path / "reader", token=READ)
    assert MustiPipeline.from_pretrained(REPO, "cpu").name == REPO
    use_hub(monkeypatch, hub.url, tmp_path / "writer")
    publish(run, "me/public")
    with pytest.raises(PublishError, match="exists and is public"):
        publish(run, "me/public", private=True, message="secret")
    assert hub.commits("me/public") == 2


# A Hub in trouble -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "repo, token, words",
    [
        (REPO, None, "status 401"),
        (REPO, "hf_wrong", "status 401"),
        (REPO, READ, "status 403"),
        ("nobody/smells", "hf_write", "organisation nobody"),
    ],
)
def test_what_the_hub_does_not_allow_is_a_sentence(repo, token, words, run, hub, tmp_path, monkeypatch, capsys):
    use_hub(monkeypatch, hub.url, tmp_path / "cache", token)
    assert main([str(run), repo]) == 2
    sentence = said(capsys)
    assert words in sentence and ("log in or set HF_TOKEN with write access" in sentence) == ("status" in words)
    assert not hub.repos and set(PUSHED) <= {
        f.relative_to(run / "publish").as_posix() for f in (run / "publish").rglob("*")
    }


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network(offline, run, hub, tmp_path, monkeypatch, capsys):
    use_hub(monkeypatch, hub.url if offline else "http://127.0.0.1:9", tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    assert main([str(run), REPO]) == 2
    assert "cannot be reached" in said(capsys) and not hub.log and (run / "publish" / "README.md").exists()


@pytest.mark.parametrize(
    "step",
    [("PUT", "/lfs/"), ("POST", "/verify"), ("POST", "/preupload/"), ("POST", "/commit/"), ("POST", "/objects/batch")],
)
def test_a_push_that_breaks_off_commits_nothing_and_can_be_given_again(step, run, hub, capsys):
    before = (run / "weights" / "model.safetensors").read_bytes()
    hub.broken[step] = 500
    assert main([str(run), REPO]) == 2
    sentence = said(capsys)
    assert "broke off" in sentence and "status 500" in sentence and hub.commits(REPO) == 1
    assert (
        (run / "weights" / "model.safetensors").read_bytes()
        == before
        == (run / "publish" / "model.safetensors").read_bytes()
    )
    hub.broken.clear()
    assert main([str(run), REPO]) == 0 and hub.commits(REPO) == 2


@pytest.mark.parametrize("how", ["short", "broken off"])
def test_a_truncated_download_is_a_sentence_and_leaves_no_bad_cache(how, run, hub, monkeypatch):
    import app

    source = f"{REPO}@{publish(run, REPO)}"
    hub.cut["model.safetensors"] = how
    with pytest.raises(WeightsError, match=f"{REPO} could not be fetched from the Hub"):
        MustiPipeline.from_pretrained(source)
    monkeypatch.setenv("MUSTI_MODEL", source)
    pipe, problem = app.load_pipeline()
    assert pipe.name == "embedded starter" and "could not be fetched" in problem
    hub.cut.clear()
    assert logits(MustiPipeline.from_pretrained(source, "cpu", "float32")) == logits(
        MustiPipeline.from_pretrained(run / "weights", "cpu", "float32")
    )


def test_a_full_disk_is_a_sentence(run, hub, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    assert main([str(run), REPO]) == 2
    assert "could not be written (No space left on device)" in said(capsys) and not hub.log
