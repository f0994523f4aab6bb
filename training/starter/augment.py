"""Batched picture augmentation on tensors: fast on few cores, seeded by an explicit generator."""

import torch
import torch.nn.functional as F


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def random_view(
    pixels: torch.Tensor, size: int, generator: torch.Generator, strength: float = 1.0
) -> torch.Tensor:
    """One random view of each picture: crop, stretch, turn, mirror, light, colour, resolution.

    Args:
        pixels: uint8 [B, S, S, 3].
        size: side of the view, px.
        generator: source of randomness.
        strength: 0..1, how far crops, stretch, turn and light may go; the end of a training wants milder views.

    Returns: float32 [B, 3, size, size] in 0..1.

    Resolution is lowered at random and single views lose their colour, because the sources differ in both and neither
    says what the picture shows.
    """
    x = pixels.permute(0, 3, 1, 2).float().div_(255)
    n = len(x)
    # Geometry: one affine map a picture. Scale > 1 zooms out (edges are mirrored).
    area = _uniform(n, 1 - 0.7 * strength, 1.15, generator).sqrt()
    stretch = _uniform(n, -0.25 * strength, 0.25 * strength, generator).exp()
    sx, sy = area * stretch, area / stretch
    angle = _uniform(n, -0.2 * strength, 0.2 * strength, generator)
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    tx = _uniform(n, -1, 1, generator) * (1 - sx).clamp(min=0)
    ty = _uniform(n, -1, 1, generator) * (1 - sy).clamp(min=0)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [torch.stack([sx * cos * flip, -sy * sin, tx], 1), torch.stack([sx * sin * flip, sy * cos, ty], 1)], 1
    )
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    # Resolution: some of the batch go through a smaller size.
    blurred = torch.rand(n, generator=generator) < 0.3 * strength
    small = int(_uniform(1, 0.4, 0.8, generator).item() * size)
    if blurred.any():
        low = F.interpolate(x[blurred], size=(small, small), mode="area")
        x[blurred] = F.interpolate(low, size=(size, size), mode="bilinear", align_corners=False)
    # Light and colour.
    grey = x.mean(1, keepdim=True)
    colour = _uniform(n, 1 - 0.5 * strength, 1 + 0.5 * strength, generator)
    colour[torch.rand(n, generator=generator) < 0.1] = 0.0
    x = grey + (x - grey) * colour.view(n, 1, 1, 1)
    tint = _uniform(3 * n, 0.85, 1.15, generator).view(n, 3, 1, 1)
    contrast = _uniform(n, 1 - 0.4 * strength, 1 + 0.4 * strength, generator).view(n, 1, 1, 1)
    light = _uniform(n, -0.15, 0.15, generator).view(n, 1, 1, 1)
    mean = x.mean((1, 2, 3), keepdim=True)
    return ((x - mean) * contrast * tint + mean + light).clamp_(0, 1)


def plain_view(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """The picture as the model sees it at inference: uint8 [B, S, S, 3] -> float32 [B, 3, size, size] in 0..1."""
    x = pixels.permute(0, 3, 1, 2).float().div_(255)
    return F.interpolate(x, size=(size, size), mode="bicubic", align_corners=False, antialias=True).clamp_(0, 1)


def mosaics(x: torch.Tensor, labels: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of four pictures each: [B, 3, S, S] and [B] -> [B, 3, S, S] and the labels of the quarters in raster order [B, 4]."""
    rows = torch.stack([torch.randperm(len(x), generator=generator) for _ in range(4)])
    small = F.interpolate(x, scale_factor=0.5, mode="area")
    top, bottom = (torch.cat([small[rows[i]], small[rows[i + 1]]], dim=3) for i in (0, 2))
    return torch.cat([top, bottom], dim=2), labels[rows].T


def quarters(labels: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Labels of the quarters [B, 4] -> of each place of a grid, in raster order [B, places]; a middle row or column goes to the later one."""
    rows, columns = ((torch.arange(n) >= n // 2).long() for n in grid)
    return labels[:, (2 * rows[:, None] + columns).flatten()]
