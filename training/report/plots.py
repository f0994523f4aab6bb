"""Figures of an evaluation, as PNG. Drawn by hand: scikit-learn's displays know neither the threshold in use nor the
shares in the cells, and need pyplot."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from .metrics import reliability


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def draw_curve(kind: str, labels: np.ndarray, probabilities: np.ndarray, threshold: float, path: Path) -> None:
    """kind "pr" (precision over recall) or "roc"; the point is the threshold in use, the dotted line is chance. labels,
    probabilities: [N]."""
    figure, axes = _axes("Precision and recall" if kind == "pr" else "ROC")
    guess = probabilities >= threshold
    hit = float(guess[labels == 1].mean()) if labels.any() else 0.0
    if kind == "pr":
        precision, recall, _ = precision_recall_curve(labels, probabilities)
        axes.plot(recall, precision, color="tab:purple")
        axes.axhline(labels.mean(), color="grey", linestyle=":")
        axes.plot(hit, labels[guess].mean() if guess.any() else 1.0, "o", color="black")
        axes.set(xlabel="recall of YES", ylabel="precision of YES")
    else:
        false, true, _ = roc_curve(labels, probabilities)
        axes.plot(false, true, color="tab:purple")
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
        axes.plot(float(guess[labels == 0].mean()), hit, "o", color="black")
        axes.set(xlabel="share of NO taken for YES", ylabel="recall of YES")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    figure.savefig(path, dpi=100)


def draw_confusion(labels: np.ndarray, guess: np.ndarray, path: Path) -> None:
    """Rows: truth, columns: answer; numbers of pairs. labels, guess: 0/1 [N]."""
    figure, axes = _axes("Answers")
    counts = np.array([[int(((labels == t) & (guess == g)).sum()) for g in (0, 1)] for t in (0, 1)])
    axes.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Purples", vmin=0, vmax=1)
    for t in (0, 1):
        for g in (0, 1):
            share = counts[t, g] / max(counts[t].sum(), 1)
            axes.text(
                g,
                t,
                f"{counts[t, g]}\n{share:.0%}",
                ha="center",
                va="center",
                color="white" if share > 0.6 else "black",
            )
    axes.set_xticks([0, 1], ["NO", "YES"])
    axes.set_yticks([0, 1], ["NO", "YES"])
    axes.set(xlabel="answer", ylabel="truth")
    figure.savefig(path, dpi=100)


def draw_reliability(labels: np.ndarray, before: np.ndarray, after: np.ndarray, path: Path) -> None:
    """Share of YES over mean probability in ten bins, before and after the temperature. [N] each."""
    figure, axes = _axes("Reliability")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    for probabilities, colour, name in (
        (before, "tab:orange", "before"),
        (after, "tab:purple", "after the temperature"),
    ):
        rows = reliability(labels, probabilities)
        axes.plot([r[0] for r in rows], [r[1] for r in rows], "o-", color=colour, label=name)
    axes.set(xlabel="probability", ylabel="share of YES", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend()
    figure.savefig(path, dpi=100)
