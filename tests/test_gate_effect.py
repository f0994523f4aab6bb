"""The gate's effect, its meetings and its map: they add up, and by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from musti_model.methods import CONTRIBUTION
from musti_model.methods.gate_effect import gate_effect, gate_effects
from tests.conftest import GATES, GRIDS, PASSAGE, pipeline, tiny_config


@pytest.mark.parametrize("gate", GATES)
def test_gate_effects_add_up_to_what_the_gate_changes_in_the_logit(tokenizer, picture, gate):
    pipe = pipeline(tokenizer, **GATES[gate])
    question = pipe.ask(picture, PASSAGE)
    effects = gate_effects(question)
    learned, shut = (
        float(pipe.model.match_words(question.encoded, question.read, gate=g).logits[0]) for g in ("learned", "shut")
    )
    assert sum(e.total for e in effects.values()) == pytest.approx(learned - shut, rel=1e-3)
    assert max(abs(e.total) for e in effects.values()) > 0.003
    for e in effects.values():
        assert e.error <= 0.01
        assert sum(e.words) + e.rest == pytest.approx(e.total, rel=0.011, abs=1e-6)
        assert e.patches.sum() + e.whole == pytest.approx(sum(e.words) + e.rest, abs=1e-4)
        assert e.links.shape == (len(question.pieces), *e.patches.shape)
        assert np.allclose(e.links.sum((1, 2)), e.words, atol=1e-5)  # a word meets no whole-picture token


@pytest.mark.parametrize("gate", ["scalar", "word", "linear"])
def test_the_effect_of_a_linear_reader_by_hand(tokenizer, picture, gate, monkeypatch):
    """Where what is passed on were read by a sum over words and features, each patch's part is its share of what was
    let in."""
    pipe = pipeline(tokenizer, **GATES[gate])
    question, model = pipe.ask(picture, PASSAGE), pipe.model
    direction = torch.randn(32, generator=torch.Generator().manual_seed(5))
    monkeypatch.setattr(model.fusion, "norm", torch.nn.Identity())
    monkeypatch.setattr(
        model,
        "text_vectors_of",
        lambda fused, mask: torch.stack([(fused @ direction).sum(1), torch.ones(len(fused))], 1),
    )
    monkeypatch.setattr(model, "image_vector", lambda image: torch.tensor([[1.0, 0.0]]))
    monkeypatch.setattr("musti_model.methods.gate_effect.F.cosine_similarity", lambda a, b, dim: (a * b).sum(-1))
    e, slope = gate_effect(question, "vit"), model.vote_slopes()[0].item()
    met, tokens = model.fusion.meet(question.encoded["vit"], question.read), question.encoded["vit"].tokens[0]
    word, place = 2, 5  # of the passage, of the picture in raster order
    let_in = torch.stack(
        [
            met.opening[0, p] * met.weights[0, p, 1 + place] * model.fusion.through(tokens[1 + place])
            for p in question.pieces[word]
        ]
    ).sum(0)
    _, columns = question.encoded["vit"].grid
    assert e.links[word, place // columns, place % columns] == pytest.approx(
        slope * float(let_in @ direction), rel=1e-3, abs=1e-6
    )
    assert e.total == pytest.approx(slope * float((model.fusion.added(met)[0] @ direction).sum()), rel=1e-3)


def test_a_bent_path_is_followed_all_the_way(tokenizer, picture):
    """Where the vote does not change evenly as the gate opens: the mean gradient over two hundred points says the same,
    one point something else."""
    pipe = pipeline(tokenizer, **GATES["word"])
    with torch.no_grad():
        pipe.model.fusion.pass_on.weight.mul_(8)
    question, model = pipe.ask(picture, PASSAGE), pipe.model
    e, met = gate_effect(question, "vit"), model.fusion.meet(question.encoded["vit"], question.read)
    added, vector, slope = (
        model.fusion.added(met).detach(),
        model.image_vector(question.encoded["vit"]).detach(),
        float(model.vote_slopes()[0]),
    )

    def by_position(points: int) -> torch.Tensor:
        """[T]"""
        let_in = (((torch.arange(points) + 0.5) / points).view(-1, 1, 1) * added).requires_grad_()
        fused = model.fusion.norm(model.fusion.base(question.read.text) + let_in)
        votes = slope * torch.nn.functional.cosine_similarity(model.text_vectors_of(fused, question.mask), vector)
        (gradient,) = torch.autograd.grad(votes.sum(), let_in)
        return (gradient.mean(0) * added[0]).sum(-1)

    many, one = ([float(by_position(n)[list(p)].sum()) for p in question.pieces] for n in (200, 1))
    assert e.words == pytest.approx(many, abs=0.02 * max(map(abs, many))) and e.error <= 0.01
    assert np.abs(np.array(one) - many).max() > 0.1 * max(map(abs, many))


@pytest.mark.parametrize("gate", ["word", "linear"])
def test_what_the_opening_lets_in_counts(tokenizer, picture, gate):
    """A gate that opens half as far at one word lets half as much in there."""
    pipe = pipeline(tokenizer, **GATES[gate])
    question, meet = pipe.ask(picture, PASSAGE), pipe.model.fusion.meet
    before = gate_effect(question, "vit")
    pipe.model.fusion.meet = lambda *given: dataclasses.replace(meet(*given), opening=meet(*given).opening * 1e-3)
    after = gate_effect(pipe.ask(picture, PASSAGE), "vit")
    assert abs(after.total) < 0.05 * max(abs(before.total), np.abs(before.words).max())
    assert after.error <= 0.01 or abs(after.total) < 1e-3
    assert np.abs(after.links).max() < 0.05 * np.abs(before.links).max()


@pytest.mark.parametrize("gate", GATES)
def test_a_gates_words_meetings_and_map(tokenizer, picture, gate):
    pipe = pipeline(tokenizer, **GATES[gate])
    question, e = pipe.ask(picture, PASSAGE), pipe.explain(picture, PASSAGE, evidence=False)
    met = pipe.model.fusion.meet(question.encoded["vit"], question.read)
    g, pieces = e.gates["vit"], question.pieces
    assert g.meeting.shape == (len(e.words), *GRIDS["vit"]) and np.allclose(g.meeting.sum((1, 2)), 1, atol=1e-5)
    own = met.weights[0, list(pieces[1]), 1:].mean(0)
    assert np.allclose(g.meeting[1].ravel(), own / own.sum(), atol=1e-6)
    if pipe.model.fusion.by_word:
        assert g.words == pytest.approx([float(met.opening[0, list(p)].mean()) for p in pieces], abs=1e-5)
        expected = sum(w * m for w, m in zip(g.words, g.meeting, strict=True))
        assert np.allclose(e.maps.grids["gate:vit"], expected, atol=1e-5) and e.gate_weights is None
    else:
        assert e.maps.grids["gate:vit"].max() < 1 and e.gate_weights.w_image == pytest.approx(0.7)
    assert e.gate == pipe.config.gate and e.manifest()["gates"]["vit"]["words"] == g.words


def test_a_shut_gate_has_no_effect(tokenizer, picture):
    pipe = pipeline(tokenizer)
    with torch.no_grad():
        pipe.model.fusion.scalars.weight[0, 0] = 0
    question = pipe.ask(picture, PASSAGE)
    e = gate_effect(question, "vit")
    assert e.total == 0 and not any(e.words) and not e.patches.any() and e.error == 0


def test_no_gate_has_no_effect_to_measure(tokenizer, picture):
    pipe = pipeline(tokenizer, gate="none")
    with pytest.raises(ValueError, match="no gate"):
        gate_effect(pipe.ask(picture, PASSAGE), "vit")
    assert pipe.explain(picture, PASSAGE).gate_effect == {}


def test_tokens_without_places_have_effects_on_words_only(tokenizer, picture):
    branches = tuple(
        dataclasses.replace(b, axes="published") if b.name == "resnet" else b for b in tiny_config().branches
    )
    pipe = pipeline(tokenizer, branches=branches, padding="carry")
    question = pipe.ask(picture, PASSAGE)
    assert pipe.explain(picture, PASSAGE, evidence=False).gates["resnet"].meeting is None
    e = gate_effect(question, "resnet")
    assert (
        e.patches is None
        and e.links is None
        and e.error <= 0.01
        and sum(e.words) + e.rest == pytest.approx(e.total, rel=0.011)
    )
    assert set(CONTRIBUTION.run(question)) == {"vit"}
