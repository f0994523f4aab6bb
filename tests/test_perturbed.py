"""Altered inputs, and the methods that value words and regions by them."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from musti_model.methods import OCCLUSION, close_up, hiding, occlusion, perturb
from tests.conftest import GATES, PASSAGE, pipeline


def stacked(by_branch: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(by_branch.values()), 1)


@pytest.mark.parametrize("gate", ["scalar", "word", "linear"])
def test_votes_of_cut_texts_are_those_of_the_texts_alone(tokenizer, picture, gate):
    question = pipeline(tokenizer, **GATES[gate]).ask(picture, PASSAGE)
    n = question.length
    kept = [list(range(n)), [0, n - 1], [0, 2, 3, n - 1]]
    together = perturb.votes_of_texts(question, kept)
    for row, positions in zip(together, kept, strict=True):
        ids = question.input_ids[:, positions]
        alone = question.model.match(question.encoded, ids, torch.ones_like(ids)).votes[0]
        assert torch.allclose(row, alone, atol=1e-5)
    assert not torch.allclose(together[0], together[1])


def test_blanked_pictures(question):
    whole, none = torch.ones(1, 8, 8, dtype=torch.bool), torch.zeros(1, 8, 8, dtype=torch.bool)
    votes = perturb.votes_of_pictures(question, torch.cat([whole, none]))
    plain = {n: x.mean((2, 3), keepdim=True).expand_as(x) for n, x in question.images.items()}
    expected = [
        question.model.match(question.model.encode_images(i), question.input_ids, question.mask).votes[0]
        for i in (question.images, plain)
    ]
    assert torch.allclose(votes, torch.stack(expected), atol=1e-5)


def test_a_blanked_cell_is_where_it_should_be():
    kept = torch.ones(1, 8, 8, dtype=torch.bool)
    kept[0, 0, 7] = False  # top right
    image = torch.arange(16.0).view(1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)  # 16 px, a cell is 2 px
    changed = perturb.blanked(image, kept)[0, 0] != image[0, 0]
    assert changed[:2, 14:].all() and changed.sum() == 4


def test_occlusion_of_words_by_hand(question):
    n = question.length
    first = question.pieces[0]
    rest = [p for p in range(n) if not any(p in w for w in question.pieces)]
    assert rest == question.rest
    votes = perturb.votes_of_texts(
        question, [list(range(n)), [p for p in range(n) if p not in first], sorted([*rest, *first]), rest]
    )
    expected = ((votes[0] - votes[1]) + (votes[2] - votes[3])) / 2
    assert torch.allclose(stacked(OCCLUSION.run(question))[0], expected, atol=1e-5)


LONG = (
    "The roses smelled sweet in the garden of the old house, and the dogs ran over the street to the baker, "
    "who sold bread and cakes by the door."
)


@pytest.mark.parametrize("gate", ["scalar", "word"])
def test_occlusion_of_a_long_passage(tokenizer, picture, gate, monkeypatch):
    """The chosen words have the very values of the full computation; of the others the sum of each group is that of
    striking it out whole."""
    question = pipeline(tokenizer, text_length=64, **GATES[gate]).ask(picture, LONG)
    count = len(question.pieces)
    assert 25 < count < occlusion.SINGLY
    full = stacked(OCCLUSION.run(question))
    monkeypatch.setattr(perturb, "SPARING", 0)
    for name, value in (("SINGLY", 10), ("CHOSEN", 8), ("TOGETHER", 3)):
        monkeypatch.setattr(occlusion, name, value)
    seen = {}
    real = occlusion.by_weight
    monkeypatch.setattr(
        occlusion,
        "by_weight",
        lambda q, present: seen.setdefault("order", real(q, seen.setdefault("present", present))),
    )
    passes = []
    monkeypatch.setattr(
        occlusion, "votes_of_texts", lambda q, kept: passes.append(len(kept)) or perturb.votes_of_texts(q, kept)
    )
    quick, order = stacked(OCCLUSION.run(question)), seen["order"]
    assert sorted(order) == list(range(count)) and passes == [count + 1, 1 + 8 + -(-(count - 8) // 3)]
    assert torch.allclose(quick[order[:8]], full[order[:8]], atol=1e-4)
    absent = 2 * quick - seen["present"]
    everything = list(range(question.length))
    for group in occlusion.groups_of(order):
        gone = {p for w in group for p in question.pieces[w]}
        whole, left = perturb.votes_of_texts(question, [everything, [p for p in everything if p not in gone]])
        assert torch.allclose(absent[group].sum(0), whole - left, atol=1e-4)
    assert set(seen["present"].abs().amax(1).argsort(descending=True)[:4].tolist()) <= set(order[:8])
    if gate == "word":
        opening = torch.stack(
            [question.model.fusion.meet(t, question.read).opening[0] for t in question.encoded.values()]
        ).amax(0)
        assert int(torch.stack([opening[list(p)].max() for p in question.pieces]).argmax()) == order[0]


@pytest.mark.parametrize("gate", [*GATES, "none"])
def test_votes_estimated_for_a_long_passage(tokenizer, picture, gate):
    """Exact where nothing is hidden and where there is no gate; else near the full computation, nearer than without
    what goes through the gate."""
    question = pipeline(tokenizer, text_length=64, **GATES.get(gate, {"gate": "none"})).ask(picture, LONG)
    kept = torch.from_numpy(np.random.default_rng(3).random((24, 8, 8)) < 0.5)
    kept[5] = True
    exact, quick = perturb.votes_of_pictures(question, kept), hiding.estimated(question, kept)
    assert torch.allclose(quick[5], exact[5], atol=1e-4)
    if gate == "none":
        assert torch.allclose(quick, exact, atol=1e-4)
        return
    direct = hiding._terms(question, kept, 0)[0]
    for k in range(2):
        assert np.corrcoef(quick[:, k], exact[:, k])[0, 1] > 0.9
        assert (quick - exact)[:, k].abs().mean() < 0.7 * (direct - exact)[:, k].abs().mean()


def test_an_estimate_is_exact_where_hiding_shuts_the_gate(word_pipe, picture, monkeypatch):
    question = word_pipe.ask(picture, PASSAGE)
    model = question.model
    tokens = dict(question.encoded)
    monkeypatch.setattr(
        model,
        "encode_image",
        lambda name, images: dataclasses.replace(tokens[name], tokens=tokens[name].tokens.expand(len(images), -1, -1)),
    )
    meet, shut = model.fusion.meet, perturb.votes_of_texts(question, [list(range(question.length))])
    question.answered, [hiding.follow(question, n) for n in tokens]
    monkeypatch.setattr(
        model.fusion,
        "meet",
        lambda *given: dataclasses.replace(meet(*given), opening=torch.zeros_like(meet(*given).opening)),
    )
    expected = model.match_words(question.encoded, question.read).votes
    assert torch.allclose(
        hiding.estimated(question, torch.ones(1, 8, 8, dtype=torch.bool)), expected, atol=2e-4
    ) and not torch.allclose(expected, shut, atol=1e-3)


def test_only_a_model_of_some_size_is_spared(word_pipe, picture, monkeypatch):
    """As many maskings as there are, or few; a short passage is read again for each of them all the same."""
    question, asked = word_pipe.ask(picture, PASSAGE), []
    monkeypatch.setattr(
        hiding, "votes_of_pictures", lambda q, kept: asked.append(len(kept)) or torch.zeros(len(kept), 2)
    )
    hiding.run(question)
    monkeypatch.setattr(perturb, "SPARING", 0)
    hiding.run(question)
    assert asked == [hiding.MASKINGS, hiding.FEW] and hiding.FEW < hiding.MASKINGS


def test_words_in_groups(monkeypatch):
    monkeypatch.setattr(occlusion, "CHOSEN", 2)
    monkeypatch.setattr(occlusion, "TOGETHER", 3)
    assert occlusion.groups_of([4, 0, 6, 1, 2, 5, 3]) == [[4], [0], [6, 1, 2], [5, 3]]


def test_a_struck_word_needs_no_picture_and_a_hidden_region_no_reading(word_pipe, picture):
    question, seen = word_pipe.ask(picture, PASSAGE), []
    model = question.model
    hooks = [
        m.register_forward_hook(lambda *_, n=n: seen.append(n))
        for n, m in (("picture", model.branches["vit"]), ("read", model.text.embeddings))
    ]
    try:
        OCCLUSION.run(question)
        assert set(seen) == {"read"}
        seen.clear()
        close_up.both(question)
        assert set(seen) == {"picture"}
    finally:
        for hook in hooks:
            hook.remove()


def test_shorter_passages_are_filled_up_with_the_towers_own_sign(tokenizer, picture, monkeypatch):
    text = {**pipeline(tokenizer).config.text, "pad_token_id": 7}
    question = pipeline(tokenizer, text=text).ask(picture, PASSAGE)
    assert question.model.text.pad_id == 7
    given = []
    monkeypatch.setattr(question.model, "words", lambda ids, mask: given.append((ids, mask)))
    perturb.cut(question, [list(range(question.length)), [0, 1]])
    assert given[0][0][1, 2:].tolist() == [7] * (question.length - 2) and given[0][1][1].sum() == 2


def test_cells_of_an_additive_vote_by_hand(question, monkeypatch):
    """Where each cell adds a number of its own, a linear model that is free to fit finds that number."""
    worth = torch.arange(64.0)
    monkeypatch.setattr(
        hiding,
        "votes_of_pictures",
        lambda _case, kept: (kept.flatten(1).float() @ worth + 7)[:, None] * torch.tensor([1.0, -2.0]),
    )
    monkeypatch.setattr(hiding, "RIDGE", 1e-6)
    monkeypatch.setattr(hiding, "SMOOTH", 0.0)
    maps = hiding.run(question, 192)
    assert torch.allclose(maps["vit"].flatten(), worth, atol=1e-3) and torch.allclose(
        maps["resnet"].flatten(), -2 * worth, atol=1e-3
    )
    monkeypatch.setattr(hiding, "SMOOTH", 1e9)
    assert float(hiding.run(question)["vit"].std()) < 0.1  # neighbours alike


def test_the_roughness_of_a_grid_by_hand():
    v = torch.tensor([1.0, 2.0, 5.0, 9.0], dtype=torch.float64)  # 1 2 / 5 9
    assert float(v @ hiding.laplacian(2) @ v) == (1 - 2) ** 2 + (5 - 9) ** 2 + (1 - 5) ** 2 + (2 - 9) ** 2


def test_only_the_cells_that_differ_from_a_blank_picture_have_a_value(pipe):
    pixels = np.full((64, 64, 3), 128, dtype=np.uint8)
    pixels[32:64, 0:16] = 128 + np.random.default_rng(1).choice([-90, 90], (32, 16, 1))
    # of few, what cells do together goes to others by chance
    for values in hiding.run(pipe.ask(Image.fromarray(pixels), PASSAGE), 768).values():
        assert values[4:8, 0:2].abs().mean() > 4 * values[:3, 4:].abs().mean()


def test_an_enlarged_window_shows_its_own_part():
    x = torch.arange(4.0).view(1, 1, 2, 2).repeat_interleave(16, 2).repeat_interleave(16, 3)  # quarters 0 1 / 2 3
    assert [float(close_up.enlarged(x, r, c, 4).mean()) for r in (0, 4) for c in (0, 4)] == [0, 1, 2, 3]
    assert close_up.enlarged(x, 0, 2, 4).shape == x.shape and close_up.enlarged(x, 0, 2, 4).mean() == 0.5


def test_windows_close_up_by_hand(question, monkeypatch):
    """Where a vote is the mean of what is shown, the brighter quarter has the higher values, and a cell's is the mean
    of its windows'."""
    bright = torch.zeros(1, 3, 32, 32)
    bright[..., :16, 16:] = 8.0  # top right
    question = dataclasses.replace(question, images={"vit": bright, "resnet": bright})
    monkeypatch.setattr(question.model, "encode_images", lambda images: images)
    monkeypatch.setattr(
        question.model,
        "match_words",
        lambda images, *_: SimpleNamespace(votes=torch.stack([images[n].mean((1, 2, 3)) for n in images], 1)),
    )
    values = close_up.run(question)["vit"] * 64
    # Nine windows, rows and columns at 0, 2, 4: votes 0 4 8 / 0 2 4 / 0 0 0, of mean 2. A corner cell lies in one
    # window, the next in more.
    assert values[0, 7] == pytest.approx(8 - 2, abs=1e-4) and values[7, 0] == pytest.approx(0 - 2, abs=1e-4)
    assert values[0, 4] == pytest.approx((4 + 8) / 2 - 2, abs=0.1)


def test_close_up_of_one_colour_is_nothing(pipe):
    for values in close_up.run(pipe.ask(Image.new("RGB", (64, 64), "teal"), PASSAGE)).values():
        assert values.abs().max() < 1e-6
