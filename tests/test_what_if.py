"""Altered questions: each alteration is what it says, and nothing altered is the old answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from musti_model import InputError, MustiPipeline, MustiProcessor
from musti_model.what_if import Alteration, altered_logit
from page.parts.what_if import alteration_of, board_value, what_if_html
from tests.conftest import GATES, pipeline, tiny_model

PASSAGE = "The roses smelled sweet in the garden."


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def plain(pipe, picture):
    return pipe(picture, PASSAGE)


def altered(pipe, picture, **changes) -> float:
    return altered_logit(pipe.ask(picture, PASSAGE), Alteration(**changes))


def test_nothing_altered(pipe, picture, plain):
    assert altered(pipe, picture) == pytest.approx(plain.logit, abs=1e-4)
    assert pipe.what_if(picture, PASSAGE, Alteration()) == pytest.approx(plain.probability, abs=1e-5)


def test_a_struck_word_is_a_passage_without_it(pipe, picture):
    assert altered(pipe, picture, struck=[1, 3]) == pytest.approx(
        pipe(picture, "The smelled in the garden.").logit, abs=1e-4
    )


def test_a_struck_word_where_padding_takes_part(tokenizer, picture):
    model = tiny_model(padding="carry")
    pipe = MustiPipeline(model, MustiProcessor(model.config, tokenizer), device="cpu", precision="float32")
    assert altered(pipe, picture, struck=[1, 3]) == pytest.approx(
        pipe(picture, "The smelled in the garden.").logit, abs=1e-4
    )
    assert altered(pipe, picture) == pytest.approx(pipe(picture, PASSAGE).logit, abs=1e-4)


@pytest.mark.parametrize(
    "changes", [{"struck": [99]}, {"struck": [-1]}, {"blanked": [(0, 8)]}, {"without": ["swin"]}, {"gate": "ajar"}]
)
def test_what_is_not_there_cannot_be_altered(pipe, picture, changes):
    with pytest.raises(InputError):
        altered(pipe, picture, **changes)


def test_a_blanked_picture_is_one_of_its_mean_colour(pipe, picture):
    every = [(r, c) for r in range(8) for c in range(8)]
    question = pipe.ask(picture, PASSAGE)
    images = {n: x.mean((2, 3), keepdim=True).expand_as(x) for n, x in question.images.items()}
    expected = pipe.model(images, question.input_ids, question.mask).logits[0].item()
    assert altered(pipe, picture, blanked=every) == pytest.approx(expected, abs=1e-4)
    assert altered(pipe, picture, blanked=every[:8]) != pytest.approx(expected, abs=1e-3)


def test_a_shut_gate_is_a_gate_without_its_image_weight(pipe, picture, plain):
    shut, weight = altered(pipe, picture, gate="shut"), pipe.model.fusion.scalars.weight[0, 0].item()
    with torch.no_grad():
        pipe.model.fusion.scalars.weight[0, 0] = 0
        expected = pipe(picture, PASSAGE).logit
        pipe.model.fusion.scalars.weight[0, 0] = weight
    assert shut == pytest.approx(expected, abs=1e-4) and shut != pytest.approx(plain.logit, abs=1e-3)


@pytest.mark.parametrize("gate", ["word", "linear", "word by place"])
def test_a_gate_of_words_shut_and_open(tokenizer, picture, gate):
    """Shut: as if it opened nowhere; open: as if it opened wide at every word."""
    pipe = pipeline(tokenizer, **GATES[gate])
    question, learned = pipe.ask(picture, PASSAGE), pipe(picture, PASSAGE).logit
    meet = pipe.model.fusion.meet
    for state, opening in (("shut", 0.0), ("open", 1.0)):
        got = altered_logit(question, Alteration(gate=state))
        pipe.model.fusion.meet = lambda *given, opening=opening: replace(
            meet(*given), opening=torch.full_like(meet(*given).opening, opening)
        )
        expected = altered_logit(question, Alteration())
        pipe.model.fusion.meet = meet
        assert got == pytest.approx(expected, abs=1e-5) and got != pytest.approx(learned, abs=1e-4)


def test_one_question_serves_all(word_pipe, picture):
    """Nothing is encoded anew but what changes."""
    question = word_pipe.ask(picture, PASSAGE)
    seen = []
    hooks = [
        m.register_forward_hook(lambda *_, n=n: seen.append(n))
        for n, m in (("picture", word_pipe.model.branches["vit"]), ("text", word_pipe.model.text.embeddings))
    ]
    try:
        answer = word_pipe(question)
        assert word_pipe.what_if(question) == pytest.approx(answer.probability, abs=1e-5) and seen == []
        word_pipe.what_if(question, alteration=Alteration(struck=[0]))
        assert seen == ["text"]
        seen.clear()
        word_pipe.what_if(question, alteration=Alteration(blanked=[(0, 0)]))
        assert seen == ["picture"]
    finally:
        for hook in hooks:
            hook.remove()
    assert answer.logit == pytest.approx(word_pipe(picture, PASSAGE).logit, abs=1e-4)


def test_a_branch_left_out_gives_its_weight_to_the_other(pipe, picture, plain):
    slopes = pipe.model.vote_slopes().tolist()
    expected = plain.votes["vit"] * (abs(slopes[0]) + abs(slopes[1])) / abs(slopes[0]) + plain.vote_bias
    assert altered(pipe, picture, without=["resnet"]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("changes", [{"struck": range(8)}, {"without": ["vit", "resnet"]}])
def test_something_must_be_left(pipe, picture, changes):
    with pytest.raises(InputError, match="leave"):
        altered(pipe, picture, **changes)


def test_the_board_and_what_it_asks_for(pipe, picture):
    board = board_value(pipe.explain(picture, PASSAGE, evidence=False))
    assert [w["text"] for w in board["words"]][:2] == ["The", "roses"] and len(board["cells"]) == 64
    assert board["picture"].startswith("data:image/jpeg;base64,") and board["shape"] == "64 / 48"
    assert not alteration_of(board, "learned", ["vit", "resnet"], ["vit", "resnet"]).changes
    board["words"][1]["off"] = board["cells"][9]["off"] = True
    assert alteration_of(board, "shut", ["vit"], ["vit", "resnet"]) == Alteration([1], [(1, 1)], "shut", ["resnet"])
    assert alteration_of({"cells": [{"off": True}] * 99, "words": ["?"]}, "learned", [], []) == Alteration(
        [], [divmod(i, 8) for i in range(64)], "learned", []
    )


def test_the_old_answer_stands_beside_the_new(plain):
    html = what_if_html(plain, 1 - plain.probability, Alteration(struck=[0]))
    assert f"{plain.probability:.3f}" in html and f"{1 - plain.probability:.3f}" in html and "turns the answer" in html
    assert "stays the same" in what_if_html(plain, plain.probability, Alteration(struck=[0]))
