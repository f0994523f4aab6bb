"""Memory in training: the C library's, and what the backward pass needs."""

import ctypes
import sys
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def keep_freed_memory() -> None:
    """Tells glibc to keep freed blocks for the next tensor instead of giving them back to the system.

    By default every tensor of some megabytes is mapped anew, and filling its pages with zeros costs a training step on
    the CPU more than its arithmetic. Does nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped by itself
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap's free end is kept


def recompute_activations(model: nn.Module) -> None:
    """Gradient checkpointing (Chen et al. 2016): the layers of timm's backbones and of BERT keep only their inputs and
    are computed again in the backward pass. About a third more arithmetic for a fraction of the memory; the gradients
    are the same.

    Batch statistics that are being learned would count every batch twice: use it with ``batch_norm="frozen"``.
    """
    module: Any  # of timm or transformers
    for module in model.modules():
        if hasattr(module, "set_grad_checkpointing"):
            module.set_grad_checkpointing(True)
        elif hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
