"""Scores: MUSTI's F1-macro, per language, with intervals; the decision threshold, calibration, collapse."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

COLLAPSE_SPREAD = 1e-3  # standard deviation of probabilities under which a model answers everything alike


def f1_macro(labels: np.ndarray, probabilities: np.ndarray, threshold: float = 0.5) -> float:
    """Mean of the F1 of NO and of YES over all pairs (MUSTI's metric). labels, probabilities: [N]."""
    return float(f1_score(labels, probabilities >= threshold, average="macro", labels=[0, 1], zero_division=0))


def best_threshold(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The threshold with the best F1-macro; of equals the middle one. Candidates lie halfway between neighbouring
    probabilities."""
    values = np.unique(probabilities)
    cuts = (values[1:] + values[:-1]) / 2 if len(values) > 1 else np.array([0.5])
    if len(cuts) > 500:
        cuts = np.quantile(cuts, np.linspace(0, 1, 500))
    scores = np.array([f1_macro(labels, probabilities, t) for t in cuts])
    best = cuts[scores >= scores.max() - 1e-12]
    return float(best[len(best) // 2])


def scores(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float, languages: Sequence[str] | None = None
) -> dict[str, Any]:
    """F1-macro, F1 a class, ROC-AUC, number of pairs; with ``languages`` [N] also F1-macro and AUC a language."""
    guess = probabilities >= threshold
    no, yes = f1_score(labels, guess, average=None, labels=[0, 1], zero_division=0)
    result: dict[str, Any] = {
        "f1_macro": float((no + yes) / 2),
        "f1_no": float(no),
        "f1_yes": float(yes),
        "auc": float(roc_auc_score(labels, probabilities)) if len(set(labels)) == 2 else float("nan"),
        "pairs": len(labels),
        "yes_share": float(np.mean(labels)),
    }
    if languages is not None:
        tags = np.asarray(languages)
        result["languages"] = {
            tag: scores(labels[tags == tag], probabilities[tags == tag], threshold) for tag in sorted(set(languages))
        }
    return result


def collapsed(probabilities: np.ndarray) -> bool:
    """True when all probabilities are practically alike, as in a published notebook of MMM2024 that shows one P for
    every pair, or when one is no number."""
    return not np.isfinite(probabilities).all() or bool(np.std(probabilities) < COLLAPSE_SPREAD)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Logits [N] -> probabilities, without overflow."""
    return expit(np.asarray(logits, dtype=np.float64))


FLATTEST = 50.0  # a temperature from here on says that the logits tell nothing about the labels


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The divisor of the logits that makes the likelihood of the labels highest (Guo et al. 2017). logits, labels:
    [N]."""

    def loss(log_t: float) -> float:
        z = logits / math.exp(log_t)
        return float(np.mean(np.logaddexp(0, z) - labels * z))

    return float(math.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x))


def fit_platt(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Temperature T and shift c such that the likelihood of the labels under ``sigmoid((logits + c) / T)`` is highest
    (Platt 1999). logits, labels: [N].

    Raises ValueError where higher logits do not mean YES more often.
    """
    fitted = LogisticRegression(C=np.inf).fit(logits[:, None], labels)
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if slope <= 0:
        raise ValueError("Logits that do not rise with the labels cannot be calibrated.")
    return 1 / slope, intercept / slope


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean probability, share of YES, number of pairs) of each bin of equal width that holds a pair. By hand:
    scikit-learn's ``calibration_curve`` does not give the numbers of pairs, which the calibration error is weighted
    by."""
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    rows = [place == b for b in range(bins)]
    return [(float(probabilities[r].mean()), float(labels[r].mean()), int(r.sum())) for r in rows if r.any()]


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> float:
    """Mean distance between probability and share of YES over the bins, weighted by their pairs (Naeini et al. 2015).
    0..1."""
    return sum(n * abs(p - share) for p, share, n in reliability(labels, probabilities, bins)) / len(labels)


def resampled_f1(
    labels: np.ndarray,
    guesses: Sequence[np.ndarray],
    groups: Sequence[int] | np.ndarray | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """F1-macro of each system on the same bootstrap samples.

    Args:
        labels: 0/1 [N]. guesses: 0/1 [N] of each system. groups: [N]; pairs that share a picture or a passage are not
            independent, so whole groups are drawn; None draws pairs.

    Returns: [systems, draws].
    """
    labels = np.asarray(labels, dtype=int)
    index = np.unique(np.arange(len(labels)) if groups is None else np.asarray(groups), return_inverse=True)[1]
    count = index.max() + 1
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)  # [draws, groups]
    result = []
    for guess in guesses:
        cells = np.zeros((count, 4))
        np.add.at(cells, (index, 2 * labels + np.asarray(guess, dtype=int)), 1)
        tn, fp, fn, tp = (weights @ cells).T
        no, yes = (2 * a / np.maximum(2 * a + fp + fn, 1) for a in (tn, tp))
        result.append((no + yes) / 2)
    return np.stack(result)


def interval(values: np.ndarray, level: float = 0.95) -> list[float]:
    """The middle ``level`` of bootstrap values: [low, high]."""
    side = (1 - level) / 2
    return [float(v) for v in np.quantile(values, [side, 1 - side])]
