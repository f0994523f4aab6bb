"""Where the model runs, and with what numbers it multiplies there."""

import torch

PRECISIONS = ("auto", "bf16", "float32")


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has units for bfloat16. A CPU without them computes it some ten times slower than float32."""
    if device.type == "cpu":
        return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return device.type == "cuda"


def choose_device(device: str | torch.device | None = None) -> tuple[torch.device, torch.dtype | None]:
    """Device (CUDA, MPS, CPU in this order) and autocast type: bfloat16 on CUDA and on CPUs that multiply it, else None
    (float32)."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    chosen = torch.device(device)
    return chosen, torch.bfloat16 if multiplies_bfloat16(chosen) else None


def autocast(device: torch.device, precision: str = "auto") -> torch.autocast:
    """A context of mixed precision. precision: "bf16", "float32", or "auto", bfloat16 where the device multiplies
    it."""
    wanted = multiplies_bfloat16(device) if precision == "auto" else precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)
