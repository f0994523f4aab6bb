"""The small table: its rows are what they say, start alike, and are compared rightly."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from musti_model.config import preset
from training.lexicon.naming import Mention
from training.loop.losses import FocalLoss
from training.starter.pairs import Pair
from training.starter.passages import Passage
from training.starter.table import OURS, ROWS, Size, Table, draw, write


def made() -> Table:
    table = Table.__new__(Table)
    table.size = Size(steps=7, layers=2, every=3)
    return table


def test_every_row_differs_from_ours_in_its_own_way():
    configs = {name: (preset("starter", **model), loss) for name, (model, loss) in ROWS.items()}
    assert len({repr(c) for c in configs.values()}) == len(ROWS)
    gates = {(c.gate, c.meeting) for c, _ in configs.values()}
    assert gates == {
        ("word", "content"),
        ("word", "place"),
        ("linear", "content"),
        ("scalar", "content"),
        ("scalar", "place"),
        ("none", "place"),
    }
    assert configs[OURS][0] == preset("starter") and all(
        FocalLoss(**({"gamma": 2.0, "alpha": 0.5} | loss)) for _, loss in configs.values()
    )


def test_the_budget_is_the_same_for_all_and_the_backbones_rest():
    settings = made().settings(3)
    assert (settings.epochs, settings.steps_per_epoch, settings.seed) == (1, 7, 3)
    assert settings.lr_of["branches.vit.backbone"] == settings.lr_of["branches.cnn.backbone"] == 0


def test_rates_of_learning_are_multiples_of_the_starters():
    table = made()
    table.size = replace(table.size, rate=3.0)
    settings, plain = table.settings(0), made().settings(0)
    assert settings.lr == pytest.approx(3 * plain.lr) and settings.lr_of.keys() == plain.lr_of.keys()
    assert all(rate == pytest.approx(3 * plain.lr_of[part]) for part, rate in settings.lr_of.items())


def test_short_passages_hold_the_shared_name_or_else_the_first_sure_one():
    text = "a dog b c d e f g fish h"
    mentions = (Mention(2, 5, "dog", "sg", "", sure=False), Mention(18, 22, "fish", "sg", ""))
    passages = [Passage("none", "en", (), "musti")] * 3 + [Passage(text, "en", mentions, "musti")]
    pairs = [Pair(7, 3, 1, "fish"), Pair(8, 3, 0, "cat"), Pair(9, 1, 0, "cat")]
    table = made()
    table.shop = SimpleNamespace(passages={"test": passages}, pairs={"test": pairs})
    assert table.asked("test") == (passages, pairs[:2])  # of every third passage
    table.size = replace(table.size, words=3)
    cut, asked = table.asked("test")
    assert [p.text for p in cut] == ["g fish h"] * 2 and [(p.picture, p.passage) for p in asked] == [(7, 0), (8, 1)]
    assert table.pairs("test") == pairs[:2]  # resampled by the passages that they are from


def test_a_run_is_known_by_all_that_it_is_made_of():
    table = made()
    table.shop, table.start = SimpleNamespace(record={"data": "x"}, objects=("a",)), {"prototypes": torch.zeros(2, 4)}
    kinds = {table.kind(name, seed) for name in ROWS for seed in range(2)}
    assert len(kinds) == 2 * len(ROWS)
    assert table.config(OURS).text["num_hidden_layers"] == 2
    table.done = [{"row": OURS, "seed": 1, "kind": table.kind(OURS, 1)}]
    assert table.kept(OURS, 1) and not table.kept(OURS, 0)
    table.start = {"prototypes": torch.ones(2, 4)}
    assert not table.kept(OURS, 1)  # other weights to start from
    table.start = {"prototypes": torch.zeros(2, 4)}
    for other in (
        {"steps": 8},
        {"layers": None},
        {"every": 4},
        {"words": 9},
        {"drills": 0.5},
        {"rate": 2.0},
        {"each": 3},
    ):
        table.size = replace(made().size, **other)
        assert not table.kept(OURS, 1)
    table.size = made().size
    assert table.kept(OURS, 1)


def test_differences_and_summary_by_hand(tmp_path):
    """A row whose answers are all right is better than one whose answers are all wrong, by exactly 1."""
    labels = np.array([0, 1, 0, 1, 1, 0, 0, 1, 0, 1])
    table = made()
    table.labels = lambda split: labels
    table.shop = SimpleNamespace(pairs={"test": [SimpleNamespace(passage=i) for i in range(30)]})
    right, wrong = (np.packbits(a).tobytes().hex() for a in (labels, 1 - labels))
    assert table.difference([{"answers": right}], [{"answers": wrong}]) == [pytest.approx(1.0)] * 2
    row = {"f1_macro": 1.0, "auc": 1.0, "collapsed": False, "stopped": ""}
    results = [
        {**row, "row": "no gate", "seed": 0, "answers": right, "lost": {}, "widest": None},
        {
            **row,
            "row": OURS,
            "seed": 0,
            "f1_macro": 0.0,
            "answers": wrong,
            "lost": {"shut": 0.25, "open": -0.5},
            "widest": 0.75,
        },
    ]
    write(table, results, tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert (
        "| no gate | 1 | 1.000 | 1.000 to 1.000 | 1.000 |  |  |  | +1.000 to +1.000 |" in text and text.count("\n") == 6
    )
    assert "names 200, drills 0.1, rate 1.0" in text and "taught at which words to open" in text
    assert f"| {OURS} | 1 | 0.000 | 0.000 to 0.000 | 1.000 | +0.250 | -0.500 | 75% |  |" in text
    assert (
        json.loads((tmp_path / "table.json").read_text()) == results and (tmp_path / "table.png").stat().st_size > 3000
    )
    draw([("a", [0.1, 0.2])], tmp_path / "again.png")
