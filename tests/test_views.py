"""What people read, without a browser."""

import re
from dataclasses import replace

import numpy as np
import pytest

import app
from musti_model import Prediction
from musti_model.figures import words_html
from musti_model.results import Faithfulness
from page import scales
from page.parts import faithful, gate_effect, verdict, why
from page.tabs.about import measured_scores


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (0.49, "Only just NO: not the same smell"),
        (0.51, "Only just YES: picture and passage go together"),
        (0.9, "<h2>YES: picture and passage go together"),
    ],
)
def test_a_close_answer_is_called_close(probability, words):
    p = Prediction("YES" if probability >= 0.5 else "NO", probability, 0.5, {"vit": 0.1}, {"vit": 0.1}, 0.0, 0.1)
    assert words in verdict.verdict_html(p)


@pytest.mark.parametrize(
    ("deletion", "random", "words"),
    [
        (0.27, 0.94, "holds"),
        (0.93, 0.95, "cannot be told"),
        (0.5, 0.5, "cannot be told"),
        (0.48, 0.5, "weak"),
        (0.6, 0.5, "no better than chance"),
    ],
)
def test_what_is_said_of_faithfulness(deletion, random, words):
    measured = Faithfulness(deletion, 0.9, random, 0.5, 0.0)
    assert faithful.judgement(measured) == words and f"<strong>{words}</strong>" in faithful.faithful_html(
        "YES", "words", measured
    )
    assert faithful.faithful_html("YES", "words", None) == ""


def colours(html: str) -> list[tuple[int, ...]]:
    """Of the words, each channel 0..255."""
    return [tuple(bytes.fromhex(h)) for h in re.findall(r"style=\"background:#(\w{6})", html)]


def test_like_things_are_drawn_on_one_scale(pipe, picture):
    """An effect of .0007 is never drawn like one of 3, neither beside evidence of 3 nor alone."""
    explanation = pipe.explain(picture, "The roses smelled sweet.")
    words = len(explanation.words)
    tiny = {
        n: replace(e, words=[0.0007] * words, patches=np.full_like(e.patches, 0.0007))
        for n, e in explanation.gate_effect.items()
    }
    none = {n: replace(e, words=[0.0] * words) for n, e in explanation.evidence.branches.items()}
    middle = colours(words_html("x", [(0, 1)], [0.0], "", (-1.0, 1.0), signed=True))[0]
    for evidence in (3.0, 0.0):
        shown = replace(
            explanation,
            gate_effect=tiny,
            evidence=replace(explanation.evidence, words=[evidence] * words, branches=none),
        )
        assert scales.scale_for("words", "logit", shown)[1] == max(evidence, scales.LEAST)
        for colour in colours(gate_effect.effect_html(shown, "vit")):
            assert max(abs(a - b) for a, b in zip(colour, middle, strict=True)) <= 8
    whole, branch = (why.evidence_html(shown, part) for part in (why.WHOLE, "vit"))
    assert re.findall("legend.*?–", whole) == re.findall("legend.*?–", branch)
    large = replace(explanation, evidence=replace(explanation.evidence, words=[3.0] * words))
    # beside another, on its scale
    assert why.evidence_html(explanation, why.WHOLE, [large]) != why.evidence_html(explanation, why.WHOLE)


def test_regions_of_evidence_are_not_paled_by_patches_of_the_gate(pipe, picture):
    """They are larger than patches; and what is added beside no word is never said to be less than nothing."""
    explanation = pipe.explain(picture, "The roses smelled sweet.")
    strong = {
        n: replace(e, rest=-0.0001, patches=np.full_like(e.patches, 9.0)) for n, e in explanation.gate_effect.items()
    }
    shown = replace(explanation, gate_effect=strong)
    assert why.evidence_figure(shown, why.WHOLE, 0.5)[1] == why.evidence_figure(explanation, why.WHOLE, 0.5)[1]
    assert "-9 – 9" in gate_effect.effect_figure(shown, "vit", 0.5)[1]
    assert "without a word add +0.000" in gate_effect.effect_html(shown, "vit")


def test_scores_of_other_weights_are_not_shown():
    scores = measured_scores(app.ASSETS)
    assert "beats random orders on 100%" in why.score_html(scores, scores["weights"])
    assert why.score_html(scores, "user/other (main)") == "" and why.score_html(None, scores["weights"]) == ""


def test_a_word_that_weighs_twice_is_named_once():
    told = why.strongest(["a", "Rose", ",", "rose", "horse"], [0.1, 0.4, 3.0, 0.6, -0.9])
    assert (
        "rose (+0.60), a (+0.10)." in told
        and "Rose (" not in told
        and "," not in re.findall(r"\w+ \(", told)
        and "horse (-0.90)." in told
    )


def test_a_word_read_often_is_listed_once():
    p = Prediction(
        "YES",
        0.9,
        0.5,
        {"vit": 0.1},
        {"vit": 0.1},
        0.0,
        0.1,
        [],
        [("flower", 0.9)],
        [("flower", "rose")] * 40 + [("dog", "hound")],
    )
    assert "rose → flower (×40), hound → dog." in verdict.verdict_html(p)


def test_what_rounds_to_nothing_is_not_said_to_be_seen():
    p = Prediction("YES", 0.9, 0.5, {"vit": 0.1}, {"vit": 0.1}, 0.0, 0.1, [], [("flower", 0.9), ("dog", 0.004)])
    assert verdict.seen_in(p) == "flower (90%)"
    assert verdict.seen_in(replace(p, objects_in_picture=[("flower", 0.004), ("dog", 0.003)])) == "flower (0%)"


@pytest.mark.parametrize(
    ("label", "seen", "read", "unsure", "words"),
    [
        ("YES", ["candle", "fire"], ["candle", "horse"], False, "YES: both point to “candle”."),
        (
            "YES",
            ["fire", "candle"],
            ["candle"],
            False,
            "YES: I see “fire” in the picture, perhaps also “candle”, of which the passage speaks.",
        ),
        ("YES", ["fire"], ["candle"], False, "YES: picture and passage go together"),
        (
            "NO",
            ["horse", "dog"],
            ["wine", "bread"],
            False,
            "NO: I see “horse” in the picture; the passage speaks of “bread”, “wine”.",
        ),
        ("NO", ["horse"], ["horse", "wine"], False, "NO: not the same smell"),
        (
            "NO",
            ["horse"],
            ["a", "b", "c", "d"],
            False,
            "NO: I see “horse” in the picture; the passage speaks of “a”, “b”, “c” ….",
        ),
        ("YES", ["horse"], ["horse"], True, "Cannot tell: I am not sure what the picture shows."),
        ("NO", ["horse"], [], True, "Cannot tell: I read none of the things I know in the passage."),
        ("NO", [], [], False, "NO: not the same smell"),
        (
            "YES",
            ["ship"],
            [],
            True,
            "Perhaps: I see “ship” in the picture, and the passage may call it by a name that I cannot read.",
        ),
    ],
)
def test_the_answer_in_one_line_names_what_was_seen_and_read(label, seen, read, unsure, words):
    probability = 0.9 if label == "YES" else 0.1
    p = Prediction(
        label,
        probability,
        0.5,
        {"vit": 0.1},
        {"vit": 0.1},
        0.0,
        0.1,
        [],
        [(n, 0.5) for n in seen],
        [(n, n) for n in read],
        unsure,
    )
    assert verdict.headline(p) == words


@pytest.mark.parametrize(
    ("seen", "read", "words"),
    [
        (
            [("house", 0.76), ("ship", 0.17)],
            ["ship"],
            "YES: I see “house” in the picture, perhaps also “ship”, of which the passage speaks.",
        ),
        ([("house", 0.76), ("ship", 0.17)], ["ship", "house"], "YES: both point to “house”."),
        (
            [("house", 0.35), ("ship", 0.3)],
            ["ship"],
            "YES: the picture perhaps shows “house”, “ship”; the passage speaks of “ship”.",
        ),
        (
            [("house", 0.35), ("ship", 0.3)],
            ["house"],
            "YES: the picture perhaps shows “house”; the passage speaks of “house”.",
        ),
    ],
)
def test_a_guess_is_told_as_a_guess(seen, read, words):
    p = Prediction("YES", 0.9, 0.5, {"vit": 0.1}, {"vit": 0.1}, 0.0, 0.1, [], seen, [(n, n) for n in read])
    assert verdict.headline(p) == words
