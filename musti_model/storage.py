"""Weights in 8 or 4 bits, for models that travel with code; they are read back as float32.

Under the name of a tensor stand ``<name>.int8`` (a scale for each row) or ``<name>.int4`` (two values a byte, a scale
for each 32 in a row) and ``<name>.scale``; small tensors stay in half precision. A file may hold any mixture, plain
tensors too.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

GROUP = 32  # values in a row that share a 4-bit scale
LEAST = 4096  # elements below which a tensor is not worth it


def compressed(state: dict[str, Tensor], four_bits: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """A state dict in fewer bits.

    Args:
        state: float tensors (others are kept as they are). four_bits: beginnings of the names of matrices whose rows
            are to take 4 bits a value.
    """
    result = {}
    for name, value in state.items():
        if not value.is_floating_point():
            result[name] = value
        elif value.ndim < 2 or value.numel() < LEAST:
            result[name] = value.half()
        elif name.startswith(four_bits) and value.ndim == 2 and value.shape[1] % GROUP == 0:
            result[f"{name}.int4"], result[f"{name}.scale"] = _to_4_bits(value.float())
        else:
            result[f"{name}.int8"], result[f"{name}.scale"] = _to_8_bits(value.float())
    return {n: v.contiguous() for n, v in result.items()}


def restored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``compressed``: floats as float32, others as they are. Raises ValueError for a scale that does not
    fit its tensor."""
    result = {}
    for name, value in state.items():
        base, _, kind = name.rpartition(".")
        if kind == "scale" and (f"{base}.int8" in state or f"{base}.int4" in state):
            continue
        if kind in ("int8", "int4") and f"{base}.scale" in state:
            scale = state[f"{base}.scale"].float()
            result[base] = _from_8_bits(base, value, scale) if kind == "int8" else _from_4_bits(base, value, scale)
        else:
            result[name] = value.float() if value.is_floating_point() else value
    return result


def restored_header(found: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, tuple[tuple[int, ...], str]]:
    """What ``restored`` would make of a file, by its header alone: {name: (shape, kind)} of safetensors -> the same.
    What does not fit is left as it is."""
    result = dict(found)
    for name, (shape, kind) in found.items():
        base, _, how = name.rpartition(".")
        scale = found.get(f"{base}.scale", ((), ""))
        if how == "int8" and kind == "I8" and scale == (shape[:1], "F16"):
            full = shape
        elif how == "int4" and kind == "U8" and len(shape) == 2 and scale == ((shape[0], shape[1] * 2 // GROUP), "F16"):
            full = (shape[0], shape[1] * 2)
        else:
            continue
        del result[name], result[f"{base}.scale"]
        result[base] = (full, "F16")
    return result


def _to_8_bits(value: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric, by the largest value of each row (first axis)."""
    rows = value.flatten(1)
    scale = (rows.abs().amax(1) / 127).half()
    steps = rows / scale.float().clamp(min=1e-12)[:, None]
    return steps.round().clamp(-127, 127).to(torch.int8).view(value.shape), scale


def _from_8_bits(name: str, value: Tensor, scale: Tensor) -> Tensor:
    if scale.shape != value.shape[:1] or value.dtype != torch.int8:
        raise ValueError(f"{name} is stored in 8 bits, but its scale has another shape")
    return value.float() * scale.view(-1, *[1] * (value.ndim - 1))


def _to_4_bits(value: Tensor) -> tuple[Tensor, Tensor]:
    """-8 to 7, by the value of each group that is farthest from 0, which becomes -8; so values that were stored so
    before come out unchanged."""
    groups = value.view(len(value), -1, GROUP)
    farthest = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    scale = (farthest / -8).half()
    divisor = torch.where(scale == 0, 1.0, scale.float())
    steps = ((groups / divisor).round().clamp(-8, 7) + 8).to(torch.uint8).view(len(value), -1)
    return steps[:, ::2] | (steps[:, 1::2] << 4), scale[..., 0]


def _from_4_bits(name: str, value: Tensor, scale: Tensor) -> Tensor:
    if value.dtype != torch.uint8 or value.ndim != 2 or scale.shape != (len(value), value.shape[1] * 2 // GROUP):
        raise ValueError(f"{name} is stored in 4 bits, but its scale has another shape")
    steps = torch.stack([value & 15, value >> 4], dim=2).view(len(value), -1, GROUP).float() - 8
    return (steps * scale[..., None]).view(len(value), -1)
