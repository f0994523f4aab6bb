"""What the gate changed in an answer: integrated gradients along the path from gate off to gate on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .image_tower import ImageTokens
from .evidence import Case

NODES = (8, 16, 32, 64)  # points on the path; more only where fewer miss TOLERANCE
TOLERANCE = 0.01
LEAST = 1e-4  # of the logit: changes below this are no more than the noise of float32
CHUNK = 8  # points run at once


@dataclass(frozen=True, eq=False)
class GateEffect:
    """What opening the gate changed in one branch's vote, in units of the logit; negative where the picture's part lowered it.

    words: aligned with ``Explanation.words``; rest: of positions that are no word read ([CLS], [SEP], padding). patches: [rows, columns], None
    where tokens have no place; whole: of the token that stands for the whole picture. links: [words, rows, columns], what each patch changed
    through each word, None without places. total: vote with the gate on minus vote with it off (I = 0), from two forward passes.

    The words and rest add up to total, and so do the patches and whole, but for error: their distance from it, as a share of it (0.01 is
    1 %; of 1e-4 where the total is smaller). Integrated gradients: Sundararajan et al. 2017, eq. 1, completeness.
    """

    words: list[float]
    rest: float
    patches: np.ndarray | None
    whole: float
    links: np.ndarray | None
    total: float
    error: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the links."""
        patches = None if self.patches is None else self.patches.tolist()
        return {"words": self.words, "rest": self.rest, "patches": patches, "whole": self.whole, "total": self.total, "error": self.error}


def gate_effect(case: Case, branch: str) -> GateEffect:
    """The effect of one branch's gate on one pair, in float32.

    The path is ``LayerNorm(a * w_image * I + w_text * T + b + T)``, a from 0 (``MustiModel.fuse`` without a picture) to 1. Along it the change at
    text position t is the gradient there times ``w_image * I_t``, and ``I_t`` is a weighted sum of the picture's tokens, so each position's
    change falls apart into the patches' shares without a further assumption.

    Raises: ValueError for a model without a gate.
    """
    if case.model.config.fusion != "tsf":
        raise ValueError("These weights have no gate, so it has no effect.")
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(case.mask.device.type, enabled=False):
        path = _Path(case, branch)
        ends = path.votes(torch.tensor([0.0, 1.0])).detach()
        total = float(ends[1] - ends[0])
        for nodes in NODES:
            gradient = path.mean_gradient(nodes)
            positions = (gradient * path.change).sum(-1)  # [T]
            error = abs(float(positions.sum()) - total) / max(abs(total), LEAST)
            if error <= TOLERANCE:
                break
    return _split(path, gradient, positions, case.words, total, error)


class _Path:
    """One branch's text side with the gate opened by a factor."""

    def __init__(self, case: Case, branch: str) -> None:
        self.model, self.mask = model, mask = case.model, case.mask
        image = case.encoded[branch]
        with torch.no_grad():
            # Tensors made in inference mode cannot take part in a graph; a copy can.
            self.tokens, self.grid = image.tokens.float().clone(), image.grid
            image = ImageTokens(self.tokens, self.grid)
            self.text = model.text_embedding(input_ids=case.input_ids)  # [1, T, H]
            met, self.weights = model.meet(image, mask)
            self.w_image = model.gate.weight[0, 0]
            self.change = (self.w_image * met)[0]  # [T, H]
            self.vector = model.image_vector(image)
            self.slope = model.vote_slopes()[list(model.branches).index(branch)]

    def votes(self, opened: Tensor, at: list[Tensor] | None = None) -> Tensor:
        """The branch's vote with the gate opened by each factor [K] -> [K]; ``at`` receives what the gate adds, [K, T, H]."""
        w_text, bias = self.model.gate.weight[0, 1], self.model.gate.bias
        added = opened.to(self.change.device).view(-1, 1, 1) * self.change
        if at is not None:
            at.append(added.requires_grad_())
        fused = self.model.hidden_norm(added + w_text * self.text + bias + self.text)
        vectors = self.model.pooler(self.model.encode_text(fused, self.mask.expand(len(opened), -1)))
        return F.cosine_similarity(vectors, self.vector, dim=-1) * self.slope

    def mean_gradient(self, nodes: int) -> Tensor:
        """Mean along the path of the vote's gradient at each position, by Gauss-Legendre's rule, [T, H]."""
        points, weights = np.polynomial.legendre.leggauss(nodes)
        mean = torch.zeros_like(self.change)
        for start in range(0, nodes, CHUNK):  # a large text encoder could not hold all points at once
            part = slice(start, start + CHUNK)
            added: list[Tensor] = []
            votes = self.votes(torch.tensor((points[part] + 1) / 2, dtype=torch.float32), added)
            (gradient,) = torch.autograd.grad(votes.sum(), added)
            share = torch.tensor(weights[part] / 2, dtype=torch.float32, device=gradient.device)
            mean += (share.view(-1, 1, 1) * gradient).sum(0)
        return mean


def _split(path: _Path, gradient: Tensor, positions: Tensor, words: list[tuple[int, ...]], total: float, error: float) -> GateEffect:
    by_word = [float(positions[list(pieces)].sum()) for pieces in words]
    rest = float(positions.sum()) - sum(by_word)
    if path.weights is None:
        return GateEffect(by_word, rest, None, 0.0, None, total, error)
    # [T, N]: what each image token changed through each position.
    table = path.weights[0].to(gradient.dtype) * (gradient @ (path.w_image * path.tokens[0]).T)
    tokens = table.sum(0).detach().cpu()
    links = torch.stack([table[list(pieces), 1:].sum(0) for pieces in words]) if words else table[:0, 1:]
    links = links.detach().cpu().reshape(-1, *path.grid).numpy()
    return GateEffect(by_word, rest, tokens[1:].reshape(path.grid).numpy(), float(tokens[0]), links, total, error)
