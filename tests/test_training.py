"""From a MUSTI file to trained, evaluated, compared and applied weights, through the commands, at the smallest size."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

from musti_model import InputError, MustiModel, MustiPipeline, MustiProcessor
from musti_model.fusion import GATES
from musti_model.records import MustiPair, read_pairs
from tests import musti_file
from tests.conftest import tiny_config, tiny_model
from tests.processes import FORKS, ended, start_two
from training import compare, evaluate, predict, train
from training.data.folds import leaks
from training.data.parts import divide
from training.lexicon.objects import carriers, gate_labels, object_scores, shared_objects
from training.lexicon.vocabulary import Vocabulary
from training.report.metrics import sigmoid
from training.systems import detector, learners, load_system, system_names

ROOT = Path(__file__).parents[1]
TINY = tiny_config(objects=()).to_dict()
SMALL = [
    f"model.branches={json.dumps(TINY['branches'])}",
    f"model.text={json.dumps(TINY['text'])}",
    f"model.text_length={TINY['text_length']}",
    "batch=8",
    "train.epochs=2",
    "train.lr_of={}",
    "train.lr=0.002",
    "train.precision=float32",
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return musti_file.make(tmp_path_factory.mktemp("musti"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pairs, folder):
    """Two seeds of one system and one of another, trained and evaluated by the commands."""
    root = tmp_path_factory.mktemp("runs")
    for name, system, seed in (("a0", "musti-base", 0), ("a1", "musti-base", 1), ("b0", "musti-base-no-gate", 0)):
        assert train.main(arguments(system, pairs, root / name, folder, seed=seed)) == 0
        assert evaluate.main([str(root / name)]) == 0
    return root


def arguments(
    system: str, pairs: Path, run: Path, start: Path, *more: str, seed: int = 0, changes: list[str] = SMALL
) -> list[str]:
    values = [
        system,
        "--pairs",
        str(pairs),
        "--out",
        str(run),
        "--init",
        str(start),
        "--folds",
        "3",
        "--seed",
        str(seed),
        *more,
    ]
    return values + [x for change in changes for x in ("--set", change)]


# Systems --------------------------------------------------------------------------------------------------------------


def test_every_system_of_the_paper_is_there():
    names = set(system_names())
    variants = {
        f"{kind}{rest}"
        for kind in ("TSF", "Baseline")
        for rest in (
            "",
            "_hard_voting",
            "_ViT",
            "_Resnet",
            "_Swin",
            "_ViT_Resnet",
            "_ViT_Resnet_hard_voting",
            "_ViT_Swin",
            "_Resnet_Swin",
        )
    }
    assert (
        variants
        | {
            "resnet101-bert-entropy",
            "resnet101-bert-focal",
            "detector-bert",
            "mmm2024-a25",
            "mmm2024-a30",
            "musti-base",
            "musti-word",
        }
        <= names
    )
    for name in names:
        for size in ("base", "starter"):
            system = load_system(name, size)
            assert system.about and system.settings(2000, 0).steps_per_epoch > 0


@pytest.mark.parametrize("name", ["musti-base", "musti-word", "starter"])
def test_rates_and_first_epochs_are_of_parts_that_are_there(name):
    """What matches no part would be ignored, and the part that was meant trained at the general rate."""
    system = load_system(name)
    with torch.device("meta"):
        parts = [n for n, _ in MustiModel(system.model).named_parameters()]
    named = [*system.train["lr_of"], *system.train["freeze_until"]]
    assert [prefix for prefix in named if not any(part.startswith(prefix) for part in parts)] == []
    assert bool(system.loss.gate) == GATES[system.model.gate].by_word


def test_published_settings_are_those_of_the_published_code():
    system = load_system("mmm2024-a30")
    settings = system.settings(1000, 0)
    assert (system.loss.gamma, system.loss.alpha, system.loss.normalization) == (2.0, 0.3, "published")
    assert (settings.lr, settings.optimizer, settings.select, settings.patience, settings.warmup, settings.clip) == (
        1e-3,
        "adam",
        "loss",
        5,
        0,
        0,
    )
    assert system.threshold == 0.5 and system.batch == 20 and settings.lr_of == {}
    assert [b.name for b in load_system("TSF_ViT_Swin").model.branches] == ["vit", "swin"]
    assert (
        load_system("Baseline_hard_voting").model.gate == "none"
        and load_system("Baseline_hard_voting").model.voting == "mean"
    )


def test_systems_can_be_changed_but_not_misspelt():
    assert load_system("musti-base", changes={"loss.alpha": 0.7, "train.epochs": 3}).loss.alpha == 0.7
    with pytest.raises(ValueError, match="cannot be built"):
        load_system("detector-bert", changes={"model.detektor": "x"})
    with pytest.raises(ValueError, match="cannot be built"):
        load_system("musti-base", changes={"model.branches": ["swin"]})
    assert load_system("musti-base", "starter").start == "starter"
    for changes in (
        {"loss.alfa": 1},
        {"train.learning": 1},
        {"bach": 1},
        {"model.gate": "sum"},
        {"loss.kind": "hinge"},
    ):
        with pytest.raises(ValueError):
            load_system("musti-base", changes=changes)
    with pytest.raises(ValueError, match="There is no system"):
        load_system("nothing")


@pytest.mark.parametrize("name", ["TSF", "Baseline_ViT_Resnet_hard_voting", "resnet101-bert-focal"])
def test_systems_at_the_starters_size_run(name, pairs):
    """Every kind of branch and vote gives a loss with gradients in all that is trained."""
    learner, said = learners.build(load_system(name, "starter"), pairs.parent, "starter")
    assert "tensors start from embedded starter" in said
    batch = learner.batch(read_pairs(pairs)[0][:2])
    loss, _ = learners.loss_step(learner, load_system(name, "starter").loss)(learner.model.train(), batch)
    loss.backward()
    silent = {n.split(".")[0] for n, p in learner.model.named_parameters() if p.grad is None}
    assert silent <= {"scale", "bias", "none_logit", "nothing_logit", "prototypes", "fusion", "voting", "grid_norm"}


# Training -------------------------------------------------------------------------------------------------------------


def test_a_run_holds_what_it_takes_to_repeat_it(runs, pairs, folder):
    about = json.loads((runs / "a0" / "run.json").read_text())
    assert about["system"] == "musti-base" and about["seed"] == 0 and about["loss"]["alpha"] == 0.5
    assert {"data", "split", "model", "settings", "versions", "command", "options"} <= about.keys()
    assert json.loads((runs / "a1" / "run.json").read_text())["split"] == about["split"]  # seeds share their test pairs
    before = (runs / "a0" / "weights" / "model.safetensors").read_bytes()
    config = (runs / "a0" / "weights" / "config.json").read_text()
    # a finished run stays as it is, temperature and all
    assert train.main(arguments("musti-base", pairs, runs / "a0", folder)) == 0
    assert (runs / "a0" / "weights" / "model.safetensors").read_bytes() == before
    assert (runs / "a0" / "weights" / "config.json").read_text() == config
    assert re.match(r"(\d+) of \1 tensors start from", about["start"]) and "sha256:" in about["start"]


def test_a_run_is_of_one_kind(runs, pairs, folder, capsys):
    assert train.main(arguments("musti-base", pairs, runs / "a0", folder, "--set", "loss.alpha=0.9")) == 2
    assert "other loss" in capsys.readouterr().err


def test_bad_input_is_one_sentence(pairs, folder, tmp_path, capsys):
    for options in (
        ["nothing", "--pairs", str(pairs), "--out", str(tmp_path / "x")],
        arguments("musti-base", tmp_path / "missing.json", tmp_path / "x", folder),
        arguments("musti-base", pairs, tmp_path / "x", tmp_path / "no-weights"),
        arguments("musti-base", pairs, tmp_path / "x", folder, "--leave-out", "fr"),
        arguments("musti-base", pairs, tmp_path / "x", folder, changes=[*SMALL, "batch=1000"]),
    ):
        assert train.main(options) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert evaluate.main([str(tmp_path)]) == 2 and "train it first" in capsys.readouterr().err


def test_pictures_are_looked_at_before_training(folder, tmp_path, capsys):
    """Damaged and lost ones are left out with their pairs and named; one that is lost later is named too."""
    file = musti_file.make(tmp_path / "m")
    for n in (3, 4):
        (tmp_path / "m" / "images" / f"{n}.png").write_bytes(
            (tmp_path / "m" / "images" / f"{n}.png").read_bytes()[:300]
        )
    (tmp_path / "m" / "images" / "5.png").unlink()
    assert train.main(arguments("musti-base", file, tmp_path / "run", folder)) == 0
    said = capsys.readouterr().out
    assert (
        "3 pictures, of" in said
        and all(f"images/{n}.png (" in said for n in (3, 4, 5))
        and said.index("images/5.png") < said.index("epoch")
    )
    learner, _ = learners.build(replace(load_system("musti-base"), model=tiny_config()), file.parent, str(folder))
    lost = next(p for p in read_pairs(file)[0] if p.image == "images/3.png")
    with pytest.raises(InputError, match="images/3.png: The picture is damaged"):
        learner.batch([lost])


def test_what_the_lead_finds_is_told_once(folder, tmp_path):
    """Two processes, no picture: one sentence, and both end."""
    file = musti_file.make(tmp_path / "m")
    for path in (tmp_path / "m" / "images").iterdir():
        path.unlink()
    options = arguments("musti-base", file, tmp_path / "run", folder)
    assert all(ended(process) != 0 for process in start_two("training.train", options, tmp_path / "logs"))
    told = "".join(log.read_text() for log in (tmp_path / "logs").iterdir())
    assert told.count("No pair has a label and a picture on this machine") == 1, told


def test_a_collapse_ends_the_command(pairs, folder, tmp_path, capsys):
    """Nothing learns at a rate of practically 0, and a model without scale says the same of every pair."""
    options = arguments(
        "musti-base",
        pairs,
        tmp_path / "run",
        folder,
        changes=[*SMALL[:-2], "train.lr=1e-12", "train.precision=float32"],
    )
    (tmp_path / "flat").mkdir()
    model = tiny_model(objects=())
    model.scale.data.fill_(0.0)
    model.save_pretrained(tmp_path / "flat")
    for file in folder.glob("tokenizer*"):
        (tmp_path / "flat" / file.name).write_bytes(file.read_bytes())
    options[options.index("--init") + 1] = str(tmp_path / "flat")
    assert train.main(options) == 3 and "practically the same probability" in capsys.readouterr().err
    assert evaluate.main([str(tmp_path / "run")]) == 0  # the collapse can be measured
    assert "Collapsed" in (tmp_path / "run" / "evaluation" / "report.md").read_text()
    assert "(collapsed)" in compare.table([compare.load_run(tmp_path / "run")])


def test_the_best_weights_are_the_saved_ones(runs, pairs):
    """What MustiPipeline loads gives the logits of the report."""
    rows = json.loads((runs / "a0" / "evaluation" / "logits.json").read_text())["test"]
    pipe = MustiPipeline.from_pretrained(runs / "a0" / "weights", device="cpu", precision="float32")
    by_id = {p.id: p for p in read_pairs(pairs)[0]}
    chosen = [by_id[r["id"]] for r in rows]
    answers = pipe.predict([pairs.parent / p.image for p in chosen], [p.text for p in chosen])
    assert np.allclose([a.logit for a in answers], [r["logit"] for r in rows], atol=1e-4)


def test_nothing_is_shared_between_the_parts(pairs):
    found, _ = read_pairs(pairs)
    options = {"leave_out": None, "folds": 3, "fold": 0, "split_seed": 0, "whole": False}
    parts, _ = divide(found, options)
    place = {p.id: i for i, p in enumerate(found)}
    assert (
        leaks(found, {k: [place[p.id] for p in v] for k, v in parts.items()}) == 0
        and min(map(len, parts.values())) >= 8
    )


def test_a_language_left_out_is_never_trained_on(tmp_path, folder):
    file = musti_file.make(tmp_path / "m", 90)
    records = json.loads(file.read_text())["pairs"]
    for r in records:  # each language with pictures of its own, or little would be left
        number, language = int(r["image"].split("/")[1].split(".")[0]), ("en", "it", "sl").index(r["language"])
        r["image"] = f"images/{number // 3 * 3 % 30 + language}.png"
    file.write_text(json.dumps({"pairs": records}))
    assert train.main(arguments("musti-base", file, tmp_path / "run", folder, "--leave-out", "slovene")) == 0
    assert evaluate.main([str(tmp_path / "run")]) == 0
    report = json.loads((tmp_path / "run" / "evaluation" / "report.json").read_text())
    assert set(report["test"]["languages"]) == {"sl"} and "sl" not in report["dev"]["languages"]


def test_each_process_takes_its_share(pairs, folder):
    learner, _ = learners.build(replace(load_system("musti-base"), model=tiny_config()), pairs.parent, str(folder))
    found, _ = read_pairs(pairs)
    whole = [b["labels"] for b in learners.PairBatches(learner, found, 8, 0)(3, 1)]
    shares = [[b["labels"] for b in learners.PairBatches(learner, found, 8, 0, rank, 2)(3, 1)] for rank in (0, 1)]
    assert len(whole) == len(found) // 8 - 1
    for w, a, b in zip(whole, *shares, strict=True):
        assert torch.equal(w[0::2], a) and torch.equal(w[1::2], b)
    with pytest.raises(ValueError, match="cannot be shared"):
        learners.PairBatches(learner, found, 7, 0, 0, 2)


def test_two_processes_train_the_same_model(pairs, folder, tmp_path):
    """The whole command as torchrun starts it: equal global batch, weights within tolerance of one process."""
    changes = [
        *SMALL,
        "model.text=" + json.dumps(TINY["text"] | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}),
    ]
    assert train.main(arguments("musti-base", pairs, tmp_path / "one", folder, changes=changes)) == 0
    logs = tmp_path / "logs"
    options = arguments("musti-base", pairs, tmp_path / "two", folder, changes=changes)
    for process in start_two("training.train", options, logs):
        assert ended(process) == 0, [log.read_text() for log in logs.iterdir()]
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2
    one, two = (load_file(tmp_path / n / "weights" / "model.safetensors") for n in ("one", "two"))
    assert one.keys() == two.keys()
    assert max(float((one[k].float() - two[k].float()).abs().max()) for k in one) < 2e-3


# Evaluation -----------------------------------------------------------------------------------------------------------


def test_the_report_is_whole(runs, pairs):
    folder = runs / "a0" / "evaluation"
    report = json.loads((folder / "report.json").read_text())
    for part in ("dev", "test"):
        low, high = report[part]["interval"]["f1_macro"]
        assert 0 <= low <= report[part]["f1_macro"] + 0.05 and low < high <= 1
        assert set(report[part]["languages"]) <= {"en", "it", "sl"}
        assert sum(s["pairs"] for s in report[part]["languages"].values()) == report[part]["pairs"]
    for name in ("pr", "roc", "confusion", "reliability"):
        assert Image.open(folder / f"{name}.png").size[0] >= 300
    config = json.loads((runs / "a0" / "weights" / "config.json").read_text())
    assert config["temperature"] == report["temperature"] and config["threshold"] == report["threshold"]
    assert MustiPipeline.from_pretrained(runs / "a0" / "weights").card["test"]["pairs"] == report["test"]["pairs"]
    text = (folder / "report.md").read_text()
    assert f"{report['test']['f1_macro']:.4f}" in text and "python -m training.train" in text


def test_other_pairs_are_refused(runs, tmp_path, capsys):
    other = musti_file.make(tmp_path, seed=5)
    assert evaluate.main([str(runs / "a0"), "--pairs", str(other)]) == 2
    assert "does not hold the pairs" in capsys.readouterr().err


def test_any_weights_on_any_labelled_file(runs, folder, pairs, tmp_path):
    assert evaluate.main(["--weights", str(folder), "--pairs", str(pairs), "--out", str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (
        report["test"]["pairs"] == 90 and report["threshold"] == MustiPipeline.from_pretrained(folder).config.threshold
    )


def test_a_threshold_given_as_a_number_is_kept(pairs, folder, tmp_path):
    """.3 before the temperature T is sigmoid(logit(.3) / T) after it: the same answers."""
    assert train.main(arguments("musti-base", pairs, tmp_path / "run", folder, "--set", "threshold=0.3")) == 0
    assert evaluate.main([str(tmp_path / "run")]) == 0
    report = json.loads((tmp_path / "run" / "evaluation" / "report.json").read_text())
    rows = json.loads((tmp_path / "run" / "evaluation" / "logits.json").read_text())["test"]
    logits = np.array([r["logit"] for r in rows])
    assert report["temperature"] != 1
    assert np.array_equal(sigmoid(logits / report["temperature"]) >= report["threshold"], sigmoid(logits) >= 0.3)


def test_different_experiments_are_different_rows(runs, pairs, folder, tmp_path):
    """A run with another alpha is no further seed."""
    assert train.main(arguments("musti-base", pairs, tmp_path / "run", folder, "--set", "loss.alpha=0.9")) == 0
    assert evaluate.main([str(tmp_path / "run")]) == 0
    names = compare.rows_of([compare.load_run(f) for f in (runs / "a0", runs / "a1", tmp_path / "run")])
    assert {n: len(rows) for n, rows in names.items()} == {
        "musti-base, loss.alpha=0.5": 2,
        "musti-base, loss.alpha=0.9": 1,
    }


def test_comparison_is_paired(runs, capsys, tmp_path):
    assert compare.main([str(runs / n) for n in ("a0", "a1", "b0")] + ["--out", str(tmp_path / "t.md")]) == 0
    text = (tmp_path / "t.md").read_text()
    assert "| musti-base | 2 |" in text and "| musti-base-no-gate | 1 |" in text and "1 paired" in text
    a, b = compare.load_run(runs / "a0"), compare.load_run(runs / "b0")
    assert compare.differences([a], [a])[1] == [0.0, 0.0]  # a run against itself, on the same samples
    forward, backward = compare.differences([a], [b]), compare.differences([b], [a])
    assert forward[0] == pytest.approx(-backward[0])
    assert compare.main([str(tmp_path)]) == 2 and "has no evaluation" in capsys.readouterr().err


# Prediction -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def file_to_fill(pairs, tmp_path):
    """20 records without labels, five of them bad."""
    records = json.loads(pairs.read_text())["pairs"][:20]
    for r in records:
        r["image"] = str(pairs.parent / r["image"])
        r["subtask1_label"], r["extra"] = "", "kept"
    records[3]["text"] = ""
    records[5]["image"] = "https://museum.example/a.jpg"
    records[7]["image"] = str(tmp_path / "missing.png")
    records[9]["text"] = "123 ... 4"
    records.insert(11, "not a record")
    (tmp_path / "in.json").write_text(json.dumps({"pairs": records}))
    return tmp_path / "in.json"


def test_a_file_is_filled_in(file_to_fill, runs, capsys):
    out = file_to_fill.with_name("out.json")
    assert predict.main([str(file_to_fill), str(out), "--weights", str(runs / "a0" / "weights"), "--batch", "6"]) == 1
    said = capsys.readouterr().out
    before, after = (json.loads(f.read_text())["pairs"] for f in (file_to_fill, out))
    assert len(after) == len(before) == 21 and [r["id"] for r in after if r != "not a record"] == [
        r["id"] for r in before if r != "not a record"
    ]
    unanswered = [i for i, r in enumerate(after) if r == "not a record" or r["subtask1_label"] == ""]
    assert unanswered == [3, 5, 7, 9, 11]
    for ident in ("3:", "5:", "7:", "9:", "record 12:"):
        assert ident in said
    assert all(isinstance(r, str) or "image_url" not in r for r in after)
    pipe = MustiPipeline.from_pretrained(runs / "a0" / "weights", device="cpu", precision="float32")
    assert all(
        pipe(r["image"], r["text"]).label == r["subtask1_label"] and r["extra"] == "kept"
        for i, r in enumerate(after)
        if i not in unanswered
    )


def test_a_stopped_prediction_goes_on(file_to_fill, runs, monkeypatch, capsys):
    """After a kill with a torn last line, what was answered is not answered again, and the result is the same."""
    weights = str(runs / "a0" / "weights")
    whole, broken = file_to_fill.with_name("whole.json"), file_to_fill.with_name("broken.json")
    assert predict.main([str(file_to_fill), str(whole), "--weights", weights, "--batch", "4"]) == 1
    real, calls = predict._work, []

    def killed(jobs):
        calls.append(jobs)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(jobs)

    monkeypatch.setattr(predict, "_work", killed)
    with pytest.raises(KeyboardInterrupt):
        predict.main([str(file_to_fill), str(broken), "--weights", weights, "--batch", "4"])
    with open(str(broken) + ".part", "a") as part:
        part.write('{"position": 9, "torn')
    monkeypatch.setattr(predict, "_work", lambda jobs: calls.append(jobs) or real(jobs))
    before = len(calls)
    assert predict.main([str(file_to_fill), str(broken), "--weights", weights, "--batch", "4"]) == 1
    assert [position for jobs in calls[before:] for position, _ in jobs] == list(range(9, 22))
    assert broken.read_text() == whole.read_text() and not Path(str(broken) + ".part").exists()


def test_a_process_that_cannot_start_ends_in_a_sentence(file_to_fill, tmp_path, monkeypatch, capsys):
    """The weights are gone once the parent has looked at them."""
    monkeypatch.setattr(predict.multiprocessing, "get_context", lambda _kind: FORKS)  # need not import all anew
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "config.json").write_text("{}")
    (tmp_path / "w" / "model.safetensors").write_bytes(b"nothing")
    options = [str(file_to_fill), str(tmp_path / "out.json"), "--weights", str(tmp_path / "w"), "--processes", "2"]
    assert predict.main(options) == 2 and "could not start" in capsys.readouterr().err
    assert predict.main([*options[:2], "--subtask2", "--vocabulary", str(tmp_path / "none"), "--processes", "2"]) == 2
    assert "holds no vocabulary" in capsys.readouterr().err


def test_half_a_surrogate_pair_does_not_stop_the_file(file_to_fill, runs):
    records = json.loads(file_to_fill.read_text())["pairs"][:3]
    records[1]["title"] = "\ud835"
    file_to_fill.write_text(json.dumps(records))
    out = file_to_fill.with_name("out.json")
    assert predict.main([str(file_to_fill), str(out), "--weights", str(runs / "a0" / "weights")]) == 0
    assert json.loads(out.read_text())["pairs"][1]["title"] == "\ud835"


def test_a_part_of_another_job_is_not_continued(file_to_fill, runs, capsys):
    out = file_to_fill.with_name("out.json")
    Path(str(out) + ".part").write_text(json.dumps({"weights": "other"}) + "\n")
    assert predict.main([str(file_to_fill), str(out), "--weights", str(runs / "a0" / "weights")]) == 2
    assert "belongs to other weights" in capsys.readouterr().err


def test_two_processes_fill_in_the_same(file_to_fill, runs, monkeypatch):
    monkeypatch.setattr(predict.multiprocessing, "get_context", lambda _kind: FORKS)  # need not import all anew
    weights = str(runs / "a0" / "weights")
    one, two = file_to_fill.with_name("one.json"), file_to_fill.with_name("two.json")
    for out, processes in ((one, "1"), (two, "2")):
        assert (
            predict.main([str(file_to_fill), str(out), "--weights", weights, "--batch", "4", "--processes", processes])
            == 1
        )
    assert one.read_text() == two.read_text()


# Subtask 2 ------------------------------------------------------------------------------------------------------------


class Listener:
    """Stands for the pipeline: the logit is 2 with "roses", less 1.5 without them; other words change it by .1."""

    config = SimpleNamespace(temperature=1.0)

    def rank(self, image, texts):
        return [
            (i, SimpleNamespace(logit=2.0 - 1.5 * ("roses" not in t) - 0.1 * ("dogs" not in t)))
            for i, t in enumerate(texts)
        ]


def test_names_that_carry_the_match_by_hand():
    vocabulary = Vocabulary()
    text = "The roses and the dogs of the town, roses above all."
    found = carriers(Listener(), "picture", text, "en", vocabulary)
    assert [(c.object, round(c.drop, 6)) for c in found] == [("flower", 1.5), ("dog", 0.1)]
    assert shared_objects(Listener(), "picture", text, "en", vocabulary) == ["flower"]
    assert shared_objects(Listener(), "picture", "Nothing is named at all.", "en", vocabulary) == []


def test_object_scores_by_hand():
    """Two labels are one across inflections and languages: "hund" and "dogs" are the dog."""
    vocabulary = Vocabulary()
    result = object_scores([["hund", "rose"], ["smoke"]], [["dog"], ["fish", "smoke"]], ["de", "en"], vocabulary)
    assert result == {"precision": 2 / 3, "recall": 2 / 3, "f1": pytest.approx(2 / 3), "known": pytest.approx(2 / 3)}


def test_a_vocabulary_of_ones_own(tmp_path):
    (tmp_path / "olfactory-objects-en.csv").write_text('ID,LABEL en,SYNONYMS\n7,Censer,"thurible, incense burner"\n')
    (tmp_path / "olfactory-objects-it.csv").write_text("ID,LABEL it,SYNONYMS\n7,incensiere,turibolo\n")
    vocabulary = Vocabulary(tmp_path)
    assert [m.object for m in vocabulary.find("Two censers and a thurible.", "en")] == ["7", "7"]
    assert vocabulary.objects_of("turibolo", "it") == {"7"} and vocabulary.name("7", "it") == "incensiere"
    with pytest.raises(InputError, match="holds no vocabulary"):
        Vocabulary(tmp_path / "nothing")


@pytest.mark.parametrize("form", ["olfactory-objects-{}.csv", "{}.csv", "objects_{}.CSV", "objects.{}-XX.csv"])
def test_vocabularies_in_other_languages(tmp_path, form):
    """Dutch, which has an English name beside its own, and a language that the project does not know."""
    rows = {
        "en": "ID,LABEL en,SYNONYMS,MAIN LANG\n7,Censer,thurible,EN\n\n8,Dairy,,\n",
        "nl": (
            "ID,LABEL en,LABEL,SYNONYMS,\n7,Censer,Wierookvat (kerk),,\n8,Dairy,,,\n9,Whale,(Gestrande) "
            "walvis,,\n,,,,\n"
        ),
    }
    if "XX" not in form:
        rows["es"] = "ID,LABEL en,LABEL\n7,Censer,incensario\n"
    for tag, text in rows.items():
        (tmp_path / form.format(tag)).write_text(text)
    vocabulary = Vocabulary(tmp_path)
    assert vocabulary.languages.keys() == rows.keys() and vocabulary.notices == []
    assert [m.object for m in vocabulary.find("Een wierookvat en twee walvissen, wierookvaten. Dairy.", "nl")] == [
        "7",
        "9",
        "7",
    ]
    assert (
        vocabulary.name("7", "nl") == "wierookvat"
        and vocabulary.name("8", "nl") == vocabulary.name("8", "und") == "dairy"
    )
    assert [m.object for m in vocabulary.find("Een wierookvat. Two censers.", "und")]
    assert "es" not in rows or [m.object for m in vocabulary.find("Un incensario.", "es")] == ["7"]


@pytest.mark.parametrize(
    ("name", "plural"),
    [
        ("roos", "rozen"),
        ("druif", "druiven"),
        ("kaas", "kazen"),
        ("neus", "neuzen"),
        ("peer", "peren"),
        ("vis", "vissen"),
    ],
)
def test_dutch_plurals(tmp_path, name, plural):
    (tmp_path / "nl.csv").write_text(f"ID,LABEL\n1,{name}\n")
    assert [m.object for m in Vocabulary(tmp_path).find(f"Een {name}, twee {plural}.", "nl")] == ["1", "1"]


@pytest.mark.parametrize(
    "data",
    [
        "\ufeffID;LABEL en;SYNONYMS\r\n7;Censer;thurible, incense burner\r\n".encode(),
        b"sep=;\r\nID;LABEL en;SYNONYMS\r\n7;Censer;thurible|incense burner\r\n",
        "ID\tLABEL en\tSYNONYMS\n7\tCenser\tthurible/incense burner\n".encode("utf-16"),
        b'\n,,\n id ,label_EN,Synonyms\n7.0, <Censer>?,"thurible; incense  burner"\n7.0,-,n/a\n',
        b'SYNONYMS,x,LABEL,ID\n"thurible,incense burner",,Censer,7\n',
    ],
)
def test_vocabularies_as_spreadsheets_write_them(tmp_path, data):
    (tmp_path / "en.csv").write_bytes(data)
    vocabulary = Vocabulary(tmp_path)
    assert [m.object for m in vocabulary.find("A censer, two thuribles, an incense burner, a n -", "en")] == [
        "7",
        "7",
        "7",
    ]
    assert (
        sorted(vocabulary.languages["en"].forms())[:2] == ["censer", "censers"]
        and len(vocabulary.languages["en"].forms()) == 6
    )


def test_what_is_no_vocabulary_is_told(tmp_path):
    bad = {
        "en.csv": b"ID,NAME\n7,Censer\n",
        "de.csv": b"LABEL de\nKelch\n",
        "fr.csv": "ID,LABEL\n7,caf\u00e9\n".encode("latin-1"),
        "it.csv": b"",
        "sl.csv": b"ID,LABEL sl\n",
        "nl.csv": b'ID,LABEL\n7,"Wierookvat\n8,Zuivel\n',
        "mapping.csv": b"ID,LABEL\n7,Censer\n",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "pt.csv").mkdir()
    with pytest.raises(
        InputError, match=r"holds no vocabulary; .* \(de.csv was not read: its first line names no column ID"
    ):
        Vocabulary(tmp_path)
    (tmp_path / "objects-es.csv").write_text("ID,LABEL,SYNONYMS\n7,incensario,\n8,leche,nata,queso\n")
    vocabulary = Vocabulary(tmp_path)
    assert list(vocabulary.languages) == ["es"] and len(vocabulary.notices) == 9
    assert all(any(s.startswith(f"{name} was not read") for s in vocabulary.notices) for name in (*bad, "pt.csv"))
    assert vocabulary.notices[-2].startswith(
        "objects-es.csv: the rows that end in line 3 have more cells"
    ) or "line 3" in " ".join(vocabulary.notices)
    (tmp_path / "es.csv").write_text("ID,LABEL\n7,otro\n")
    with pytest.raises(InputError, match="es.csv and objects-es.csv in .* are both of the language 'es'"):
        Vocabulary(tmp_path)


def test_the_shared_objects_are_filled_in_and_scored(pairs, tmp_path, capsys):
    """With the embedded weights; NO pairs get none."""
    records = json.loads(pairs.read_text())["pairs"][:12]
    for r in records:
        r["image"] = str(pairs.parent / r["image"])
    (tmp_path / "in.json").write_text(json.dumps(records))
    assert predict.main([str(tmp_path / "in.json"), str(tmp_path / "out.json"), "--subtask2"]) == 0
    said = capsys.readouterr().out
    assert "F1-macro where labels were known" in said and "Objects where known" in said
    for r in json.loads((tmp_path / "out.json").read_text())["pairs"]:
        assert r["subtask2_labels"] == [] or r["subtask1_label"] == "YES"


# The detector ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def yolos(tmp_path_factory):
    """A random detection checkpoint of ``transformers`` that finds something in every picture."""
    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[32, 32],
        patch_size=8,
        num_detection_tokens=4,
        id2label={0: "dog", 1: "vase", 2: "bird"},
        label2id={"dog": 0, "vase": 1, "bird": 2},
    )
    path = tmp_path_factory.mktemp("yolos")
    YolosForObjectDetection(config).save_pretrained(path)
    YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 40}).save_pretrained(path)
    return path


def test_a_detector_names_what_it_finds(yolos):
    namer = detector.load_namer(str(yolos), 0.0)
    names = namer([Image.new("RGB", (40, 30), "red"), Image.new("RGB", (30, 40), "blue")])
    assert (
        len(names) == 2
        and all(set(n) <= {"dog", "vase", "bird"} and len(set(n)) == len(n) for n in names)
        and any(names)
    )
    assert detector.load_namer(str(yolos), 1.0)([Image.new("RGB", (40, 30))]) == [[]]


def test_names_are_found_once_and_go_by_the_picture(tmp_path):
    asked = []
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "b.png")
    book = detector.NameBook(lambda: lambda pictures: [[f"dog {asked.append(1)}"]], tmp_path / "names.json", write=True)
    for name in ("a.png", "a.png", "b.png"):
        assert book(tmp_path / name) == ["dog None"]
    assert len(asked) == 2
    again = detector.NameBook(lambda: 1 / 0, tmp_path / "names.json")
    (tmp_path / "moved.png").write_bytes((tmp_path / "a.png").read_bytes())
    assert again(tmp_path / "moved.png") == ["dog None"]
    (tmp_path / "names.json").write_text('{"torn')  # damaged: found again
    assert detector.NameBook(lambda: lambda p: [["cat"]], tmp_path / "names.json")(tmp_path / "a.png") == ["cat"]


def test_the_detector_system_trains_evaluates_and_predicts(yolos, pairs, folder, tmp_path):
    changes = [
        f"model.detector={yolos}",
        "model.confidence=0.0",
        *SMALL[1:3],
        "batch=8",
        "train.epochs=1",
        "train.lr=0.002",
    ]
    assert train.main(arguments("detector-bert", pairs, tmp_path / "run", folder, changes=changes)) == 0
    assert evaluate.main([str(tmp_path / "run")]) == 0
    names = json.loads((tmp_path / "run" / "weights" / "names.json").read_text())
    assert len(names) >= 25
    out = pairs.with_name("filled.json")
    assert predict.main([str(pairs), str(out), "--weights", str(tmp_path / "run" / "weights")]) == 0
    assert {r["subtask1_label"] for r in json.loads(out.read_text())["pairs"]} <= {"YES", "NO"}
    assert predict.main([str(pairs), str(out), "--weights", str(tmp_path / "run" / "weights"), "--subtask2"]) == 2


def test_pretrained_parts_are_taken(monkeypatch, pairs, tokenizer):
    """timm's and transformers' weights go into the right places; nothing is fetched."""
    import timm
    from transformers import BertConfig, BertModel

    config = tiny_config()
    torch.manual_seed(3)
    bert = BertModel(BertConfig(**config.text))
    made = {b.backbone: timm.create_model(b.backbone, num_classes=0, **b.backbone_args) for b in config.branches}
    monkeypatch.setattr(learners.timm, "create_model", lambda name, **_: made[name])
    monkeypatch.setattr(BertModel, "from_pretrained", lambda name: bert)
    monkeypatch.setattr(learners.AutoTokenizer, "from_pretrained", lambda name, **_: tokenizer)
    model = tiny_model()
    learners._pretrained(model)
    assert torch.equal(model.text.encoder.layer[1].output.dense.weight, bert.encoder.layer[1].output.dense.weight)
    assert torch.equal(model.branches["vit"].backbone.pos_embed, made["vit_base_patch16_224"].pos_embed)
    assert isinstance(MustiProcessor(config, tokenizer), MustiProcessor)
    with pytest.raises(ValueError, match="other sizes"):
        learners._pretrained(tiny_model(text={**config.text, "hidden_size": 64}))


def test_pretrained_parts_of_another_kind_of_text_tower_are_taken(monkeypatch, tokenizer):
    """XLM-RoBERTa, with its own tokenizer."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    text = {**tiny_config().text, "model_type": "xlm-roberta", "pad_token_id": 1, "max_position_embeddings": 66}
    made = XLMRobertaModel(XLMRobertaConfig(**{k: v for k, v in text.items() if k != "model_type"}))
    asked = []
    monkeypatch.setattr(XLMRobertaModel, "from_pretrained", lambda name: asked.append(name) or made)
    model = tiny_model(text=text)
    monkeypatch.setattr(
        learners.timm,
        "create_model",
        lambda name, **_: model.branches["vit" if name.startswith("vit") else "resnet"].backbone,
    )
    monkeypatch.setattr(learners.AutoTokenizer, "from_pretrained", lambda name, **_: asked.append(name) or tokenizer)
    learners._pretrained(model)
    assert torch.equal(model.text.encoder.layer[1].output.dense.weight, made.encoder.layer[1].output.dense.weight)
    assert asked == ["xlm-roberta-base"] * 2 and model.text.pad_id == 1


# The gate's own loss --------------------------------------------------------------------------------------------------


def labelled(tokenizer, text: str, **pair) -> dict[str, set[int]]:
    """{word: labels of its pieces} of an English pair."""
    pair = MustiPair("1", "x.png", "en", text, **pair)
    passages = MustiProcessor(tiny_config(), tokenizer).passages([text])
    labels = gate_labels(passages, [pair], Vocabulary())[0]
    inside = [p for w in passages.words[0] for p in w.pieces]
    assert all(labels[p] == -100 for p in range(len(labels)) if p not in inside)  # special tokens
    return {w.text: {int(labels[p]) for p in w.pieces} for w in passages.words[0]}


def test_the_gates_labels_by_hand(tokenizer):
    text = "The roses and a dog smelled."
    assert labelled(tokenizer, text, label=1, objects=("rose",)) == {
        "The": {2},
        "roses": {1},
        "and": {2},
        "a": {2},
        "dog": {0},
        "smelled": {2},
        ".": {2},
    }
    assert labelled(tokenizer, text, label=0) == {
        "The": {2},
        "roses": {0},
        "and": {2},
        "a": {2},
        "dog": {0},
        "smelled": {2},
        ".": {2},
    }
    for unknown in (
        {"label": 1, "objects": ("fish",)},
        {"label": 1},
        {"label": None, "objects": ("rose",)},
        {"label": 1, "objects": ("philosophy",)},
    ):
        assert set().union(*labelled(tokenizer, text, **unknown).values()) == {-100}


def test_a_system_with_a_gate_of_words_learns_it_on_musti_pairs(pairs, folder):
    changes = train.changes_of([c for c in SMALL if "lr_of" not in c])
    system = load_system("musti-word", changes=changes)
    assert system.model.gate == "word" and system.model.meeting == "content" and system.loss.gate == 0.5
    assert system.train["lr_of"]["fusion.alpha"] == 1e-2 and system.train["lr_of"]["branches.vit.backbone"] == 2e-5
    torch.manual_seed(0)
    learner, _ = learners.build(system, pairs.parent, str(folder))
    rows = read_pairs(pairs)[0][:8]
    batch = learner.batch(rows)
    kinds = {kind: int((batch["gate"] == kind).sum()) for kind in (0, 1, 2)}
    assert kinds[1] > 0 and kinds[0] > 0 and kinds[2] > 8
    loss, parts = learners.loss_step(learner, system.loss)(learner.model.train(), batch)
    assert loss.item() == pytest.approx(parts["pairs"] + 0.5 * parts["branches"] + 0.5 * parts["gate"], rel=1e-4)
    loss.backward()
    assert learner.model.fusion.alpha.grad.abs() > 0
    without = load_system("musti-word", changes=changes | {"loss.gate": 0})
    plain, _ = learners.build(without, pairs.parent, str(folder))
    assert (
        "gate" not in plain.batch(rows)
        and "gate" not in learners.loss_step(plain, without.loss)(plain.model, plain.batch(rows))[1]
    )
    assert np.allclose(
        learners.pair_logits(learner, rows, quiet=True),
        learner.logits(learner.model.eval(), batch)[0].detach().numpy(),
        atol=1e-4,
    )
    with pytest.raises(ValueError, match="word by word"):
        load_system("musti-base", changes={"loss.gate": 1.0})
