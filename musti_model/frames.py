"""From the grids of places to the picture's frame."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def to_frame(values: Tensor, width: int, height: int) -> np.ndarray:
    """[h, w] -> float32 [height, width], bilinear. The model sees the whole picture squashed to a square, so stretching
    undoes it."""
    big = F.interpolate(values[None, None].float(), size=(height, width), mode="bilinear", align_corners=False)
    return big[0, 0].numpy()


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
