"""Scores: MUSTI's F1-macro, per language, the decision threshold, collapse."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import f1_score, roc_auc_score

COLLAPSE_SPREAD = 1e-3  # standard deviation of probabilities under which a model answers everything alike


def f1_macro(labels: np.ndarray, probabilities: np.ndarray, threshold: float = 0.5) -> float:
    """Mean of the F1 of NO and of YES over all pairs (MUSTI's metric). labels, probabilities: [N]."""
    return float(f1_score(labels, probabilities >= threshold, average="macro", labels=[0, 1], zero_division=0))


def best_threshold(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The threshold with the best F1-macro; of equals the middle one. Candidates lie halfway between neighbouring probabilities."""
    values = np.unique(probabilities)
    cuts = (values[1:] + values[:-1]) / 2 if len(values) > 1 else np.array([0.5])
    if len(cuts) > 500:
        cuts = np.quantile(cuts, np.linspace(0, 1, 500))
    scores = np.array([f1_macro(labels, probabilities, t) for t in cuts])
    best = cuts[scores >= scores.max() - 1e-12]
    return float(best[len(best) // 2])


def scores(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float, languages: Sequence[str] | None = None
) -> dict:
    """F1-macro, F1 a class, ROC-AUC, number of pairs; with ``languages`` [N] also F1-macro and AUC a language."""
    guess = probabilities >= threshold
    no, yes = f1_score(labels, guess, average=None, labels=[0, 1], zero_division=0)
    result = {
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
    """True when all probabilities are practically alike, as in a published notebook of MMM2024 that shows one P for every pair, or when one
    is no number."""
    return not np.isfinite(probabilities).all() or bool(np.std(probabilities) < COLLAPSE_SPREAD)
