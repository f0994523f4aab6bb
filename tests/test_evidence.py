"""Evidence, faithfulness and the gate's effect: identities, and cases worked by hand."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from musti_model import MustiPipeline, MustiProcessor
from musti_model import evidence as ev
from musti_model import faithfulness as fa
from musti_model.attention import attention_gradients, bert_attention
from musti_model.image_tower import ImageTokens
from musti_model.gate_effect import gate_effect
from tests.conftest import tiny_model

PASSAGE = "The roses smelled sweet in the garden."


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))


@pytest.fixture
def case(pipe, picture):
    return pipe.case(picture, PASSAGE)


def pipeline(tokenizer, **changes) -> MustiPipeline:
    model = tiny_model(**changes)
    return MustiPipeline(model, MustiProcessor(model.config, tokenizer), device="cpu", precision="float32")


# Perturbed inputs -------------------------------------------------------------------------------------------------------------------


def test_votes_of_cut_texts_are_those_of_the_texts_alone(case):
    n = case.length
    kept = [list(range(n)), [0, n - 1], [0, 2, 3, n - 1]]
    together = ev.votes_of_texts(case, kept)
    for row, positions in zip(together, kept, strict=True):
        ids = case.input_ids[:, positions]
        alone = case.model.match(case.encoded, ids, torch.ones_like(ids)).votes[0]
        assert torch.allclose(row, alone, atol=1e-5)
    assert not torch.allclose(together[0], together[1])


def test_blanked_pictures(case):
    whole, none = torch.ones(1, 8, 8, dtype=torch.bool), torch.zeros(1, 8, 8, dtype=torch.bool)
    votes = ev.votes_of_pictures(case, torch.cat([whole, none]))
    plain = {n: x.mean((2, 3), keepdim=True).expand_as(x) for n, x in case.images.items()}
    expected = [case.model.match(case.model.encode_images(i), case.input_ids, case.mask).votes[0] for i in (case.images, plain)]
    assert torch.allclose(votes, torch.stack(expected), atol=1e-5)


def test_a_blanked_cell_is_where_it_should_be():
    kept = torch.ones(1, 8, 8, dtype=torch.bool)
    kept[0, 0, 7] = False  # top right
    image = torch.arange(16.0).view(1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)  # 16 px, a cell is 2 px
    changed = ev.blanked(image, kept)[0, 0] != image[0, 0]
    assert changed[:2, 14:].all() and changed.sum() == 4


def test_occlusion_of_words_by_hand(case):
    n = case.length
    first = case.words[0]
    rest = [p for p in range(n) if not any(p in w for w in case.words)]
    votes = ev.votes_of_texts(case, [list(range(n)), [p for p in range(n) if p not in first], sorted([*rest, *first]), rest])
    expected = ((votes[0] - votes[1]) + (votes[2] - votes[3])) / 2
    assert torch.allclose(ev.words_by_occlusion(case)[0], expected, atol=1e-5)


def test_cells_of_an_additive_vote_by_hand(case, monkeypatch):
    """Where each cell adds a number of its own, a linear model that is free to fit finds that number."""
    worth = torch.arange(64.0)
    monkeypatch.setattr(ev, "votes_of_pictures", lambda _case, kept: (kept.flatten(1).float() @ worth + 7)[:, None] * torch.tensor([1.0, -2.0]))
    monkeypatch.setattr(ev, "RIDGE", 1e-6)
    monkeypatch.setattr(ev, "SMOOTH", 0.0)
    maps = ev.regions_in_place(case)
    assert torch.allclose(maps["vit"].flatten(), worth, atol=1e-3) and torch.allclose(maps["resnet"].flatten(), -2 * worth, atol=1e-3)
    monkeypatch.setattr(ev, "SMOOTH", 1e9)
    assert float(ev.regions_in_place(case)["vit"].std()) < 0.1  # neighbours alike


def test_the_roughness_of_a_grid_by_hand():
    v = torch.tensor([1.0, 2.0, 5.0, 9.0], dtype=torch.float64)  # 1 2 / 5 9
    assert float(v @ ev._laplacian(2) @ v) == (1 - 2) ** 2 + (5 - 9) ** 2 + (1 - 5) ** 2 + (2 - 9) ** 2


def test_only_the_cells_that_differ_from_a_blank_picture_have_a_value(pipe):
    pixels = np.full((64, 64, 3), 128, dtype=np.uint8)
    pixels[32:64, 0:16] = 128 + np.random.default_rng(1).choice([-90, 90], (32, 16, 1))
    for values in ev.regions_in_place(pipe.case(Image.fromarray(pixels), PASSAGE)).values():
        assert values[4:8, 0:2].abs().mean() > 4 * values[:3, 4:].abs().mean()


def test_an_enlarged_window_shows_its_own_part():
    x = torch.arange(4.0).view(1, 1, 2, 2).repeat_interleave(16, 2).repeat_interleave(16, 3)  # quarters 0 1 / 2 3
    assert [float(ev._enlarged(x, r, c, 4).mean()) for r in (0, 4) for c in (0, 4)] == [0, 1, 2, 3]
    assert ev._enlarged(x, 0, 2, 4).shape == x.shape and ev._enlarged(x, 0, 2, 4).mean() == 0.5


def test_windows_close_up_by_hand(case, monkeypatch):
    """Where a vote is the mean of what is shown, the brighter quarter has the higher values, and a cell's is the mean of its windows'."""
    bright = torch.zeros(1, 3, 32, 32)
    bright[..., :16, 16:] = 8.0  # top right
    case = dataclasses.replace(case, images={"vit": bright, "resnet": bright})
    monkeypatch.setattr(case.model, "encode_images", lambda images: images)
    monkeypatch.setattr(case.model, "match", lambda images, *_: SimpleNamespace(votes=torch.stack([images[n].mean((1, 2, 3)) for n in images], 1)))
    values = ev.regions_close_up(case)["vit"] * 64
    # Nine windows, rows and columns at 0, 2, 4: votes 0 4 8 / 0 2 4 / 0 0 0, of mean 2. A corner cell lies in one window, the next in more.
    assert values[0, 7] == pytest.approx(8 - 2, abs=1e-4) and values[7, 0] == pytest.approx(0 - 2, abs=1e-4)
    assert values[0, 4] == pytest.approx((4 + 8) / 2 - 2, abs=0.1)


def test_close_up_of_one_colour_is_nothing(pipe):
    for values in ev.regions_close_up(pipe.case(Image.new("RGB", (64, 64), "teal"), PASSAGE)).values():
        assert values.abs().max() < 1e-6


def test_relevance_without_a_class_token_starts_from_all_places(tokenizer, picture, monkeypatch):
    vit = tiny_model().config.branches[0]
    vit = dataclasses.replace(vit, backbone_args={**vit.backbone_args, "class_token": False, "global_pool": "avg"})
    starts = []
    real = ev.relevance
    monkeypatch.setattr(ev, "relevance", lambda layers, start: starts.append(start) or real(layers, start))
    maps = ev.regions_by_relevance(pipeline(tokenizer, branches=(vit,)).case(picture, PASSAGE))
    assert maps["vit"].shape == (4, 4) and torch.allclose(starts[0], torch.full((16,), 1 / 16))


# Contribution -----------------------------------------------------------------------------------------------------------------------


def test_places_that_are_all_alike_add_up_to_the_distance_from_the_threshold(tokenizer, picture):
    pipe = pipeline(tokenizer, threshold=0.7, temperature=2.0)
    case = pipe.case(picture, PASSAGE)
    torch.manual_seed(1)
    alike = {n: ImageTokens(torch.randn(1, 1, 32).expand_as(t.tokens), t.grid) for n, t in case.encoded.items()}
    case = dataclasses.replace(case, encoded=alike)
    logit = case.model.match(alike, case.input_ids, case.mask).logits[0]
    maps = ev.regions_by_contribution(case)
    assert ev.combined(maps).sum().item() == pytest.approx(float(logit) - 2 * np.log(0.7 / 0.3), abs=1e-4)


def test_combined_maps_keep_their_sums():
    maps = {"a": torch.full((2, 2), 3.0), "b": torch.full((4, 4), -0.5)}
    both = ev.combined(maps)
    assert both.shape == (4, 4) and torch.allclose(both, torch.tensor(12 / 16 - 0.5))


# Gradient-weighted attention --------------------------------------------------------------------------------------------------------


def test_relevance_has_the_scale_of_the_votes(pipe, case):
    """Attention of a ViT and gradient times activation of a CNN have scales of their own; a map of both would be that of one."""
    votes = case.model.match(case.encoded, case.input_ids, case.mask).votes[0]
    for k, values in enumerate(ev.regions_by_relevance(case).values()):
        assert values.abs().sum().item() == pytest.approx(abs(float(votes[k])), rel=1e-4)
    assert torch.allclose(ev.words_by_relevance(case).abs().sum(0), votes.abs(), rtol=1e-4)
    assert torch.equal(ev.shares_of_vote(torch.tensor([3.0, -1.0]), torch.tensor(-2.0)), torch.tensor([1.5, -0.5]))
    assert not ev.shares_of_vote(torch.zeros(2), torch.tensor(1.0)).any()


def test_relevance_by_hand():
    attention = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])
    gradient = torch.tensor([[[2.0, -4.0], [1.0, 1.0]]])
    # for: (1 0; 0 1) + I -> row 0 (2 0), less the identity (1 0); against: (0 2; 0 0) + I -> (1 2), less the identity (0 2)
    assert torch.allclose(ev.relevance([(attention, gradient)], torch.tensor([1.0, 0.0])), torch.tensor([1.0, -2.0]))


def test_gradients_of_attention_are_those_of_unfused_attention(pipe, case):
    branch = pipe.model.branches["vit"]
    block = branch.backbone.blocks[-1]
    with torch.enable_grad(), attention_gradients(branch.backbone.blocks) as layers:
        output = branch.backbone.forward_features(case.images["vit"])[0].pow(2).sum()
        attention, gradient = layers(output, 0)[-1]
    seen = []
    handle = block.attn.attn_drop.register_forward_hook(lambda m, i, o: seen.append(o.requires_grad_()) or o)
    block.attn.fused_attn = False
    try:
        with torch.enable_grad():
            output = branch.backbone.forward_features(case.images["vit"])[0].pow(2).sum()
            (expected,) = torch.autograd.grad(output, seen)
    finally:
        handle.remove()
        block.attn.fused_attn = True
    assert torch.allclose(attention, seen[0][0], atol=1e-6)
    assert torch.allclose(gradient, expected[0], atol=1e-4) and gradient.abs().max() > 1e-3


def test_text_attention_is_captured_layer_by_layer(case):
    with torch.enable_grad(), attention_gradients(case.model.text.encoder.layer) as layers:
        vote = case.model.match(case.encoded, case.input_ids, case.mask).votes[0, 1]
        pairs = layers(vote, 1)  # the second branch's pass
    fused = case.model.fuse(case.model.text.embed(case.input_ids), case.model.meet(case.encoded["resnet"], case.mask)[0])
    with bert_attention(case.model.text.encoder, case.mask) as maps:
        case.model.encode_text(fused, case.mask)
    assert torch.allclose(torch.stack([a for a, _ in pairs]), maps()[0], atol=1e-5)
    assert not case.model.text.encoder.layer[0].attention.output.dense._forward_pre_hooks


@pytest.mark.parametrize("method", ev.WORD_METHODS)
def test_every_word_method_gives_a_value_a_word_and_branch(case, method):
    values = ev.WORD_METHODS[method](case)
    assert values.shape == (len(case.words), 2) and values.isfinite().all() and values.abs().max() > 0


@pytest.mark.parametrize("method", ev.REGION_METHODS)
def test_every_region_method_gives_a_map_a_branch(case, method):
    maps = ev.REGION_METHODS[method](case)
    assert set(maps) == {"vit", "resnet"} and all(m.ndim == 2 and m.isfinite().all() and m.abs().max() > 0 for m in maps.values())


# Faithfulness -----------------------------------------------------------------------------------------------------------------------


def additive(parts):
    return lambda kept: np.array([sum(parts[k] for k in row) for row in kept])


def test_deletion_and_insertion_of_an_additive_score_by_hand(monkeypatch):
    monkeypatch.setattr(fa, "STEPS", 2)
    # Order 1, 0: deletion 1, .25, 0 -> trapezoids (.625 + .125) / 2; insertion 0, .75, 1 -> (.375 + .875) / 2.
    result = fa._measure({"true": np.array([0.0, 1.0]), "false": np.array([1.0, 0.0])}, additive([0.25, 0.75]), "YES", seed=0)
    assert (result["true"].deletion, result["true"].insertion) == (0.375, 0.625)
    assert (result["false"].deletion, result["false"].insertion) == (0.625, 0.375)
    assert 0.375 <= result["true"].random_deletion <= 0.625


def test_a_no_is_explained_by_what_speaks_against(monkeypatch):
    monkeypatch.setattr(fa, "STEPS", 2)
    # P(NO) is additive: unit 0 holds .5, unit 1 .25. Deleting 0 first: .75, .25, 0; inserting it first: 0, .5, .75.
    no = {(0, 1): 0.75, (0,): 0.5, (1,): 0.25, (): 0.0}
    result = fa._measure({"true": np.array([-2.0, -1.0])}, lambda kept: np.array([1 - no[k] for k in kept]), "NO", seed=0)["true"]
    assert (result.deletion, result.insertion) == pytest.approx(((0.5 + 0.125) / 2, (0.25 + 0.625) / 2))


def test_the_true_order_beats_every_random_one():
    parts = np.arange(16) / 120
    result = fa._measure({"true": parts, "upside down": -parts}, additive(parts), "YES", seed=0)
    assert result["true"].chance == 0 and result["upside down"].chance == 1
    assert result["true"].deletion < result["true"].random_deletion < result["upside down"].deletion


def test_every_explanation_of_a_pair_is_measured(pipe, picture, monkeypatch):
    explanation = pipe.explain(picture, PASSAGE)
    measured = pipe.faithfulness(picture, PASSAGE, explanation)
    branches = ["vit", "resnet"]
    assert set(measured) == {
        "words", "regions", *[f"{kind}:{b}" for kind in ("words", "regions", "attention", "effect") for b in branches], *explanation.maps,
    }  # fmt: skip
    given = {}
    monkeypatch.setattr("musti_model.pipeline.of_regions", lambda _case, maps, _answer: given.update(maps) or {})
    for answer, sign in (("YES", 1), ("NO", -1)):
        changed = dataclasses.replace(explanation, prediction=dataclasses.replace(explanation.prediction, label=answer))
        pipe.faithfulness(picture, PASSAGE, changed)
        # For NO what speaks against YES goes first, yet what is looked at most still does.
        assert torch.equal(given["regions"], explanation.evidence.grid) and torch.equal(given["rollout:vit"], sign * explanation.maps.grids["rollout:vit"])


def test_faithfulness_of_words_and_regions_of_a_model(case):
    words = ev.words_by_occlusion(case).sum(1)
    measured = fa.of_words(case, {"occlusion": words, "against": -words})
    assert measured["occlusion"].deletion < measured["against"].deletion
    regions = ev.combined(ev.regions_in_place(case))
    measured = fa.of_regions(case, {"in place": regions, "against": -regions})
    assert measured["in place"].insertion > measured["against"].insertion


def test_cells_are_means():
    values = torch.zeros(16, 16)
    values[:2, :2] = 4.0
    cells = fa.to_cells(values)
    assert cells.shape == (8, 8) and cells[0, 0] == 4 and cells.sum() == 4
    assert torch.equal(fa.to_cells(torch.eye(8)), torch.eye(8))


# The gate's effect ------------------------------------------------------------------------------------------------------------------


def test_gate_effects_add_up_to_what_the_gate_changes_in_the_logit(pipe, picture):
    case = pipe.case(picture, PASSAGE)
    effects = {n: gate_effect(case, n) for n in case.encoded}
    on = float(case.model.match(case.encoded, case.input_ids, case.mask).logits[0])
    opened = case.model.fusion.scalars.weight.clone()
    with torch.no_grad():
        case.model.fusion.scalars.weight[0, 0] = 0
        off = float(case.model.match(case.encoded, case.input_ids, case.mask).logits[0])
        case.model.fusion.scalars.weight.copy_(opened)
    assert sum(e.total for e in effects.values()) == pytest.approx(on - off, rel=1e-3)
    assert abs(on - off) > 0.01
    for e in effects.values():
        assert e.error <= 0.01
        assert sum(e.words) + e.rest == pytest.approx(e.total, rel=0.011)
        assert e.patches.sum() + e.whole == pytest.approx(sum(e.words) + e.rest, abs=1e-4)
        assert e.links.shape == (len(case.words), *e.patches.shape)
        assert np.allclose(e.links.sum((1, 2)), e.words, atol=1e-5)  # a word's position meets no whole-picture token


def test_a_shut_gate_has_no_effect(tokenizer, picture):
    pipe = pipeline(tokenizer)
    with torch.no_grad():
        pipe.model.fusion.scalars.weight[0, 0] = 0
    case = pipe.case(picture, PASSAGE)
    e = gate_effect(case, "vit")
    assert e.total == 0 and not any(e.words) and not e.patches.any() and e.error == 0


def test_no_gate_has_no_effect_to_measure(tokenizer, picture):
    pipe = pipeline(tokenizer, gate="none")
    with pytest.raises(ValueError, match="no gate"):
        gate_effect(pipe.case(picture, PASSAGE), "vit")
    assert pipe.explain(picture, PASSAGE).gate_effect == {}


def test_tokens_without_places_have_effects_on_words_only(tokenizer, picture):
    config = tiny_model().config
    branches = tuple(dataclasses.replace(b, axes="published") if b.name == "resnet" else b for b in config.branches)
    pipe = pipeline(tokenizer, branches=branches, padding="carry")
    case = pipe.case(picture, PASSAGE)
    e = gate_effect(case, "resnet")
    assert e.patches is None and e.links is None and e.error <= 0.01 and sum(e.words) + e.rest == pytest.approx(e.total, rel=0.011)
    assert set(ev.regions_by_contribution(case)) == {"vit"}


# In an explanation ------------------------------------------------------------------------------------------------------------------


def test_an_explanation_carries_evidence_in_the_pictures_frame(pipe, picture):
    e = pipe.explain(picture, PASSAGE)
    assert len(e.evidence.words) == len(e.words) and e.evidence.map.shape == (48, 64)
    assert np.allclose(np.sum([b.words for b in e.evidence.branches.values()], axis=0), e.evidence.words, atol=1e-5)
    assert set(e.gate_effect) == {"vit", "resnet"}
    assert e.fit(32).evidence.map.shape == (24, 32)
    plain = json.loads(json.dumps(e.manifest()))
    assert plain["evidence"]["words"] == e.evidence.words and plain["gate_effect"]["vit"]["total"] == e.gate_effect["vit"].total
    assert pipe.explain(picture, PASSAGE, evidence=False).evidence is None


@pytest.mark.parametrize(("threshold", "missing"), [(0.0, 0), (1.0, 3)])
def test_what_is_missing_is_told_for_a_no_only(tokenizer, picture, threshold, missing):
    pipe = pipeline(tokenizer, threshold=threshold)
    e = pipe.explain(picture, PASSAGE)
    assert len(e.evidence.missing) == missing
    for name, probability in e.evidence.missing:
        assert probability == pytest.approx(pipe(picture, f"{name}. {PASSAGE}").probability, abs=1e-5)


def test_a_large_model_on_a_cpu_gets_evidence_from_gradients(pipe, picture, monkeypatch):
    assert pipe.explain(picture, PASSAGE).evidence.methods == {"words": "occlusion", "regions": "in place and close up"}
    monkeypatch.setattr("musti_model.pipeline.LARGE", 1000)
    e = pipe.explain(picture, PASSAGE)
    assert not pipe.many_passes and e.evidence.methods == {"words": "relevance", "regions": "relevance"} and e.evidence.map.shape == (48, 64)
