"""What people read, without a browser."""

import re

import pytest

import app
from musti_model import Prediction
from musti_model.results import Faithfulness
from page import views
from page.about import measured_scores


@pytest.mark.parametrize(
    ("probability", "words"), [(0.49, "Only just: NO: not the same smell"), (0.51, "Only just: YES: the same smell"), (0.9, "<h2>YES: the same smell")]
)
def test_a_close_answer_is_called_close(probability, words):
    p = Prediction("YES" if probability >= 0.5 else "NO", probability, 0.5, {"vit": 0.1}, {"vit": 0.1}, 0.0, 0.1)
    assert words in views.verdict_html(p)


@pytest.mark.parametrize(
    ("deletion", "random", "words"),
    [(0.27, 0.94, "faithful"), (0.93, 0.95, "cannot be told"), (0.5, 0.5, "cannot be told"), (0.48, 0.5, "hardly better"), (0.6, 0.5, "no better")],
)
def test_what_is_said_of_faithfulness(deletion, random, words):
    assert words in views.judgement("Words", Faithfulness(deletion, 0.9, random, 0.5, 0.0))


def test_scores_of_other_weights_are_not_shown():
    scores = measured_scores(app.ASSETS)
    assert "beats random orders on 100%" in views.score_html(scores, scores["weights"])
    assert views.score_html(scores, "user/other (main)") == "" and views.score_html(None, scores["weights"]) == ""


def test_a_word_that_weighs_twice_is_named_once():
    told = views.strongest(["a", "Rose", ",", "rose", "horse"], [0.1, 0.4, 3.0, 0.6, -0.9])
    assert "rose (+0.60), a (+0.10)." in told and "Rose (" not in told and "," not in re.findall(r"\w+ \(", told) and "horse (-0.90)." in told


def test_a_word_read_often_is_listed_once():
    p = Prediction("YES", 0.9, 0.5, {"vit": 0.1}, {"vit": 0.1}, 0.0, 0.1, [], [("flower", 0.9)], [("flower", "rose")] * 40 + [("dog", "hound")])
    assert "rose → flower (×40), hound → dog." in views.verdict_html(p)


@pytest.mark.parametrize(
    ("label", "seen", "read", "unsure", "words"),
    [
        ("YES", ["candle", "fire"], ["candle", "horse"], False, "YES: both point to “candle”."),
        ("YES", ["fire", "candle"], ["candle"], False, "YES: the picture shows “fire”, perhaps also “candle”, of which the passage speaks."),
        ("YES", ["fire"], ["candle"], False, "YES: the same smell"),
        ("NO", ["horse", "dog"], ["wine", "bread"], False, "NO: the picture shows “horse”; the passage speaks of “bread”, “wine”."),
        ("NO", ["horse"], ["horse", "wine"], False, "NO: not the same smell"),
        ("NO", ["horse"], ["a", "b", "c", "d"], False, "NO: the picture shows “horse”; the passage speaks of “a”, “b”, “c” …."),
        ("YES", ["horse"], ["horse"], True, "Cannot tell: I am not sure what the picture shows."),
        ("NO", ["horse"], [], True, "Cannot tell: I read none of the things I know in the passage."),
        ("NO", [], [], False, "NO: not the same smell"),
    ],
)  # fmt: skip
def test_the_answer_in_one_line_names_what_was_seen_and_read(label, seen, read, unsure, words):
    probability = 0.9 if label == "YES" else 0.1
    p = Prediction(label, probability, 0.5, {"vit": 0.1}, {"vit": 0.1}, 0.0, 0.1, [], [(n, 0.5) for n in seen], [(n, n) for n in read], unsure)
    assert views.headline(p) == words


@pytest.mark.parametrize(
    ("seen", "read", "words"),
    [
        ([("house", 0.76), ("ship", 0.17)], ["ship"], "YES: the picture shows “house”, perhaps also “ship”, of which the passage speaks."),
        ([("house", 0.76), ("ship", 0.17)], ["ship", "house"], "YES: both point to “house”."),
        ([("house", 0.35), ("ship", 0.3)], ["ship"], "YES: the picture perhaps shows “house”, “ship”; the passage speaks of “ship”."),
        ([("house", 0.35), ("ship", 0.3)], ["house"], "YES: the picture perhaps shows “house”; the passage speaks of “house”."),
    ],
)  # fmt: skip
def test_a_guess_is_told_as_a_guess(seen, read, words):
    p = Prediction("YES", 0.9, 0.5, {"vit": 0.1}, {"vit": 0.1}, 0.0, 0.1, [], seen, [(n, n) for n in read])
    assert views.headline(p) == words
