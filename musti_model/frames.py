"""From the grids of places to the picture's frame, and the frame of a page."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def to_frame(values: Tensor, width: int, height: int) -> np.ndarray:
    """[h, w] -> float32 [height, width], bilinear. The model sees the whole picture squashed to a square, so stretching
    undoes it."""
    big = F.interpolate(values[None, None].float(), size=(height, width), mode="bilinear", align_corners=False)
    return big[0, 0].numpy()


def shrunk(picture: Image.Image, side: int) -> Image.Image:
    """A copy of a picture to look at that is at most ``side`` px wide and high; the picture itself where it is no
    larger. Raises ValueError for a side below 1."""
    if side < 1:
        raise ValueError(f"A picture is at least 1 px wide and high, not {side}.")
    shrink = side / max(picture.size)
    # The gap: of 48 megapixels in a fifth of the time, no pixel other by more than 5 of 255.
    return picture if shrink >= 1 else picture.resize([max(1, round(n * shrink)) for n in picture.size], reducing_gap=2)


class Maps(Mapping[str, np.ndarray]):
    """Maps by name, float32 [height, width] each, stretched to the picture's frame when asked for; kept as they were
    made, on their grids."""

    def __init__(self, grids: dict[str, Tensor], width: int, height: int) -> None:
        self.grids, self.width, self.height = grids, width, height

    def __getitem__(self, name: str) -> np.ndarray:
        return to_frame(self.grids[name], self.width, self.height)

    def __iter__(self) -> Iterator[str]:
        return iter(self.grids)

    def __len__(self) -> int:
        return len(self.grids)
