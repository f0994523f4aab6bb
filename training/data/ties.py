"""What hangs together: things that share a key, directly or over others."""

from collections.abc import Hashable, Iterable, Sequence


def tied(keys: Sequence[Iterable[Hashable]]) -> list[int]:
    """keys of each thing -> the number of its group, from 0 in the order of the groups' first things."""
    parent = list(range(len(keys)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[Hashable, int] = {}
    for i, own in enumerate(keys):
        for key in own:
            parent[root(i)] = root(first.setdefault(key, i))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(keys))]
