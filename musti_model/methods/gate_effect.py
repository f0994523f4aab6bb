"""What the gate changed in an answer: integrated gradients along the path from gate shut to gate as learned."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..fusion import Words
from ..image_tower import ImageTokens
from ..question import Question
from ..results import GateEffect
from .contract import Method

NODES = (3, 8, 16, 32, 64)  # points on the path; more only where fewer miss TOLERANCE
TOLERANCE = 0.01
LEAST = 1e-4  # of the logit: changes below this are no more than the noise of float32
CHUNK = 8  # points run at once


def gate_effect(question: Question, branch: str) -> GateEffect:
    """The effect of one branch's gate on one pair.

    The path lets in what the gate lets in by a factor a from 0 (shut) to 1, ``norm(base(T) + a * g * through(m))``
    (``Fusion``); what each word met and how far its gate opens stay as they are. Along it the change at text position t
    is the gradient there times ``g_t * through(m_t)``. ``m_t`` is a weighted sum of the picture's tokens and
    ``through`` is linear, so each position's change falls apart into the patches' shares without a further assumption.
    The ends are float32, and so is what lies between them, unless few points in the caller's precision add up well
    enough.

    Raises: ValueError for a model without a gate.
    """
    followed = follow(question, branch)
    return _split(followed, question.pieces)


def gate_effects(question: Question) -> dict[str, GateEffect]:
    """{branch: effect of its gate}; empty without a gate."""
    return {n: gate_effect(question, n) for n in question.encoded} if question.model.fusion.gated else {}


@dataclass(frozen=True, eq=False)
class Followed:
    """A branch's gate followed from shut to learned. path; gradient: [T, H], mean of the vote's gradient along it, by
    what is let in; total: what opening the gate changed in the vote; error: see ``GateEffect``."""

    path: "_Path"
    gradient: Tensor
    total: float
    error: float


def follow(question: Question, branch: str) -> Followed:
    """Follows the gate, once for a question. Raises ValueError for a model without a gate."""
    if not question.model.fusion.gated:
        raise ValueError("These weights have no gate, so it has no effect.")
    return question.once(f"gate:{branch}", lambda: _follow(question, branch))


def _follow(question: Question, branch: str) -> Followed:
    device = question.mask.device.type
    rough = torch.is_autocast_enabled(device)
    tries = [(NODES[0], True)] * rough + [(nodes, False) for nodes in NODES]
    with torch.inference_mode(False), torch.enable_grad():
        with torch.autocast(device, enabled=False):
            path = _Path(question, branch)
            with torch.no_grad():
                ends = path.votes(torch.tensor([0.0, 1.0]))
        total = float(ends[1] - ends[0])
        for nodes, quick in tries:
            with torch.autocast(device, torch.get_autocast_dtype(device), enabled=quick):
                gradient = path.mean_gradient(nodes)
            error = abs(float((gradient * path.change).sum()) - total) / max(abs(total), LEAST)
            if error <= TOLERANCE:
                break
    return Followed(path, gradient, total, error)


class _Path:
    """One branch's text side with the gate opened by a factor."""

    def __init__(self, question: Question, branch: str) -> None:
        self.model = model = question.model
        read = question.read
        with torch.no_grad():
            tokens = question.encoded[branch].tokens.float()
            image = ImageTokens(tokens, question.encoded[branch].grid)
            self.words = Words(read.text.float(), read.mask, None if read.read is None else read.read.float())
            met = model.fusion.meet(image, self.words)
            self.grid, self.weights, self.opening = image.grid, met.weights, met.opening[0].float()
            self.added = model.fusion.added(met)  # [1, T, H]
            self.tokens = model.fusion.through(tokens[0])  # [N, H], as they are let in by a gate wide open
            self.base = model.fusion.base(self.words.text)
            self.vector = model.image_vector(image)
            self.slope = model.vote_slopes()[list(model.branches).index(branch)]

    @property
    def change(self) -> Tensor:
        """What the gate lets in, [T, H]."""
        return self.added[0]

    def votes(self, opened: Tensor, at: list[Tensor] | None = None) -> Tensor:
        """The branch's vote with the gate opened by each factor [K] -> [K]; ``at`` receives what the gate lets in, [K,
        T, H]."""
        added = opened.to(self.added.device).view(-1, 1, 1) * self.added
        if at is not None:
            at.append(added.requires_grad_())
        vectors = self.model.text_vectors_of(self.model.fusion.norm(self.base + added), self.words.mask)
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


def _split(followed: Followed, words: list[tuple[int, ...]]) -> GateEffect:
    path, gradient, total, error = followed.path, followed.gradient, followed.total, followed.error
    positions = (gradient * path.change).sum(-1)  # [T]
    by_word = [float(positions[list(pieces)].sum()) for pieces in words]
    rest = float(positions.sum()) - sum(by_word)
    if path.weights is None or path.grid is None:
        return GateEffect(by_word, rest, None, 0.0, None, total, error)
    # [T, N]: what each image token changed through each position.
    table = path.opening[:, None] * path.weights[0].to(gradient.dtype) * (gradient @ path.tokens.T)
    tokens = table.sum(0).detach().cpu()
    links = torch.stack([table[list(pieces), 1:].sum(0) for pieces in words]) if words else table[:0, 1:]
    through = links.detach().cpu().reshape(-1, *path.grid).numpy()
    return GateEffect(by_word, rest, tokens[1:].reshape(path.grid).numpy(), float(tokens[0]), through, total, error)


def _words(question: Question) -> dict[str, Tensor]:
    return {n: torch.tensor(e.words) for n, e in gate_effects(question).items()}


def _regions(question: Question) -> dict[str, Tensor]:
    return {n: torch.from_numpy(e.patches) for n, e in gate_effects(question).items() if e.patches is not None}


EFFECT_WORDS = Method("effect", "words", "gradients", "logit", True, _words)
EFFECT_REGIONS = Method("effect", "regions", "gradients", "logit", True, _regions)
