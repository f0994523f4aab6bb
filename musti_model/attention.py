"""Attention maps of fused attention, recomputed from the projections: the forward pass itself stays untouched.

Fused kernels never hand out their weights. Hooks on the query and key projections keep those, and ``softmax(q k^T /
sqrt(d))`` gives the very weights that were used. Hooks are removed on error too, and keep only what the thread that set
them computes: others may run the same model meanwhile.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Backbone = Any  # modules of timm and transformers: to a type checker their attributes are anything's


def _weights(query: Tensor, key: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """query, key [B, heads, N, d] -> [B, heads, N, N]; mask [B, N], 0 = not attended to."""
    scores = query.float() @ key.float().transpose(-1, -2) * scale
    if mask is not None:
        scores = scores.masked_fill(mask[:, None, None, :] == 0, float("-inf"))
    return scores.softmax(-1)


def has_class_token(vit: Backbone) -> bool:
    """Whether the first token of a timm ViT stands for the whole picture; else all that comes before the places are
    registers."""
    return vit.cls_token is not None


def _keep(stack: ExitStack, module: nn.Module, store: list[Tensor]) -> None:
    asking = threading.get_ident()

    def keep(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
        if threading.get_ident() == asking:
            store.append(output.detach())

    stack.callback(module.register_forward_hook(keep).remove)


@contextmanager
def vit_attention(vits: dict[str, Backbone]) -> Iterator[dict[str, Callable[[], Tensor]]]:
    """Captures the attention of timm ViTs while the block runs.

    Yields {name: function}; after the forward pass each function returns [B, layers, heads, N, N] with N = 1 + places
    (registers are dropped and rows renormalised; without a class token row 0 is the mean of the places' rows).
    """
    with ExitStack() as stack:
        getters: dict[str, Callable[[], Tensor]] = {}
        for name, vit in vits.items():
            store: list[Tensor] = []
            for block in vit.blocks:
                _keep(stack, block.attn.qkv, store)
            getters[name] = partial(_vit_maps, vit, store)
        yield getters


def _vit_maps(vit: Backbone, store: list[Tensor]) -> Tensor:
    maps = []
    for block, qkv in zip(vit.blocks, store, strict=True):
        b, n, _ = qkv.shape
        q, k, _ = qkv.view(b, n, 3, block.attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        maps.append(_weights(q, k, block.attn.scale))
    weights = torch.stack(maps, dim=1)
    whole, places = has_class_token(vit), vit.num_prefix_tokens
    keep = [*range(int(whole)), *range(places, weights.shape[-1])]
    if len(keep) < weights.shape[-1]:  # registers
        weights = weights[..., keep, :][..., keep]
        weights = weights / weights.sum(-1, keepdim=True)
    if not whole:  # the whole picture is the mean of the places, and reads what they read
        weights = nn.functional.pad(torch.cat([weights.mean(-2, keepdim=True), weights], dim=-2), (1, 0))
    return weights


@contextmanager
def bert_attention(encoder: Backbone, mask: Tensor | None) -> Iterator[Callable[[], Tensor]]:
    """Captures the attention of a BERT encoder; the function yielded returns [B, layers, heads, T, T] after the
    pass."""
    queries: list[Tensor] = []
    keys: list[Tensor] = []
    with ExitStack() as stack:
        for layer in encoder.layer:
            _keep(stack, layer.attention.self.query, queries)
            _keep(stack, layer.attention.self.key, keys)
        yield lambda: _bert_maps(encoder, queries, keys, mask)


def _bert_maps(encoder: Backbone, queries: list[Tensor], keys: list[Tensor], mask: Tensor | None) -> Tensor:
    maps = []
    for layer, q, k in zip(encoder.layer, queries, keys, strict=True):
        heads, scale = layer.attention.self.num_attention_heads, layer.attention.self.scaling
        q, k = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k))
        maps.append(_weights(q, k, scale, mask))
    return torch.stack(maps, dim=1)


@contextmanager
def attention_gradients(blocks: Sequence[Backbone]) -> Iterator[Callable[[Tensor], list[tuple[Tensor, Tensor]]]]:
    """Captures the attention of ViT blocks or BERT layers together with its gradient during the one pass through them
    in which the block runs.

    Yields a function: output [] -> (attention, d output / d attention), [B, heads, N, N] each, first layer first. The
    gradient of the weights is that of their weighted sum times the values, so the fused kernels stay.
    """
    with ExitStack() as stack:
        kept = [_Capture(stack, block) for block in blocks]

        def of(output: Tensor) -> list[tuple[Tensor, Tensor]]:
            gradients = torch.autograd.grad(output, [c.mixed for c in kept if c.mixed is not None], retain_graph=True)
            return [c.pair(g) for c, g in zip(kept, gradients, strict=True)]

        yield of


class _Capture:
    """Queries, keys, values and their mixture in one block of either kind."""

    def __init__(self, stack: ExitStack, block: Backbone) -> None:
        asking = threading.get_ident()
        self.mixed: Tensor | None = None
        self.inputs: list[list[Tensor]] = []
        self.vit = hasattr(block, "attn")
        if self.vit:
            self.heads, self.scale = block.attn.num_heads, block.attn.scale
            projections, out = [block.attn.qkv], block.attn.proj
        else:
            attention = block.attention.self
            self.heads, self.scale = attention.num_attention_heads, attention.scaling
            projections, out = [attention.query, attention.key, attention.value], block.attention.output.dense
        for projection in projections:
            store: list[Tensor] = []
            _keep(stack, projection, store)
            self.inputs.append(store)

        def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            if threading.get_ident() != asking:
                return None
            self.mixed = inputs[0] if inputs[0].requires_grad else inputs[0].detach().requires_grad_()
            return (self.mixed,)

        stack.callback(out.register_forward_pre_hook(keep).remove)

    def pair(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """(attention, its gradient) from the gradient of the mixture [B, N, C]. Raises ValueError after more than one
        pass."""
        if any(len(store) != 1 for store in self.inputs):
            raise ValueError("Attention and its gradient are those of one pass through the layers.")
        projected = [store[0] for store in self.inputs]
        q, k, v = projected[0].chunk(3, dim=-1) if self.vit else projected
        q, k, v, g = (x.float().unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v, gradient))
        return _weights(q, k, self.scale), g @ v.transpose(-1, -2)
