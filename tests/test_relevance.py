"""Methods that need no altered inputs: contribution, gradient-weighted attention; and what all methods have in
common."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from musti_model.attention import attention_gradients, bert_attention
from musti_model.image_tower import ImageTokens
from musti_model.methods import CONTRIBUTION, METHODS, combined, method, relevance
from tests.conftest import GATES, PASSAGE, pipeline, tiny_model


def test_relevance_without_a_class_token_starts_from_all_places(tokenizer, picture, monkeypatch):
    vit = tiny_model().config.branches[0]
    vit = dataclasses.replace(vit, backbone_args={**vit.backbone_args, "class_token": False, "global_pool": "avg"})
    starts = []
    real = relevance.relevance
    monkeypatch.setattr(relevance, "relevance", lambda layers, start: starts.append(start) or real(layers, start))
    maps = relevance.of_regions(pipeline(tokenizer, branches=(vit,)).ask(picture, PASSAGE))
    # from no register
    assert maps["vit"].shape == (5, 4) and torch.allclose(starts[0], F.pad(torch.full((20,), 1 / 20), (2, 0)))


def test_places_that_are_all_alike_add_up_to_the_distance_from_the_threshold(tokenizer, picture):
    pipe = pipeline(tokenizer, threshold=0.7, temperature=2.0)
    question = pipe.ask(picture, PASSAGE)
    torch.manual_seed(1)
    alike = {n: ImageTokens(torch.randn(1, 1, 32).expand_as(t.tokens), t.grid) for n, t in question.encoded.items()}
    question = dataclasses.replace(question, encoded=alike)
    logit = question.model.match(alike, question.input_ids, question.mask).logits[0]
    maps = CONTRIBUTION.run(question)
    assert combined(maps).sum().item() == pytest.approx(float(logit) - 2 * np.log(0.7 / 0.3), abs=1e-4)


def test_combined_maps_keep_their_sums():
    maps = {"a": torch.full((2, 2), 3.0), "b": torch.full((4, 4), -0.5)}
    both = combined(maps)
    assert both.shape == (4, 4) and torch.allclose(both, torch.tensor(12 / 16 - 0.5))


@pytest.mark.parametrize("gate", ["scalar", "word", "none"])
def test_relevance_has_the_scale_of_the_votes(tokenizer, picture, gate):
    """Attention of a ViT and gradient times activation of a CNN have scales of their own; a map of both would be that
    of one."""
    question = pipeline(tokenizer, **GATES.get(gate, {"gate": "none"})).ask(picture, PASSAGE)
    votes = question.model.match_words(question.encoded, question.read).votes[0]
    for k, values in enumerate(relevance.of_regions(question).values()):
        assert values.abs().sum().item() == pytest.approx(abs(float(votes[k])), rel=1e-4)
    words = torch.stack(list(relevance.of_words(question).values()))
    assert torch.allclose(words.abs().sum(1), votes.abs(), rtol=1e-4)
    assert torch.equal(
        relevance.shares_of_vote(torch.tensor([3.0, -1.0]), torch.tensor(-2.0)), torch.tensor([1.5, -0.5])
    )
    assert not relevance.shares_of_vote(torch.zeros(2), torch.tensor(1.0)).any()


def test_relevance_by_hand():
    attention = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])
    gradient = torch.tensor([[[2.0, -4.0], [1.0, 1.0]]])
    # for: (1 0; 0 1) + I -> row 0 (2 0), less the identity (1 0); against: (0 2; 0 0) + I -> (1 2), less the identity
    # (0 2)
    assert torch.allclose(
        relevance.relevance([(attention, gradient)], torch.tensor([1.0, 0.0])), torch.tensor([1.0, -2.0])
    )


@pytest.mark.parametrize("gate", ["scalar", "word"])
def test_a_cnns_relevance_is_what_the_vote_loses_as_a_place_fades(tokenizer, picture, gate):
    """Gradient times activation is the slope of the vote along the strength of one place's activations; it has a
    sign."""
    question = pipeline(tokenizer, **GATES[gate]).ask(picture, PASSAGE)
    model, branch = question.model, question.model.branches["resnet"]
    features, step = question.encoded["resnet"].feature_map.detach(), 0.05

    def vote(row: int, column: int, strength: float) -> float:
        changed = features.clone()
        changed[:, :, row, column] *= strength
        tokens = branch.to_tokens(changed, model.fusion.norm, model.grid_norm)
        return float(model.match_words(question.encoded | {"resnet": tokens}, question.read).votes[0, 1])

    with torch.no_grad():
        slopes = [[(vote(r, c, 1 + step) - vote(r, c, 1 - step)) / (2 * step) for c in range(3)] for r in range(3)]
    slopes = torch.tensor(slopes)
    values = relevance.of_regions(question)["resnet"]
    assert slopes.min() < 0  # so that a value without its sign would be seen
    assert torch.allclose(values / values.abs().sum(), slopes / slopes.abs().sum(), atol=0.02)


def test_gradients_of_attention_are_those_of_unfused_attention(pipe, question):
    branch = pipe.model.branches["vit"]
    block = branch.backbone.blocks[-1]
    with torch.enable_grad(), attention_gradients(branch.backbone.blocks) as layers:
        output = branch.backbone.forward_features(question.images["vit"])[0].pow(2).sum()
        attention, gradient = (x[0] for x in layers(output)[-1])
    seen = []
    handle = block.attn.attn_drop.register_forward_hook(lambda m, i, o: seen.append(o.requires_grad_()) or o)
    block.attn.fused_attn = False
    try:
        with torch.enable_grad():
            output = branch.backbone.forward_features(question.images["vit"])[0].pow(2).sum()
            (expected,) = torch.autograd.grad(output, seen)
    finally:
        handle.remove()
        block.attn.fused_attn = True
    assert torch.allclose(attention, seen[0][0], atol=1e-6)
    assert torch.allclose(gradient, expected[0], atol=1e-4) and gradient.abs().max() > 1e-3


@pytest.mark.parametrize("gate", ["scalar", "word"])
def test_text_attention_is_captured_layer_by_layer(tokenizer, picture, gate):
    question = pipeline(tokenizer, **GATES[gate]).ask(picture, PASSAGE)
    model = question.model
    with torch.enable_grad(), attention_gradients(model.text.encoder.layer) as layers:
        votes = model.match_words(question.encoded, question.read).votes[0]
        pairs, alone = layers(votes.sum()), layers(votes[1])
    fused = model.fusion.fuse(question.read.text, model.fusion.meet(question.encoded["resnet"], question.read))
    with bert_attention(model.text.encoder, question.mask) as maps:
        model.text_vectors_of(fused, question.mask)
    assert torch.allclose(torch.stack([a[1] for a, _ in pairs]), maps()[0], atol=1e-5)  # the second branch's row
    assert all(
        torch.allclose(both[1], own[1], atol=1e-6) and not own[0].any()
        for (_, both), (_, own) in zip(pairs, alone, strict=True)
    )
    assert not model.text.encoder.layer[0].attention.output.dense._forward_pre_hooks


def test_attention_of_several_passes_is_nobodys(question):
    with torch.enable_grad(), attention_gradients(question.model.text.encoder.layer) as layers:
        for _ in range(2):
            votes = question.model.match_words(question.encoded, question.read).votes[0]
        with pytest.raises(ValueError, match="one pass"):
            layers(votes.sum())


def test_relevance_without_a_gate_is_each_branchs_own(tokenizer, picture):
    """All branches hang on one reading of the passage, and differ by their votes alone."""
    question = pipeline(tokenizer, gate="none").ask(picture, PASSAGE)
    single = {}
    for k, (name, values) in enumerate(relevance.of_words(question).items()):
        with torch.enable_grad(), attention_gradients(question.model.text.encoder.layer) as layers:
            vote = question.model.match_words(question.encoded, question.read).votes[0, k]
            pairs = [(a[0], g[0]) for a, g in layers(vote)]
        raw = relevance.relevance(pairs, torch.eye(question.length)[0])
        single[name] = relevance.shares_of_vote(torch.stack([raw[list(p)].sum() for p in question.pieces]), vote)
        assert torch.allclose(values, single[name], atol=1e-5)
    assert not torch.allclose(single["vit"], single["resnet"], atol=1e-3)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("m", METHODS, ids=lambda m: f"{m.kind}, {m.name}")
def test_every_method_keeps_its_contract(tokenizer, picture, gate, m):
    """A finite value for each word or place and each branch that has any; those that are not signed are never below
    0."""
    question = pipeline(tokenizer, **GATES[gate]).ask(picture, PASSAGE)
    values = m.run(question)
    assert set(values) == {"rollout": {"vit"}, "gradcam": {"resnet"}}.get(m.name, {"vit", "resnet"})
    for v in values.values():
        assert v.dtype == torch.float32 and v.isfinite().all() and v.abs().max() > 0 and not v.requires_grad
        assert v.shape == (len(question.pieces),) if m.kind == "words" else v.ndim == 2
        assert m.signed or v.min() >= 0
    assert method(m.kind, m.name) is m


def test_methods_go_by_kind_and_name():
    assert len({(m.kind, m.name) for m in METHODS}) == len(METHODS)
    with pytest.raises(KeyError):
        method("words", "rollout")
