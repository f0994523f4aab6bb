"""The loop on a model small enough to know the answer."""

import errno
import io
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import tiny_model
from tests.processes import ended, start, start_two
from training.loop import train as loop
from training.loop.memory import recompute_activations
from training.loop.train import CollapseError, TrainSettings, parameter_groups, schedule, skipping, train


@skipping
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

    def killed(epoch, first):
        for number, batch in enumerate(batches(epoch, first)):
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


def test_a_collapse_may_be_reported_only(tmp_path):
    """As the published code runs on: all epochs, and a best one among them."""
    settings = replace(SETTINGS, on_collapse="report")
    best = train(net(), batches, step, lambda m: {"score": 0.4, "collapsed": True}, settings, tmp_path)
    assert best["epoch"] == 1 and len((tmp_path / "log.jsonl").read_text().splitlines()) == 6


def test_a_large_seed(tmp_path):
    train(net(), batches, step, rising(), replace(SETTINGS, epochs=1, seed=20240101), tmp_path)


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
    for settings, record, words in (
        (replace(SETTINGS, lr=0.1), {"data": "abc"}, "other settings"),
        (SETTINGS, {"data": "x"}, "other data"),
    ):
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
    assert (
        schedule(0, 100, 0.1) == pytest.approx(0.1) and schedule(9, 100, 0.1) == 1.0 and schedule(99, 100, 0.1) < 0.01
    )
    assert schedule(0, 100, 0.0) == 1.0 and schedule(99, 100, 0.1, "constant") == 1.0


def test_layer_decay_goes_down_each_stack():
    """Last ViT block and last BERT layer at the full rate, each layer below at half of the one above, embeddings below
    all."""
    model = tiny_model()
    rates = {}
    for group in parameter_groups(model, TrainSettings(1, 1, lr=1.0, layer_decay=0.5)):
        rates |= {id(p): group["lr"] for p in group["params"]}
    vit = model.branches["vit"].backbone
    count = len(vit.blocks)
    for i, block in enumerate(vit.blocks):
        assert rates[id(block.attn.qkv.weight)] == 0.5 ** (count - 1 - i)
    assert rates[id(vit.patch_embed.proj.weight)] == 0.5**count
    layers = len(model.text.encoder.layer)
    assert rates[id(model.text.encoder.layer[0].output.dense.weight)] == 0.5 ** (layers - 1)
    assert rates[id(model.fusion.scalars.weight)] == rates[id(model.text.pooler.dense.weight)] == 1.0


def test_a_part_may_wait(tmp_path):
    """Frozen until the second epoch: unchanged after the first, changed after the second."""
    seen = []
    settings = replace(SETTINGS, epochs=2, freeze_until={"0.": 1})
    model = net()
    start = model[0].weight.detach().clone()
    train(
        model,
        batches,
        step,
        lambda m: {"score": len(seen) * 1.0} | (seen.append(m[0].weight.detach().clone()) or {}),
        settings,
        tmp_path,
    )
    assert torch.equal(seen[0], start) and not torch.equal(seen[1], start)


def test_accumulated_gradients_equal_one_large_batch(tmp_path):
    """Two batches of 8 a step give the weights of one batch of 16 (no dropout: it is drawn a batch)."""

    @skipping
    def halves(epoch):
        for x, y in batches(epoch, 0):
            yield x[:8], y[:8]
            yield x[8:], y[8:]

    whole, split = (torch.nn.Sequential(*(m for m in net() if not isinstance(m, torch.nn.Dropout))) for _ in range(2))
    train(whole, batches, step, rising(), SETTINGS, tmp_path / "whole")
    train(split, halves, step, rising(), replace(SETTINGS, accumulate=2), tmp_path / "split")
    for a, b in zip(whole.parameters(), split.parameters()):
        assert torch.allclose(a, b, atol=1e-5)


def test_selection_by_training_loss(tmp_path):
    """As published: the epoch of the lowest training loss is kept, whatever the score says."""
    best = train(
        net(),
        batches,
        step,
        lambda m: {"score": 1.0 / (1 + m[0].weight.norm().item())},
        replace(SETTINGS, select="loss"),
        tmp_path,
    )
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert best["loss"] == min(r["loss"] for r in rows) and best["epoch"] > 1


def test_a_full_disk_is_waited_out(tmp_path, monkeypatch, capsys):
    """The first two files find no room halfway; the run ends with the weights of an undisturbed one. torch's own writer
    is at work."""
    fails = iter([True, True])

    class Full(io.FileIO):
        def write(self, content):
            if self.tell() > 200:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    def opened(path, mode):
        return Full(path, "wb") if next(fails, False) else open(path, mode)

    undisturbed, model = net(), net()
    train(undisturbed, batches, step, rising(), SETTINGS, tmp_path / "a")
    monkeypatch.setattr(loop, "DISK_WAIT", 0.0)
    monkeypatch.setattr(loop, "open", opened, raising=False)
    train(model, batches, step, rising(), SETTINGS, tmp_path / "b")
    assert capsys.readouterr().out.count("The disk is full") == 2
    assert all(torch.equal(a, b) for a, b in zip(undisturbed.parameters(), model.parameters()))
    assert not list((tmp_path / "b").glob("*.tmp"))


def test_wrong_settings_are_refused():
    for change in ({"optimizer": "sgd"}, {"select": "f1"}, {"steps_per_epoch": 0}):
        with pytest.raises(ValueError, match="is one of|at least 1"):
            replace(SETTINGS, **change)


def test_recomputed_layers_give_the_same_gradients():
    """Dropout included; and every layer runs twice, or nothing would be saved."""
    gradients, runs = [], []
    for again in (False, True):
        model = tiny_model()
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        if again:
            recompute_activations(model)
        count = []
        hooks = [
            m.register_forward_hook(lambda *_, count=count: count.append(1))
            for m in (model.text.encoder.layer[0].attention, model.branches["vit"].backbone.blocks[0].attn)
        ]
        images = {
            "vit": torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(1)),
            "resnet": torch.ones(2, 3, 48, 48),
        }
        ids = torch.arange(24).view(2, 12)
        torch.manual_seed(5)
        model(images, ids, torch.ones_like(ids)).logits.sum().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        runs.append(len(count))
        for hook in hooks:
            hook.remove()
    assert gradients[0].keys() == gradients[1].keys() and runs[1] == 2 * runs[0]
    assert all(torch.allclose(gradients[0][n], gradients[1][n], atol=1e-6) for n in gradients[0])
    with pytest.raises(ValueError, match="batch_norm"):
        replace(SETTINGS, recompute=True)


# Runs in processes of their own ---------------------------------------------------------------------------------------

JOB = "tests.loop_job"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    assert ended(start(JOB, [str(folder)], folder / "log")) == 0
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "end.pt", weights_only=True)


def test_twenty_kills_leave_no_trace(whole, tmp_path):
    """kill -9 at twenty random steps: the finished run has the very weights, scores and losses of an undisturbed
    one."""
    log = tmp_path / "log"
    job = start(JOB, [str(tmp_path / "broken"), "--kills", "20", "--checkpoint-steps", "1"], log)
    assert ended(job) == 0, log.read_text()
    assert log.read_text().count("killed") == 20
    one, other = weights(whole), weights(tmp_path / "broken")
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    rows = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (whole, tmp_path / "broken")
    ]
    for a, b in zip(*rows, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_sigterm_loses_nothing_but_the_running_step(whole, tmp_path):
    """No checkpoint is due before the epoch's end, yet after SIGTERM the run goes on from the step it was in."""
    logs = [tmp_path / "log", tmp_path / "log-again"]
    job = start(JOB, [str(tmp_path / "run"), "--slow"], logs[0])
    while job.is_alive() and not (logs[0].exists() and "step 3 " in logs[0].read_text()):
        time.sleep(0.01)
    job.terminate()
    assert ended(job) != 0 and "the same command goes on from there" in logs[0].read_text()
    place = json.loads(torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["place"])
    assert place["rows"] == [] and place["done"] >= 3
    assert ended(start(JOB, [str(tmp_path / "run"), "--slow"], logs[1])) == 0
    assert logs[1].read_text().count("step ") == 60 - place["done"]
    assert all(torch.equal(v, weights(tmp_path / "run")[k]) for k, v in weights(whole).items())


def test_two_processes_agree_with_one(tmp_path):
    """The same global batch, shared by two processes: the same weights within rounding, the same scores."""
    one = start(JOB, [str(tmp_path / "one"), "--no-dropout"], tmp_path / "log")
    two = start_two(JOB, [str(tmp_path / "two"), "--no-dropout"], tmp_path / "logs")
    for process in (one, *two):
        assert ended(process) == 0, [log.read_text() for log in (tmp_path / "logs").iterdir()]
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2
    alone, shared = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(alone[k], shared[k], atol=1e-5) for k in alone)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / f / "log.jsonl").read_text().splitlines()]
        for f in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
