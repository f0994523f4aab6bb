"""Batched picture augmentation on tensors, on the processor or on a GPU: seeded by an explicit generator of the same
device.

Nothing here asks the device for a number, so that a GPU is never waited for.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from musti_model.config import ImageBranchConfig

LEVELS = (0.18, 0.27, 0.4, 0.6)  # resolutions, as shares of the view's side, through which some pictures go
ITEMS = 4  # most pictures in a collage


def _uniform(shape: int | tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def _some(n: int, share: float, generator: Generator) -> Tensor:
    """[n, 1, 1, 1] bool, True for that share of the pictures."""
    return _uniform((n, 1, 1, 1), 0, 1, generator) < share


def _resized(x: Tensor, size: int, mode: str = "bilinear") -> Tensor:
    """[B, C, h, w] -> [B, C, size, size], smoothed first where it gets smaller."""
    if mode == "nearest":
        return F.interpolate(x, size=(size, size), mode=mode)
    return F.interpolate(x, size=(size, size), mode=mode, align_corners=False, antialias=size < x.shape[-1])


def _centres(size: int, device: torch.device) -> Tensor:
    """[size] centres of the pixels, 0..1."""
    return (torch.arange(size, device=device) + 0.5) / size


# -- views of one picture --


def random_view(pixels: Tensor, size: int, generator: Generator, strength: float = 1.0) -> Tensor:
    """One random view of each picture: crop, stretch, turn, mirror, resolution, light, colour, age, print.

    Args:
        pixels: uint8 [B, S, S, 3], on the generator's device.
        size: side of the view, px.
        generator: source of randomness.
        strength: 0..1, how far all may go; the end of a training wants milder views.

    Returns: float32 [B, 3, size, size] in 0..1.

    The sources differ in resolution, colour and age, and none of them says what a picture shows: so many go through a
    smaller size, a quarter lose their colour (half of these turn sepia), and some get the low contrast, the dark
    corners, the grain or the dots of an old print.
    """
    x = _crops(pixels, size, generator, strength)
    x = _coarsened(x, generator, 0.6 * strength)
    x = _coloured(x, generator, strength)
    return _aged(x, generator, strength).clamp_(0, 1)


def _crops(pixels: Tensor, size: int, generator: Generator, strength: float) -> Tensor:
    """One affine map a picture. Scale > 1 zooms out (edges are mirrored)."""
    x = pixels.permute(0, 3, 1, 2).float().div_(255)
    if x.shape[-1] > 1.6 * size:
        x = _resized(x, round(1.3 * size))  # or the map below would skip pixels
    n = len(x)
    area = _uniform(n, 1 - 0.7 * strength, 1.15, generator).sqrt()
    stretch = _uniform(n, -0.25 * strength, 0.25 * strength, generator).exp()
    sx, sy = area * stretch, area / stretch
    angle = _uniform(n, -0.2 * strength, 0.2 * strength, generator)
    flip = torch.where(_uniform(n, 0, 1, generator) < 0.5, -1.0, 1.0)
    tx = _uniform(n, -1, 1, generator) * (1 - sx).clamp(min=0)
    ty = _uniform(n, -1, 1, generator) * (1 - sy).clamp(min=0)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [torch.stack([sx * cos * flip, -sy * sin, tx], 1), torch.stack([sx * sin * flip, sy * cos, ty], 1)], 1
    )
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _coarsened(x: Tensor, generator: Generator, share: float) -> Tensor:
    """That share of the pictures through a smaller size and back; all sizes are made of all, and mixed."""
    size = x.shape[-1]
    u = _uniform((len(x), 1, 1, 1), 0, 1, generator)
    result = x
    for k, level in enumerate(LEVELS):
        low = _resized(x, max(4, round(level * size)))
        chosen = (u >= share * k / len(LEVELS)) & (u < share * (k + 1) / len(LEVELS))
        result = torch.where(chosen, _resized(low, size), result)
    return result


def _coloured(x: Tensor, generator: Generator, strength: float) -> Tensor:
    """Light, contrast, tint and strength of the colours; a quarter grey or sepia."""
    n = len(x)
    grey = x.mean(1, keepdim=True)
    colour = _uniform((n, 1, 1, 1), 1 - 0.5 * strength, 1 + 0.5 * strength, generator)
    old = _uniform((n, 1, 1, 1), 0, 1, generator)
    colour = torch.where(old < 0.25, 0.0, colour)
    tint = _uniform((n, 3, 1, 1), 0.85, 1.15, generator)
    brown = torch.tensor([1.12, 0.98, 0.76], device=x.device).view(1, 3, 1, 1) * _uniform(
        (n, 3, 1, 1), 0.95, 1.05, generator
    )
    tint = torch.where(old < 0.125, brown, torch.where(old < 0.25, 1.0, tint))
    x = grey + (x - grey) * colour
    contrast = _uniform((n, 1, 1, 1), 1 - 0.4 * strength, 1 + 0.4 * strength, generator)
    contrast = torch.where(_some(n, 0.12 * strength, generator), 0.5 * contrast, contrast)  # faded
    light = _uniform((n, 1, 1, 1), -0.15, 0.15, generator)
    mean = x.mean((1, 2, 3), keepdim=True)
    return ((x - mean) * contrast + mean + light).clamp_(0, 1) * tint


def _aged(x: Tensor, generator: Generator, strength: float) -> Tensor:
    """Dark corners, grain, and the dots of a print, each on a few pictures."""
    n, size = len(x), x.shape[-1]
    at = _centres(size, x.device)
    cx, cy = (_uniform((n, 1, 1, 1), 0.35, 0.65, generator) for _ in range(2))
    radius = (at.view(1, 1, 1, -1) - cx) ** 2 + (at.view(1, 1, -1, 1) - cy) ** 2
    dark = _uniform((n, 1, 1, 1), 0.4, 1.2, generator) * _some(n, 0.15 * strength, generator)
    x = x * (1 - dark * radius).clamp(min=0)
    grain = _uniform((n, 1, 1, 1), 0.02, 0.1, generator) * _some(n, 0.2 * strength, generator)
    x = x + grain * torch.randn((n, 1, size, size), generator=generator, device=x.device)
    # A screen of dots, turned: where the picture is darker than the screen, there is ink.
    pitch, turn = _uniform((n, 1, 1, 1), 0.2, 0.4, generator) * size, _uniform((n, 1, 1, 1), 0, 1.6, generator)
    u = at.view(1, 1, 1, -1) * turn.cos() + at.view(1, 1, -1, 1) * turn.sin()
    v = at.view(1, 1, -1, 1) * turn.cos() - at.view(1, 1, 1, -1) * turn.sin()
    screen = 0.5 + 0.25 * ((2 * torch.pi * pitch * u).cos() + (2 * torch.pi * pitch * v).cos())
    printed = 0.5 * x + 0.5 * torch.sigmoid(6 * (x - screen))
    return torch.where(_some(n, 0.06 * strength, generator), printed, x)


def plain_view(pixels: Tensor, size: int) -> Tensor:
    """The picture as the model sees it at inference: uint8 [B, S, S, 3] -> float32 [B, 3, size, size] in 0..1."""
    x = pixels.permute(0, 3, 1, 2).float().div_(255)
    return F.interpolate(x, size=(size, size), mode="bicubic", align_corners=False, antialias=True).clamp_(0, 1)


def branch_input(pixels: Tensor, branch: ImageBranchConfig) -> Tensor:
    """Pictures as a branch takes them: float32 [B, 3, S, S] in 0..1, of any size -> of the branch's size, mean and
    deviation, channels last in memory."""
    mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (branch.mean, branch.std))
    if pixels.shape[-1] != branch.image_size:
        pixels = F.interpolate(pixels, size=(branch.image_size, branch.image_size), mode="bilinear", antialias=True)
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


# -- several pictures in one --


@dataclass(frozen=True)
class Collages:
    """Pictures made of one to four pictures.

    pixels: float32 [B, 3, S, S] in 0..1; objects: int64 [B, 4], what each item shows, -1 where there are fewer; boxes:
    float32 [B, 4, 4], (top, left, bottom, right) of each item in 0..1, all 0 where there are fewer. A later item covers
    earlier ones: the box of a background is the whole frame, and ``box_places`` takes out what is pasted over it.
    """

    pixels: Tensor
    objects: Tensor
    boxes: Tensor


def collages(views: Tensor, labels: Tensor, generator: Generator) -> Collages:
    """As many collages as views: [B, 3, S, S] in 0..1 and their objects, int64 [B].

    Half are grids of four; the others two side by side or one above the other (each picture cropped to its middle), one
    pasted on another picture, or one pasted on nothing. Each view is the first item of one collage; the others are of
    different objects where the batch has them.
    """
    n = len(views)
    boxes, sources = _layouts(n, generator)
    chosen = _different(labels, generator)
    full = torch.arange(ITEMS, device=views.device)
    present = (boxes[..., 2] > boxes[..., 0]) & (full >= 0)
    canvas = nothing(n, views.shape[-1], generator)
    half = _resized(F.interpolate(views, scale_factor=0.5, mode="area"), views.shape[-1] // 2)
    for k in range(ITEMS):
        canvas = _pasted(canvas, half[chosen[:, k]], boxes[:, k], sources[:, k])
    return Collages(canvas, torch.where(present, labels[chosen], -1), boxes)


def _layouts(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Boxes of the items in the frame, and which part of its picture each shows: both [n, 4, 4] (top, left, bottom,
    right) in 0..1."""
    device = generator.device
    whole, none = [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]
    grid = [[0.0, 0.0, 0.5, 0.5], [0.0, 0.5, 0.5, 1.0], [0.5, 0.0, 1.0, 0.5], [0.5, 0.5, 1.0, 1.0]]
    beside = [[0.0, 0.0, 1.0, 0.5], [0.0, 0.5, 1.0, 1.0], none, none]
    above = [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], none, none]
    on_picture, on_nothing = [whole, none, none, none], [none] * 4  # the pasted box is put in below
    middles = [[0.0, 0.2, 1.0, 0.8], [0.2, 0.0, 0.8, 1.0]]
    kinds = torch.tensor([grid, beside, above, on_picture, on_nothing], device=device)
    parts = torch.tensor([[whole] * 4, [middles[0]] * 4, [middles[1]] * 4, [whole] * 4, [whole] * 4], device=device)
    kind = torch.bucketize(_uniform(n, 0, 1, generator), torch.tensor([0.5, 0.62, 0.74, 0.88], device=device))
    boxes = kinds[kind]
    # On a picture the pasted one is at most half as wide and lies toward an edge, so that what it covers stays to be
    # seen.
    on_other = kind == 3
    scale = torch.where(on_other, _uniform(n, 0.35, 0.5, generator), _uniform(n, 0.35, 0.7, generator))
    u = _uniform((n, 2), 0, 1, generator)
    toward_edge = torch.where(u < 0.5, u**2, 1 - (1 - u) ** 2)
    start = torch.where(on_other[:, None], toward_edge, u) * (1 - scale)[:, None]
    pasted = torch.cat([start, start + scale[:, None]], dim=1)
    boxes[:, 0] = torch.where((kind == 4)[:, None], pasted, boxes[:, 0])
    boxes[:, 1] = torch.where(on_other[:, None], pasted, boxes[:, 1])
    return boxes, parts[kind]


def _different(labels: Tensor, generator: Generator) -> Tensor:
    """[B, 4] rows of the batch: each row once in the first column; beside it others, of different objects where there
    are any."""
    n = len(labels)
    chosen = [torch.randperm(n, generator=generator, device=labels.device)]
    score = torch.rand((n, n), generator=generator, device=labels.device)
    for _ in range(ITEMS - 1):
        # each object that is there already counts against its kind
        score = score - 10.0 * (labels[None, :] == labels[chosen[-1]][:, None])
        # and the picture itself a little more
        score = score.scatter_add(1, chosen[-1][:, None], torch.full((n, 1), -1.0, device=labels.device))
        chosen.append(score.argmax(1))
    return torch.stack(chosen, dim=1)


def _pasted(canvas: Tensor, pictures: Tensor, boxes: Tensor, sources: Tensor) -> Tensor:
    """``sources`` of the pictures [B, 3, s, s] drawn into ``boxes`` of the canvas [B, 3, S, S]; a pixel belongs where
    its centre lies."""
    at = _centres(canvas.shape[-1], canvas.device)
    inside, grids = [], []
    for axis in (0, 1):  # y, x
        low, high = boxes[:, axis, None], boxes[:, axis + 2, None]
        inside.append((at >= low) & (at < high))
        share = (at - low) / (high - low).clamp(min=1e-6)
        first, last = sources[:, axis, None], sources[:, axis + 2, None]
        grids.append((2 * (first + share * (last - first)) - 1).clamp(-2, 2))
    n, size = inside[0].shape
    grid = torch.stack([grids[1][:, None, :].expand(n, size, size), grids[0][:, :, None].expand(n, size, size)], dim=3)
    drawn = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return torch.where((inside[0][:, :, None] & inside[1][:, None, :])[:, None], drawn, canvas)


def box_places(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """The places of a grid (rows, columns) whose centres lie in each item's box, less those that a later item covers.

    Args:
        boxes: [B, items, 4] (top, left, bottom, right) in 0..1, in the order in which the items were drawn.

    Returns: bool [B, items, rows * columns], raster order. Top and left edges belong to a box, bottom and right ones do
        not.
    """
    rows, columns = (_centres(count, boxes.device) for count in grid)
    top, left, bottom, right = (boxes[..., k, None] for k in range(4))
    inside = ((rows >= top) & (rows < bottom))[..., :, None] & ((columns >= left) & (columns < right))[..., None, :]
    inside = inside.flatten(2)
    count = inside.shape[1]
    for k in range(count - 1, 0, -1):
        inside[:, :k] &= ~inside[:, k : k + 1]
    return inside


# -- pictures of nothing --


def nothing(count: int, size: int, generator: Generator, pages: Tensor | None = None) -> Tensor:
    """Pictures that show no object: plain colours, gradients, noise, clouds, stripes and checks, paper, and pages of
    text.

    Args:
        pages: uint8 [N, S, S, 3] on the generator's device, as ``text_pages`` makes them; None: no text.

    Returns: float32 [count, 3, size, size] in 0..1; the kinds come in equal numbers (pages three times) and random
        order.
    """
    makers = [_plain, _plain, _linear, _radial, _noise, _clouds, _stripes, _paper]
    each = -(-count // (len(makers) + (3 if pages is not None else 0)))
    made = [maker(each, size, generator) for maker in makers]
    if pages is not None:
        made.append(_page_crops(pages, 3 * each, size, generator))
    x = torch.cat(made)
    return x[torch.randperm(len(x), generator=generator, device=x.device)[:count]].clamp_(0, 1)


def _colours(n: int, generator: Generator) -> Tensor:
    """[n, 3, 1, 1]: any colour; about a third of them grey, a fifth white or black."""
    colour = _uniform((n, 3, 1, 1), 0, 1, generator)
    colour = torch.where(_some(n, 0.35, generator), colour[:, :1], colour)
    extreme = (_some(n, 0.5, generator)).float().expand(n, 3, 1, 1)
    return torch.where(_some(n, 0.2, generator), extreme, colour)


def _plain(n: int, size: int, generator: Generator) -> Tensor:
    white = _some(n, 0.35, generator)
    colour = torch.where(
        white, 1 - 0.06 * _uniform((n, 3, 1, 1), 0, 1, generator) * _some(n, 0.6, generator), _colours(n, generator)
    )
    speckle = _uniform((n, 1, 1, 1), 0, 0.03, generator) * _some(n, 0.4, generator)
    return colour + speckle * torch.randn((n, 3, size, size), generator=generator, device=generator.device)


def _between(weight: Tensor, generator: Generator) -> Tensor:
    """Weights [n, 1, S, S] in 0..1 -> a mixture of two colours a picture."""
    a, b = _colours(len(weight), generator), _colours(len(weight), generator)
    return a + (b - a) * weight


def _linear(n: int, size: int, generator: Generator) -> Tensor:
    at = _centres(size, generator.device) - 0.5
    turn = _uniform((n, 1, 1, 1), 0, 2 * torch.pi, generator)
    ramp = at.view(1, 1, 1, -1) * turn.cos() + at.view(1, 1, -1, 1) * turn.sin()
    return _between((0.5 + _uniform((n, 1, 1, 1), 0.5, 3, generator) * ramp).clamp(0, 1), generator)


def _radial(n: int, size: int, generator: Generator) -> Tensor:
    at = _centres(size, generator.device)
    cy, cx = (_uniform((n, 1, 1, 1), 0, 1, generator) for _ in range(2))
    radius = ((at.view(1, 1, 1, -1) - cx) ** 2 + (at.view(1, 1, -1, 1) - cy) ** 2).sqrt()
    return _between((_uniform((n, 1, 1, 1), 0.6, 3, generator) * radius).clamp(0, 1), generator)


def _noise(n: int, size: int, generator: Generator) -> Tensor:
    """White noise of one to sixteen pixels a grain, grey or coloured, around a colour."""
    grain = torch.randn((n, 3, size, size), generator=generator, device=generator.device)
    grain = torch.where(_some(n, 0.4, generator), grain[:, :1], grain)
    u = _uniform((n, 1, 1, 1), 0, 1, generator)
    x = grain
    for k, coarse in enumerate((2, 4, 8, 16)):
        cells = max(2, size // coarse)
        corner = grain[:, :, :cells, :cells]
        for part, mode in ((0, "nearest"), (1, "bilinear")):
            step = 0.2 + 0.8 * (2 * k + part) / 8
            x = torch.where((u >= step) & (u < step + 0.1), _resized(corner, size, mode), x)
    return _colours(n, generator) + x * _uniform((n, 1, 1, 1), 0.05, 0.5, generator)


def _cloud(n: int, size: int, generator: Generator) -> Tensor:
    """[n, 1, S, S] in 0..1: smooth noise of several sizes at once."""
    total = torch.zeros((n, 1, size, size), device=generator.device)
    fall = _uniform((n, 1, 1, 1), 0.3, 0.9, generator)
    for octave, cells in enumerate((2, 4, 8, 16, 32)):
        low = torch.randn((n, 1, min(cells, size), min(cells, size)), generator=generator, device=generator.device)
        total = total + fall**octave * F.interpolate(low, size=(size, size), mode="bicubic", align_corners=False)
    return torch.sigmoid(_uniform((n, 1, 1, 1), 0.7, 2.5, generator) * total)


def _clouds(n: int, size: int, generator: Generator) -> Tensor:
    return _between(_cloud(n, size, generator), generator)


def _stripes(n: int, size: int, generator: Generator) -> Tensor:
    """Waves or bars in any direction; half of them crossed: checks, dots."""
    at = _centres(size, generator.device)
    turn = torch.where(_some(n, 0.5, generator), 0.0, _uniform((n, 1, 1, 1), 0, torch.pi, generator))
    u = at.view(1, 1, 1, -1) * turn.cos() + at.view(1, 1, -1, 1) * turn.sin()
    v = at.view(1, 1, -1, 1) * turn.cos() - at.view(1, 1, 1, -1) * turn.sin()
    often = _uniform((n, 1, 1, 1), 0.4, 3.5, generator).exp() * 2 * torch.pi
    shift = _uniform((n, 1, 1, 1), 0, 6.3, generator)
    wave, other = (often * u + shift).sin(), (often * v).sin()
    wave = torch.where(_some(n, 0.5, generator), wave * other, wave)
    bars = torch.sigmoid(wave * 20)
    return _between(torch.where(_some(n, 0.6, generator), bars, 0.5 + 0.5 * wave), generator)


def _paper(n: int, size: int, generator: Generator) -> Tensor:
    """Old paper: a light warm colour, stains, fibres, dark edges."""
    base = torch.tensor([0.93, 0.88, 0.76], device=generator.device).view(1, 3, 1, 1)
    base = base * _uniform((n, 1, 1, 1), 0.6, 1.05, generator) + 0.08 * (_uniform((n, 3, 1, 1), 0, 1, generator) - 0.5)
    stains = (_cloud(n, size, generator) - 0.5) * _uniform((n, 1, 1, 1), 0, 0.3, generator)
    fibres = torch.randn((n, 1, size, size), generator=generator, device=generator.device) * _uniform(
        (n, 1, 1, 1), 0, 0.06, generator
    )
    at = _centres(size, generator.device)
    edge = torch.minimum(at, 1 - at)
    dark = torch.exp(-edge.view(1, 1, 1, -1) * 30) + torch.exp(-edge.view(1, 1, -1, 1) * 30)
    return base + stains + fibres - dark * _uniform((n, 1, 1, 1), -0.1, 0.4, generator)


def _page_crops(pages: Tensor, n: int, size: int, generator: Generator) -> Tensor:
    """Stretches of pages: cropped, mirrored, turned a little or a quarter; a few in negative, some on another
    colour."""
    rows = (_uniform(n, 0, 1, generator) * len(pages)).long().clamp(max=len(pages) - 1)
    x = pages[rows].permute(0, 3, 1, 2).float().div_(255)
    scale = _uniform(n, 0.3, 1.1, generator)
    quarter = (_uniform(n, 0, 1, generator) < 0.2) * (torch.pi / 2)
    turn = _uniform(n, -0.15, 0.15, generator) + quarter
    flip = torch.where(_uniform(n, 0, 1, generator) < 0.25, -1.0, 1.0)
    tx, ty = ((1 - scale).clamp(min=0) * _uniform(n, -1, 1, generator) for _ in range(2))
    cos, sin = turn.cos() * scale, turn.sin() * scale
    theta = torch.stack([torch.stack([cos * flip, -sin, tx], 1), torch.stack([sin * flip, cos, ty], 1)], 1)
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    x = torch.where(_some(n, 0.08, generator), 1 - x, x)
    x = torch.where(_some(n, 0.3, generator), x.mean(1, keepdim=True).expand_as(x), x)
    return x * torch.where(_some(n, 0.15, generator), 0.4 + 0.6 * _colours(n, generator), 1.0)
