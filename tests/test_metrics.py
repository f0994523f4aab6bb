"""Scores on cases worked by hand."""

import numpy as np
import pytest

from training.metrics import best_threshold, collapsed, f1_macro, scores

LABELS = np.array([1, 0, 0, 0, 1, 0])
PROBABILITIES = np.array([0.9, 0.8, 0.1, 0.2, 0.7, 0.3])


def test_f1_macro_by_hand():
    # at .5: YES tp 2 fp 1 fn 0 -> 4/5; NO tp 3 fp 0 fn 1 -> 6/7
    assert f1_macro(LABELS, PROBABILITIES, 0.5) == pytest.approx((4 / 5 + 6 / 7) / 2)


def test_always_no_has_the_known_floor():
    labels = np.array([1] * 25 + [0] * 75)
    assert f1_macro(labels, np.zeros(100)) == pytest.approx(0.75 / 1.75)  # .4286


def test_best_threshold_separates_what_can_be_separated():
    threshold = best_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.25, 0.9]))
    assert 0.2 < threshold < 0.25


def test_scores_by_language():
    result = scores(LABELS, PROBABILITIES, 0.5, ["en", "en", "en", "de", "de", "de"])
    assert result["languages"]["de"]["f1_macro"] == 1.0
    assert result["languages"]["en"]["pairs"] == 3
    assert result["auc"] == pytest.approx(7 / 8)


def test_collapse():
    assert collapsed(np.full(50, 0.41)) and not collapsed(PROBABILITIES)


def test_scores_that_are_no_numbers_are_a_collapse():
    assert collapsed(np.array([0.1, np.nan, 0.9]))


def test_f1_macro_counts_both_classes_always():
    assert f1_macro(np.zeros(4), np.zeros(4)) == 0.5 == scores(np.zeros(4), np.zeros(4), 0.5)["f1_macro"]
