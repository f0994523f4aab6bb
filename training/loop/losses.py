"""The losses of the project."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FocalLoss(nn.Module):
    """Alpha-balanced focal loss: ``-alpha_t (1 - p_t)^gamma log p_t`` (Lin et al. 2017, eq. 5), mean over the batch.

    alpha weighs YES and 1 - alpha weighs NO. With normalization "published" every sample gets the same weight alpha and
    the sum is divided by the sum of the weights, as in the published code: alpha cancels.

    Args:
        gamma: >= 0, focusing; 0 gives weighted cross-entropy. alpha: 0..1, or None for no weights.
        normalization: "mean" or "published".

    Raises: ValueError for values out of range, and for alpha 0 under "published", whose weights would sum to 0.
    """

    def __init__(self, gamma: float = 2.0, alpha: float | None = 0.25, normalization: str = "mean") -> None:
        super().__init__()
        if gamma < 0 or (alpha is not None and not 0 <= alpha <= 1):
            raise ValueError("gamma is at least 0 and alpha is between 0 and 1.")
        if normalization not in ("mean", "published"):
            raise ValueError('normalization is "mean" or "published".')
        if normalization == "published" and alpha == 0:
            raise ValueError("The published normalisation divides by alpha; it cannot be 0.")
        self.gamma, self.alpha, self.normalization = gamma, alpha, normalization

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits [B], labels [B] in {0, 1} -> scalar."""
        labels = labels.to(logits.dtype)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        # 1 - p_t, exact near 0; the floor keeps the gradient of a broken power (gamma < 1) finite there.
        wrong = (-torch.expm1(-cross_entropy)).clamp(min=1e-12)
        loss = wrong**self.gamma * cross_entropy
        if self.normalization == "published":
            weight = torch.full_like(loss, 1.0 if self.alpha is None else self.alpha)
            return (weight * loss).sum() / weight.sum()
        if self.alpha is not None:
            loss = (self.alpha * labels + (1 - self.alpha) * (1 - labels)) * loss
        return loss.mean()


def gate_loss(opening: Tensor, labels: Tensor, other: float = 4.0, none: float = 1.0) -> Tensor:
    """What the gate of each word is taught: to open at words that name what the picture shows, and at no others.
    Cross-entropy of the opening.

    Each kind of word counts as its weight, however many words of it there are: its mean times its weight, over the sum
    of the weights of the kinds that occur. Words that name another thing are few and the only ones that teach to
    select, so they weigh more.

    Args:
        opening: 0..1, [P, T]. labels: int [P, T]: 1 names what the picture shows, 0 names another thing, 2 names
            nothing, -100 left out.
        other, none: weights of words that name another thing and of words that name nothing, against 1 for those that
            name what is shown.

    Returns: a scalar, 0 where every position is left out. Raises ValueError for another label, and for negative
        weights.
    """
    if other < 0 or none < 0:
        raise ValueError("The weights of the gate's loss are at least 0.")
    kinds = {1: 1.0, 0: other, 2: none}
    known = torch.tensor([*kinds, -100], device=labels.device)
    if not torch.isin(labels, known).all():
        raise ValueError("The gate's labels are 1 (shown), 0 (another thing), 2 (nothing) and -100 (left out).")
    with torch.autocast(opening.device.type, enabled=False):  # half precision has no number near enough to 0 and 1
        losses = F.binary_cross_entropy(opening.float(), (labels == 1).float(), reduction="none")
    total, weights = losses.sum() * 0, 0.0
    for kind, weight in kinds.items():
        chosen = labels == kind
        if weight and chosen.any():
            total, weights = total + weight * losses[chosen].mean(), weights + weight
    return total / max(weights, 1e-12)
