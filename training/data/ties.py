"""What hangs together: things that share a key, directly or over others."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def tied(keys: Sequence[Iterable[Hashable]]) -> list[int]:
    """keys of each thing -> the number of its group, from 0 in the order of the groups' first things."""
    node: dict[Hashable, int] = {}  # things come first, then their keys
    ties = [(i, node.setdefault(key, len(keys) + len(node))) for i, own in enumerate(keys) for key in own]
    things, shared = np.array(ties, dtype=int).reshape(-1, 2).T
    size = len(keys) + len(node)
    groups = connected_components(coo_array((np.ones(len(ties)), (things, shared)), (size, size)), directed=False)[1]
    numbers: dict[int, int] = {}
    return [numbers.setdefault(group, len(numbers)) for group in groups[: len(keys)].tolist()]
