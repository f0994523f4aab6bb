"""Gradient-weighted attention of words and of ViT places, gradient times activation of CNN places: two passes there and
back."""

from contextlib import ExitStack

import torch
from torch import Tensor

from ..attention import Backbone, attention_gradients, has_class_token
from ..question import Question
from .contract import Method, by_branch


@torch.enable_grad()
def of_words(question: Question) -> dict[str, Tensor]:
    """Gradient-weighted attention of the text encoder as it reads with the picture (Chefer et al. 2021, eq. 5-6), for
    the vote minus against it. What the passage was read as without the picture stays as it is. -> {branch: [words]},
    shares of the branch's vote (``shares_of_vote``)."""
    model = question.model
    with attention_gradients(model.text.encoder.layer) as layers:
        votes = model.match_words(question.encoded, question.read).votes[0]
        # The branches are rows of one batch, and none depends on another's; without a gate all hang on one row.
        rows = layers(votes.sum()) if model.fusion.gated else None
        passes = [_row(rows, k) if rows else _row(layers(vote), 0) for k, vote in enumerate(votes)]
    start = torch.zeros(question.mask.shape[1], device=votes.device)
    start[0] = 1
    columns = []
    for vote, pairs in zip(votes, passes, strict=True):
        values = relevance(pairs, start)
        columns.append(shares_of_vote(torch.stack([values[list(pieces)].sum() for pieces in question.pieces]), vote))
    return by_branch(question, torch.stack(columns, dim=1))


@torch.enable_grad()
def of_regions(question: Question) -> dict[str, Tensor]:
    """ViT: gradient-weighted attention (Chefer et al. 2021), for the vote minus against it. CNN: gradient times
    activation at each place (HiResCAM, Draelos & Carin 2020, eq. 3), signed. -> {branch: [rows, columns]}, shares of
    the branch's vote (``shares_of_vote``)."""
    model, result = question.model, {}
    with ExitStack() as stack:
        vits = {n: stack.enter_context(attention_gradients(vit.blocks)) for n, vit in model.vits.items()}
        encoded = model.encode_images(question.images)
        votes = model.match_words(encoded, question.read).votes[0]
        total = votes.sum()  # a branch's picture has a part in its own vote alone
        for k, (name, image) in enumerate(encoded.items()):
            if image.grid is None:
                continue
            if name in vits:
                values = _places(_row(vits[name](total), 0), model.vits[name])
            elif image.feature_map is not None:
                (gradient,) = torch.autograd.grad(total, image.feature_map, retain_graph=True)
                values = (gradient * image.feature_map)[0].sum(0).flatten()
            else:  # a Swin has neither such attention nor a map of convolutions
                continue
            result[name] = shares_of_vote(values.reshape(image.grid), votes[k]).float().cpu()
    return result


def _places(pairs: list[tuple[Tensor, Tensor]], vit: Backbone) -> Tensor:
    start = torch.zeros(pairs[0][0].shape[-1], device=pairs[0][0].device)
    prefix = vit.num_prefix_tokens
    if has_class_token(vit):
        start[0] = 1.0
    else:  # the whole is the mean of the places
        start[prefix:] = 1 / (len(start) - prefix)
    return relevance(pairs, start)[prefix:]


def _row(layers: list[tuple[Tensor, Tensor]], row: int) -> list[tuple[Tensor, Tensor]]:
    """[rows, heads, N, N] twice a layer -> those of one row."""
    return [(attention[row], gradient[row]) for attention, gradient in layers]


def shares_of_vote(values: Tensor, vote: Tensor) -> Tensor:
    """Values without a unit, scaled until their absolute values add up to that of the vote: one scale for branches of
    different kinds."""
    return values.detach() * (vote.detach().abs() / values.detach().abs().sum().clamp(min=1e-12))


def relevance(layers: list[tuple[Tensor, Tensor]], start: Tensor) -> Tensor:
    """Relevance of the input tokens to an output, signed: the rule with the output's gradient minus the rule with its
    negative.

    Args:
        layers: (attention, its gradient) [heads, N, N] each, first layer first. start: [N], weights of the last layer's
            tokens in the output, none below 0.

    Returns: [N].
    """
    signed = torch.zeros_like(start)
    for sign in (1.0, -1.0):
        total = torch.eye(len(start), dtype=start.dtype, device=start.device)
        for attention, gradient in layers:
            total = total + (sign * attention * gradient).clamp(min=0).mean(0) @ total
        signed += sign * (start @ total - start)  # without the identity: only what attention carried
    return signed


OF_WORDS = Method("relevance", "words", "gradients", "share of the vote", True, of_words)
OF_REGIONS = Method("relevance", "regions", "gradients", "share of the vote", True, of_regions)
