"""The measures of ``benchmarks.faithfulness`` on cases worked by hand, and the whole on a tiny model."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import faithfulness as bench
from musti_model.methods import BEST, deletion_insertion, hiding
from musti_model.records import MustiPair
from tests.conftest import WORD, tiny_config, tiny_model
from training.lexicon.vocabulary import Vocabulary

VOCABULARY = Vocabulary()


def pair(number: int, text: str, image: str, objects=("rose",)) -> MustiPair:
    return MustiPair(str(number), image, "en", text, 1, tuple(objects))


def test_share_of_the_positive_evidence_in_a_quarter():
    values = torch.full((8, 8), -5.0)
    values[:4, 4:] = 3.0  # top right
    values[4:, :4] = 1.0  # bottom left
    assert bench.share_in_quarter(values, 1) == pytest.approx(0.75)
    assert bench.share_in_quarter(values, 2) == pytest.approx(0.25)
    assert bench.share_in_quarter(values, 0) == 0 and bench.share_in_quarter(-torch.ones(8, 8), 3) == 0


def test_the_top_word_names_the_object_or_not(pipe):
    sample = bench.Sample(pair(1, "A dog and a horse.", ""), {"dog"}, {"dog", "horse"})
    words = [w.text for w in pipe.processor.passages(["A dog and a horse."]).words[0]]
    for word, expected in (("dog", True), ("horse", False)):
        assert (
            bench.points_at_name(torch.tensor([float(w == word) for w in words]), pipe, sample, VOCABULARY) is expected
        )
    assert (
        bench.points_at_name(torch.ones(len(words)), pipe, bench.Sample(sample.pair, {"cat"}, set()), VOCABULARY)
        is None
    )


def test_rank_correlation():
    a = torch.tensor([1.0, 2.0, 3.0])
    assert (
        bench.correlation(a, a**3) == pytest.approx(1)
        and bench.correlation(a, -a) == pytest.approx(-1)
        and bench.correlation(a, 0 * a) == 0
    )


def test_grids_hold_the_picture_in_its_quarter_and_no_other_of_its_passage(tmp_path):
    colours = {"dog": "red", "cat": "blue", "fish": "green", "horse": "white", "bee": "black"}
    chosen = []
    for n, (name, colour) in enumerate(colours.items()):
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"{name}.png")
        mentioned = {name, "bee"} if name == "dog" else {name}
        chosen.append(bench.Sample(pair(n, name, str(tmp_path / f"{name}.png")), {name}, mentioned))
    made = list(bench.grids(chosen, side=64))
    assert len(made) == 5
    for sample, canvas, at in made:
        corner = canvas.getpixel((at % 2 * 32 + 16, at // 2 * 32 + 16))
        shown = {canvas.getpixel((x, y)) for x in (16, 48) for y in (16, 48)}
        own = Image.open(sample.pair.image).getpixel((0, 0))
        assert corner == own and len(shown) == 4
        if "dog" in sample.objects:
            assert (0, 0, 0) not in shown  # its passage also names the bee


def test_randomised_weights_are_others_and_finite(tokenizer):
    model = tiny_model(branches=(tiny_config().branches[0],))
    pipe = SimpleNamespace(model=model)
    twin = bench.randomised(pipe)
    assert all(p.isfinite().all() for p in twin.model.parameters())
    assert not torch.equal(twin.model.prototypes, model.prototypes) and torch.equal(twin.model.scale, model.scale)


@pytest.mark.parametrize("changes", [{}, WORD, {"gate": "none", "threshold": 0.0}])
def test_the_whole_report(tokenizer, tmp_path, monkeypatch, capsys, changes):
    from musti_model import MustiPipeline, MustiProcessor

    model = tiny_model(**({"threshold": 0.0} | changes))  # every pair is a YES
    model.save_pretrained(tmp_path / "w")
    MustiProcessor(model.config, tokenizer).save_pretrained(tmp_path / "w")
    records = []
    for n, name in enumerate(("dog", "cat", "fish", "horse")):
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(
            tmp_path / f"{n}.png"
        )
        records.append(
            {
                "id": n,
                "image": str(tmp_path / f"{n}.png"),
                "language": "en",
                "text": f"The {name} smelled.",
                "subtask1_label": "YES",
                "subtask2_labels": [name],
            }
        )
    (tmp_path / "pairs.json").write_text(json.dumps({"pairs": records}))
    monkeypatch.setattr(bench, "named_right", lambda *_: True)
    # whether it comes together, not how well it measures
    monkeypatch.setattr(deletion_insertion, "STEPS", 3)
    monkeypatch.setattr(deletion_insertion, "RANDOM", 2)
    monkeypatch.setattr(hiding, "MASKINGS", 16)
    monkeypatch.setattr(
        "sys.argv",
        [
            "x",
            "--pairs",
            str(tmp_path / "pairs.json"),
            "--weights",
            str(tmp_path / "w"),
            "--out",
            str(tmp_path / "out"),
        ],
    )
    bench.main()
    told = capsys.readouterr().out
    assert (
        "| occlusion |" in told
        and "| in place and close up |" in told
        and "4 pairs answered YES rightly; 4 grids." in told
    )
    assert ("Gate effect" in told) == (changes.get("gate") != "none")
    result = json.loads((tmp_path / "out" / "faithfulness.json").read_text())
    assert (
        0 <= result["regions"]["in place"]["grid"] <= 1
        and (tmp_path / "out" / "faithfulness.png").stat().st_size > 1000
    )
    assert MustiPipeline.from_pretrained(tmp_path / "w").name in result["weights"]


def test_the_readme_has_the_measured_table():
    root = Path(__file__).parents[1]
    table = (root / "assets" / "faithfulness" / "faithfulness.md").read_text().strip()
    measured = json.loads((root / "assets" / "faithfulness" / "faithfulness.json").read_text())
    metrics = json.loads((root / "assets" / "starter" / "metrics.json").read_text())
    assert table in (root / "README.md").read_text() and metrics["weights"] in measured["weights"]
    # what the page shows
    words, regions = measured["words"][BEST["words"].name], measured["regions"][BEST["regions"].name]
    assert regions["grid"] >= 0.6 and words["pointing"] >= 0.8 and measured["gate"]["worst"] <= 0.01
    assert words["better"] >= 0.9 and regions["better"] >= 0.8
    assert words["deletion"] == min(r["deletion"] for r in measured["words"].values())
    assert regions["deletion"] <= regions["insertion"] - 0.3
