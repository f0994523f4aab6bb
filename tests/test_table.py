"""The small table: its rows are what they say, and differ in what they say."""

import json

import numpy as np
import pytest
import torch

from training.starter import table
from training.starter.table import BATCH, EPOCHS, ROWS, STEPS, Row, Table, draw, settings_of, system_of, write


def test_every_row_differs_from_ours_in_its_own_way():
    ours = system_of(ROWS["ours"])
    for name, row in ROWS.items():
        system = system_of(row)
        if row.system == "starter" and name != "ours":
            changed = [f for f in ("model", "loss") if getattr(system, f) != getattr(ours, f)]
            assert len(changed) == 1, name
    assert system_of(ROWS["published ResNet axes"]).model.branches[1].axes == "published"
    assert system_of(ROWS["no gate"]).model.gate == "none" and system_of(ROWS["padding carried"]).model.padding == "carry"
    assert system_of(ROWS["alpha .75"]).loss.alpha == 0.75 and system_of(ROWS["MMM2024, published alpha .3"]).loss.normalization == "published"


def test_the_budget_is_the_same_for_all():
    for row in ROWS.values():
        settings = settings_of(row, system_of(row), 3)
        assert (settings.epochs, settings.steps_per_epoch, settings.seed) == (EPOCHS, STEPS, 3) and BATCH == 16
    own = settings_of(Row("mmm2024-a30", own_rates=True), system_of(ROWS["MMM2024, published alpha .3"]), 0)
    assert (own.lr, own.optimizer, own.decay, own.clip) == (1e-3, "adam", "constant", 0)


def test_differences_and_summary_by_hand(tmp_path, monkeypatch):
    """A row whose answers are all right is better than one whose answers are all wrong, by exactly 1."""
    labels = np.array([0, 1, 0, 1, 1, 0, 0, 1, 0, 1])
    made = Table.__new__(Table)
    made.labels = lambda split: labels
    made.shop = type("Shop", (), {"pairs": {"test": [type("Pair", (), {"passage": i // 3})() for i in range(30)]}})
    right, wrong = (np.packbits(a).tobytes().hex() for a in (labels, 1 - labels))
    assert made.difference([{"answers": right}], [{"answers": wrong}]) == [pytest.approx(1.0)] * 2
    row = {"f1_macro": 1.0, "f1_at_half": 1.0, "auc": 1.0, "collapsed": False, "stopped": ""}
    results = [{**row, "row": "no gate", "seed": 0, "answers": right}, {**row, "row": "ours", "seed": 0, "f1_macro": 0.0, "answers": wrong}]
    write(made, results, tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "| no gate | 1 | 1.000 | 1.000 to 1.000 | 1.000 | 1.000 | +1.000 to +1.000 |" in text and text.count("\n") == 4
    assert json.loads((tmp_path / "table.json").read_text()) == results and (tmp_path / "table.png").stat().st_size > 3000
    draw([("a", [0.1, 0.2])], tmp_path / "again.png")
    assert table.TEXT_LENGTH <= 256


def test_backbones_that_learn_too_see_the_pictures_and_get_gradients():
    from types import SimpleNamespace

    from training.starter.match import PixelObjective

    from tests.conftest import tiny_model
    from training.losses import FocalLoss

    pixels = np.random.default_rng(0).integers(0, 255, (6, 40, 40, 3), dtype=np.uint8)
    model = tiny_model().train()
    objective = PixelObjective(SimpleNamespace(pixels=pixels), FocalLoss(), naming=0.0)
    encoded = objective.encoded(model, SimpleNamespace(pictures=torch.tensor([4, 1])))
    again = objective.encoded(model, SimpleNamespace(pictures=torch.tensor([4, 1])))
    assert encoded["vit"].tokens.shape == (2, 17, 32) and torch.equal(encoded["vit"].tokens, again["vit"].tokens)
    encoded["vit"].tokens.sum().backward()
    assert model.branches["vit"].backbone.patch_embed.proj.weight.grad.abs().max() > 0


def test_only_the_last_row_trains_the_backbones():
    names = [n for n, r in ROWS.items() if r.backbones]
    assert names == ["published optimiser, 1e-3 on everything"]
    assert settings_of(ROWS[names[0]], system_of(ROWS[names[0]]), 0).lr_of == {}
