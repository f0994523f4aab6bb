"""Weights and configurations saved by version 0.1, under the names of today.

Then the text side and the gate were parts of the model itself, there was one kind of gate, and a picture could not show
nothing known.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")
NAMES = {
    "text_embedding.": "text.embeddings.",
    "text_encoder.": "text.encoder.",
    "pooler.": "text.pooler.",
    "hidden_norm.": "fusion.norm.",
    "gate.": "fusion.scalars.",
}
NEVER = -100.0  # logit of "shows nothing known" for weights that never learned it


def renamed(tensors: Mapping[str, Value], never: Value) -> dict[str, Value]:
    """Tensors, or what a header says of them, by the names of today; those of today come back as they are. never: for
    "nothing_logit"."""
    if not any(name.startswith("text_embedding.") for name in tensors):
        return dict(tensors)
    result = {"nothing_logit": never}
    for name, value in tensors.items():
        old = next((begin for begin in NAMES if name.startswith(begin)), "")
        result[NAMES.get(old, "") + name.removeprefix(old)] = value
    return result


def renamed_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict by the names of today."""
    return renamed(state, torch.tensor(NEVER))


def renamed_config(values: Any) -> Any:
    """A configuration's values by the names of today: "fusion" was "tsf" (the scalar gate) or "none"."""
    if not isinstance(values, dict) or values.get("fusion") not in ("tsf", "none"):
        return values
    gate = {"tsf": "scalar", "none": "none"}[values["fusion"]]
    return {k: v for k, v in values.items() if k != "fusion"} | {"gate": gate, "meeting": "place"}
