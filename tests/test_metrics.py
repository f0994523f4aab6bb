"""Scores on cases worked by hand."""

import numpy as np
import pytest

from training.report.metrics import (
    best_threshold,
    collapsed,
    expected_calibration_error,
    f1_macro,
    fit_platt,
    fit_temperature,
    interval,
    reliability,
    resampled_f1,
    scores,
    sigmoid,
)

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


def test_calibration_error_by_hand():
    """Two bins: .25 said and 0 of 2 true, .75 said and 1 of 2 true: (2 * .25 + 2 * .25) / 4."""
    labels, probabilities = np.array([0, 0, 1, 0]), np.array([0.25, 0.25, 0.75, 0.75])
    assert reliability(labels, probabilities, 2) == [(0.25, 0.0, 2), (0.75, 0.5, 2)]
    assert expected_calibration_error(labels, probabilities, 2) == pytest.approx(0.25)
    assert expected_calibration_error(labels, labels.astype(float), 10) == 0.0


def test_temperature_is_found_again():
    """Labels drawn from sigmoid(z / 3): the divisor 3 comes back."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 6, 40_000)
    labels = (rng.random(len(z)) < sigmoid(z / 3)).astype(int)
    assert fit_temperature(z, labels) == pytest.approx(3, rel=0.05)
    assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]


def test_temperature_and_shift_are_found_again():
    """Labels drawn from sigmoid((z - 2) / 3): the divisor 3 and the shift -2 come back; logits that fall with the
    labels are refused."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 6, 40_000)
    labels = (rng.random(len(z)) < sigmoid((z - 2) / 3)).astype(int)
    assert fit_platt(z, labels) == pytest.approx((3, -2), rel=0.05)
    with pytest.raises(ValueError, match="do not rise"):
        fit_platt(-z, labels)


def test_bootstrap_draws_whole_groups():
    labels, guess = np.array([0, 0, 1, 1, 1, 0]), np.array([0, 1, 1, 0, 1, 0])
    whole = f1_macro(labels, guess.astype(float))
    assert np.allclose(resampled_f1(labels, [guess], [0] * 6, 50), whole)  # one group: every sample is the data
    apart = resampled_f1(labels, [guess, guess, 1 - guess], None, 400)
    assert apart.shape == (3, 400) and np.array_equal(apart[0], apart[1]) and apart[0].std() > 0.05
    together = resampled_f1(np.tile(labels, 30), [np.tile(guess, 30)], np.repeat(np.arange(30), 6), 400)
    assert together.std() < 1e-9  # equal groups: nothing varies
    low, high = interval(apart[0])
    assert low < whole < high and interval(np.arange(101.0), 0.9) == pytest.approx([5.0, 95.0])
