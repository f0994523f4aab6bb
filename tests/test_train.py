"""The loop on a model small enough to know the answer."""

import json
from dataclasses import replace

import pytest
import torch

from training.train import CollapseError, TrainSettings, parameter_groups, schedule, train


def batches(epoch: int):
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(5):
        x = torch.randn(16, 2, generator=generator)
        yield x, (x[:, 0] > 0).float()


def step(model, batch):
    x, y = batch
    loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x).squeeze(1), y)
    return loss, {}


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Dropout(0.1), torch.nn.ReLU(), torch.nn.Linear(8, 1))


def rising():
    count = iter(range(100))
    return lambda model: {"score": float(next(count))}


SETTINGS = TrainSettings(epochs=6, steps_per_epoch=5, lr=0.05, precision="float32")


def test_learns(tmp_path):
    train(net(), batches, step, rising(), SETTINGS, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_resumed_run_is_bit_identical(tmp_path):
    whole, broken = net(), net()
    train(whole, batches, step, rising(), SETTINGS, tmp_path / "whole")

    def killed(epoch):
        for number, batch in enumerate(batches(epoch)):
            if epoch == 3 and number == 2:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        train(broken, killed, step, rising(), SETTINGS, tmp_path / "broken")
    again = net()
    late = iter(range(3, 100))
    train(again, batches, step, lambda m: {"score": float(next(late))}, SETTINGS, tmp_path / "broken")
    for a, b in zip(whole.parameters(), again.parameters()):
        assert torch.equal(a, b)


def test_best_epoch_is_kept(tmp_path):
    seen = []

    def evaluate(model):
        seen.append(model[0].weight.clone())
        return {"score": -abs(len(seen) - 2)}

    model = net()
    best = train(model, batches, step, evaluate, SETTINGS, tmp_path)
    assert best["epoch"] == 2 and torch.equal(model[0].weight, seen[1])


def test_early_stop(tmp_path):
    calls = []
    settings = TrainSettings(epochs=6, steps_per_epoch=5, patience=2, precision="float32")
    train(net(), batches, step, lambda m: calls.append(1) or {"score": -len(calls)}, settings, tmp_path)
    assert len(calls) == 3


def test_collapse_stops_the_run(tmp_path):
    with pytest.raises(CollapseError, match="lower the learning rate"):
        train(net(), batches, step, lambda m: {"score": 0.4, "collapsed": True}, SETTINGS, tmp_path)


def test_a_collapsed_run_stays_stopped(tmp_path):
    for _ in range(2):
        with pytest.raises(CollapseError, match="After epoch 1 "):
            train(net(), batches, step, lambda m: {"score": 0.4, "collapsed": True}, SETTINGS, tmp_path)
    assert not (tmp_path / "best.pt").exists()


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    with pytest.raises(CollapseError, match="nan in step 1 of epoch 1"):
        train(net(), batches, lambda m, b: (step(m, b)[0] * float("nan"), {}), rising(), SETTINGS, tmp_path)


def test_a_run_goes_on_only_with_its_own_settings(tmp_path):
    train(net(), batches, step, rising(), SETTINGS, tmp_path, {"data": "abc"})
    for settings, record, words in ((replace(SETTINGS, lr=0.1), {"data": "abc"}, "other settings"), (SETTINGS, {"data": "x"}, "other data")):
        with pytest.raises(ValueError, match=words):
            train(net(), batches, step, rising(), settings, tmp_path, record)
    assert json.loads((tmp_path / "run.json").read_text())["versions"]["torch"] == torch.__version__


def test_equal_scores_keep_the_first_epoch(tmp_path):
    seen = []
    model = net()
    best = train(model, batches, step, lambda m: seen.append(m[0].weight.clone()) or {"score": 1.0}, SETTINGS, tmp_path)
    assert best["epoch"] == 1 and torch.equal(model[0].weight, seen[0])


def test_frozen_parts_keep_their_statistics(tmp_path):
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
    train(model, batches, step, rising(), replace(SETTINGS, lr_of={"0.": 0.0}), tmp_path)
    assert torch.equal(model[0].running_mean, torch.zeros(2)) and torch.equal(model[0].weight, torch.ones(2))


def test_groups_and_schedule():
    model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 1))
    groups = parameter_groups(model, TrainSettings(1, 1, lr=0.1, lr_of={"0.": 0.0}))
    assert not model[0].weight.requires_grad
    by_decay = {g["weight_decay"]: [tuple(p.shape) for p in g["params"]] for g in groups}
    assert by_decay == {0.01: [(8, 8)], 0.0: [(8,), (1, 8), (1,)]} and {g["lr"] for g in groups} == {0.1}
    assert schedule(0, 100, 0.1) == pytest.approx(0.1) and schedule(9, 100, 0.1) == 1.0 and schedule(99, 100, 0.1) < 0.01
