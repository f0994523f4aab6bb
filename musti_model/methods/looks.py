"""Where the model looked and what its gate did, seen in the one pass that answers: attention, Grad-CAM, gate."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..image_tower import ImageTokens
from ..model import MustiOutput
from ..question import Question
from ..results import Gate
from .contract import Method


@dataclass(frozen=True, eq=False)
class Look:
    """The pass that answers, watched. output: with internals; cams: {CNN branch: [rows, columns]}, Grad-CAM. Out of the
    graph, but for the output."""

    question: Question
    output: MustiOutput
    cams: dict[str, Tensor]


def look(question: Question) -> Look:
    """Answers the question with all internals. Gradients are on, also inside a caller's no_grad: without them Grad-CAM
    would silently be nothing."""
    model = question.model
    attention = {n: weights() for n, weights in question.attention.items()}
    with torch.inference_mode(False), torch.enable_grad():
        # From the feature maps on: the backbones have done their part already, and take none in the gradient.
        encoded = {
            n: t if t.feature_map is None else _from_features(question, n, t.feature_map)
            for n, t in question.encoded.items()
        }
        output = model.match_words(encoded, question.read, attention)
        maps = output.inside.feature_maps
        gradients = torch.autograd.grad(output.logits.sum(), list(maps.values())) if maps else ()
    cams = {n: grad_cam(_first(m), _first(g)) for (n, m), g in zip(maps.items(), gradients, strict=True)}
    return Look(question, output, cams)


def _from_features(question: Question, branch: str, feature_map: Tensor) -> ImageTokens:
    model = question.model
    return model.tower(branch).to_tokens(feature_map.detach().clone(), model.fusion.norm, model.grid_norm)


def words_attended(looked: Look) -> dict[str, list[float]]:
    """{branch: attention of the text encoder's summary token to each word, last layer, mean of the heads}."""
    attention = looked.output.inside.text_attention
    return {n: to_words(class_word_attention(_first(a)), looked.question.pieces) for n, a in attention.items()}


def gates(looked: Look) -> dict[str, Gate]:
    """{branch: its gate}; empty without one."""
    inside, pieces = looked.output.inside, looked.question.pieces
    result = {}
    for name, met in inside.met.items():
        meeting, grid = None, inside.grid[name]
        if met.weights is not None and grid is not None:
            meeting = places_met(_first(met.weights), pieces).reshape(len(pieces), *grid).numpy()
        result[name] = Gate(to_words(_first(inside.shares[name]), pieces), meeting)
    return result


def gate_maps(looked: Look) -> dict[str, Tensor]:
    """{branch: [rows, columns]}: of a gate that opens word by word, the sum over the words of opening times meeting; of
    the scalar gate, the share of each position laid on the places that it met."""
    inside, by_word, result = looked.output.inside, looked.question.model.fusion.by_word, {}
    for name, gate in gates(looked).items():
        weights, grid = inside.met[name].weights, inside.grid[name]
        if gate.meeting is None or weights is None or grid is None:
            continue
        if by_word:
            result[name] = torch.einsum("w,wij->ij", torch.tensor(gate.words), torch.from_numpy(gate.meeting))
        else:
            result[name] = to_places(_first(inside.shares[name]), _first(weights), grid)
    return result


def rollouts(looked: Look) -> dict[str, Tensor]:
    """{ViT branch: [rows, columns]}."""
    return {n: rollout(a).reshape(grid) for n, a, grid in _image_attention(looked)}


def heads(looked: Look) -> dict[str, Tensor]:
    """{ViT branch: [heads, rows, columns]}, last layer."""
    return {n: class_attention(a).reshape(-1, *grid) for n, a, grid in _image_attention(looked)}


def _image_attention(looked: Look) -> Iterator[tuple[str, Tensor, tuple[int, int]]]:
    """(ViT branch, its attention [layers, heads, 1 + places, 1 + places], rows and columns of the places)."""
    inside = looked.output.inside
    for name, attention in inside.image_attention.items():
        if (grid := inside.grid[name]) is not None:
            yield name, _first(attention), grid


# Pure functions on tensors; one example, no batch axis ----------------------------------------------------------------


def rollout(attention: Tensor) -> Tensor:
    """Attention rollout (Abnar & Zuidema 2020): how far the class token's attention reaches each place through all
    layers.

    Per layer the mean over the heads, half of it replaced by the identity for the residual connection, rows
    renormalised; later layers multiply from the left.

    Args:
        attention: [layers, heads, N, N], rows sum to 1, token 0 is the class token.

    Returns: [N - 1], the class token's row over the places, sums to at most 1.
    """
    n = attention.shape[-1]
    identity = torch.eye(n, dtype=attention.dtype, device=attention.device)
    total = identity
    for layer in attention.mean(1):
        mixed = 0.5 * layer + 0.5 * identity
        total = (mixed / mixed.sum(-1, keepdim=True)) @ total
    return total[0, 1:]


def class_attention(attention: Tensor) -> Tensor:
    """Last layer's attention from the class token to the places, by head: [layers, heads, N, N] -> [heads, N - 1]."""
    return attention[-1, :, 0, 1:]


def class_word_attention(attention: Tensor) -> Tensor:
    """[CLS]'s attention to each position in the text encoder's last layer, mean of the heads: [layers, heads, T, T] ->
    [T]."""
    return attention[-1].mean(0)[0]


def grad_cam(feature_map: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017, eq. 1-2): ReLU of the maps weighted by their mean gradient. [C, h, w] twice ->
    [h, w], >= 0."""
    weights = gradient.mean((1, 2), keepdim=True)
    return (weights * feature_map).sum(0).clamp(min=0)


def to_words(values: Tensor, words: list[tuple[int, ...]]) -> list[float]:
    """Mean over the pieces of each word. values: [T]; words: positions of their pieces. Special tokens and padding
    carry no score."""
    return [float(values[list(pieces)].mean()) for pieces in words]


def places_met(weights: Tensor, words: list[tuple[int, ...]]) -> Tensor:
    """How much of each place a word met: mean over its pieces, over the places alone. weights: [T, 1 + places] ->
    [words, places], rows sum to 1."""
    if not words:
        return weights[:0, 1:]
    met = torch.stack([weights[list(pieces), 1:].mean(0) for pieces in words])
    return met / met.sum(-1, keepdim=True).clamp(min=1e-12)


def to_places(values: Tensor, weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """Values of text positions -> places of the picture, by the weights with which each place was met there.

    Args:
        values: [T]. weights: [T, 1 + places] (see ``place_weights``). grid: (rows, columns).

    Returns: [rows, columns], a weighted mean over the positions that met the place.
    """
    met = weights[:, 1:]
    return (met.T @ values / met.sum(0).clamp(min=1e-12)).reshape(grid)


def _first(batch: Tensor) -> Tensor:
    """Row 0 of a batch of one, float32, on the CPU, out of the graph."""
    return batch[0].detach().float().cpu()


def _tensors(words: dict[str, list[float]]) -> dict[str, Tensor]:
    return {n: torch.tensor(values) for n, values in words.items()}


ATTENTION = Method("attention", "words", "one pass", "attention", False, lambda q: _tensors(words_attended(look(q))))
ROLLOUT = Method("rollout", "regions", "one pass", "attention", False, lambda q: rollouts(look(q)))
GRADCAM = Method("gradcam", "regions", "gradients", "activation", False, lambda q: look(q).cams)
GATE_WORDS = Method(
    "gate", "words", "one pass", "gate", False, lambda q: _tensors({n: g.words for n, g in gates(look(q)).items()})
)
GATE_REGIONS = Method("gate", "regions", "one pass", "gate", False, lambda q: gate_maps(look(q)))
