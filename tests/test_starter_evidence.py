"""Measures of the evidence, and where places start, on cases worked by hand."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from musti_model.model import MustiModel
from musti_model.weights import find_weights
from training.lexicon.naming import LANGUAGES, Mention
from training.starter.augment import branch_input, plain_view
from training.starter.drawing import Shown
from training.starter.evidence import PHOTOGRAPHS, SENTENCES, photograph_scores, share_in_quarter, top_word_names
from training.starter.passages import Passage
from training.starter.pictures import Pictures
from training.starter.scoring import encode_pictures
from training.starter.stages import picture_top1
from training.starter.towers import _ridge, borrow_backbones, place_kept, place_objects

from .conftest import tiny_config


def test_share_in_a_quarter_counts_what_speaks_for_yes():
    """Three in the right quarter, one elsewhere; what speaks against does not count; nothing at all is chance."""
    values = torch.tensor([[0.0, 0.0, 3.0, 0.0], [0.0, -9.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, -2.0]])
    assert (
        share_in_quarter(values, 1) == pytest.approx(0.75)
        and share_in_quarter(values, 2) == pytest.approx(0.25)
        and share_in_quarter(values, 0) == 0
    )
    assert share_in_quarter(-values.abs(), 3) == 0.25


@pytest.mark.parametrize("words, hit", [([0.1, 2.0, 0.3], True), ([0.1, 0.2, 0.3], False), ([3.0, -4.0, 0.0], False)])
def test_the_top_word_is_the_one_that_speaks_most_for_yes(words, hit):
    passage = Passage("The dog barks", "en", (Mention(4, 7, "dog", "sg", ""),), "musti")
    explanation = SimpleNamespace(
        passage=passage.text, word_spans=[(0, 3), (4, 7), (8, 13)], evidence=SimpleNamespace(words=words)
    )
    assert top_word_names(explanation, passage, "dog") is hit
    assert not top_word_names(explanation, passage, "cat")


def test_photographs_have_sentences_in_every_language_and_are_scored_by_rank_and_verdict(tmp_path):
    sentences = json.loads(SENTENCES.read_text(encoding="utf-8"))
    assert set(sentences) == set(LANGUAGES) and all(
        len(s) == 8 and set(PHOTOGRAPHS) < set(s) for s in sentences.values()
    )
    for file in PHOTOGRAPHS.values():
        Image.new("RGB", (8, 8)).save(tmp_path / file)

    class Known:
        """Says YES to the first two sentences and ranks the first highest: right about one photograph of three, and
        twice wrong about two."""

        def rank(self, picture, texts):
            answers = [SimpleNamespace(label="YES" if i < 2 else "NO") for i in range(len(texts))]
            return list(enumerate(answers))

    scores = photograph_scores(Known(), tmp_path)
    first = list(sentences["en"])[0]
    assert first in PHOTOGRAPHS and scores["en"]["first"] == pytest.approx(1 / 3)
    # Two of the photographs' own sentences are among the first two: 7 of 8 right for those, 5 of 8 for the third.
    assert scores["en"]["verdicts"] == pytest.approx((7 + 7 + 5) / 24)


def test_a_ridge_without_penalty_finds_a_linear_map():
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(s, generator=generator) for s in ((50, 4), (3, 4), (3,)))
    found, offset = _ridge(x, x @ weight.T + bias, 0.0)
    assert torch.allclose(found, weight, atol=1e-4) and torch.allclose(offset, bias, atol=1e-4)
    shrunk, _ = _ridge(x, x @ weight.T + bias, 10.0)
    assert shrunk.norm() < 0.2 * weight.norm()


def test_places_start_at_the_prototype_of_what_is_shown():
    """Red, green and blue pictures: after the fit each is named right, by a backbone that never learned."""
    torch.manual_seed(0)
    # a picture large enough for places that are not at its edge, which convolutions see otherwise
    vit, resnet = tiny_config().branches
    model = MustiModel(
        tiny_config(gate="word", meeting="content", branches=(vit, replace(resnet, image_size=96)))
    ).eval()
    colours = np.zeros((60, 24, 24, 3), np.uint8)
    labels = np.arange(60) % 3
    colours[np.arange(60), :, :, labels] = np.random.default_rng(0).integers(90, 255, (60, 1, 1))
    pictures = Pictures(colours, labels, np.array(["x"] * 60), np.array(["n"] * 60), model.config.objects)

    def named() -> dict[str, float]:
        return picture_top1(model, encode_pictures(model, colours), labels)

    before = {n: p.clone() for n, p in model.named_parameters() if "backbone" in n}
    place_objects(model, pictures, most=20, strength=0.01)
    assert named()["resnet"] > 0.9 and named()["both"] > 0.9
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters() if n in before)


def test_places_start_alike_where_features_are_kept():
    torch.manual_seed(0)
    models = [MustiModel(tiny_config(gate="word", meeting="content")).eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    colours = np.random.default_rng(0).integers(0, 255, (12, 24, 24, 3), dtype=np.uint8)
    labels = np.arange(12) % 3
    pictures = Pictures(colours, labels, np.array(["x"] * 12), np.array(["n"] * 12), models[0].config.objects)
    place_objects(models[0], pictures)
    with torch.no_grad():
        kept = {
            name: branch.features(
                branch_input(plain_view(torch.from_numpy(colours), branch.config.image_size), branch.config)
            )
            for name, branch in models[1].towers.items()
        }
    shows = torch.nn.functional.one_hot(torch.from_numpy(labels), 3).bool()
    none = torch.zeros(0, 4)
    place_kept(models[1], Shown(None, shows, len(shows), none, none, kept))
    for a, b in zip(*(m.towers.values() for m in models), strict=True):
        assert torch.allclose(a.projection[0].weight, b.projection[0].weight, atol=1e-4)
        assert torch.allclose(a.projection[0].bias, b.projection[0].bias, atol=1e-4)


def test_backbones_are_borrowed_and_nothing_else(folder):
    torch.manual_seed(9)
    model = MustiModel(tiny_config())
    before, lender = {n: v.clone() for n, v in model.state_dict().items()}, find_weights(folder).load()[0].state_dict()
    borrow_backbones(model, folder)
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed and all(".backbone." in n for n in changed)
    assert all(torch.equal(v, lender[n]) for n, v in model.state_dict().items() if ".backbone." in n)
