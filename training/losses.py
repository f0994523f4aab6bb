"""The losses of the project."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FocalLoss(nn.Module):
    """Alpha-balanced focal loss: ``-alpha_t (1 - p_t)^gamma log p_t`` (Lin et al. 2017, eq. 5), mean over the batch.

    alpha weighs YES and 1 - alpha weighs NO. With normalization "published" every sample gets the same weight alpha and the sum is divided
    by the sum of the weights, as in the published code: alpha cancels.

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
