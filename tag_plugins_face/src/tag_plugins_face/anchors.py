"""Anchors (prior boxes): squares of a few sizes around the centre of every cell of a map."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

Sizes = tuple[tuple[float, ...], ...]
"""Sides in pixels of a cell's anchors, by map."""


def cells(height: int, width: int, strides: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Rows and columns of each map of a picture: ceil(height / stride) and ceil(width / stride)."""
    return tuple((-(-height // stride), -(-width // stride)) for stride in strides)


def make_anchors(
    cells: Sequence[tuple[int, int]], sizes: Sizes, strides: Sequence[int], device: torch.device | None = None
) -> Tensor:
    """Anchors [A, 4] as centre x, centre y, width, height in pixels, by map, row, column and size.

    Divided by the width and height of the picture they are the prior boxes of the public implementations. Rows and
    columns may be symbolic, as they are while a graph is exported.

    Args:
        cells: rows and columns of each map.
        sizes: of each map.
        strides: pixels from a cell of each map to the next.
    """
    found = []
    for (rows, columns), of_map, stride in zip(cells, sizes, strides, strict=True):
        x = (torch.arange(columns, device=device) + 0.5) * stride
        y = (torch.arange(rows, device=device) + 0.5) * stride
        side = torch.tensor(of_map, dtype=torch.float32, device=device)
        shape = (rows, columns, len(of_map))
        values = [each.expand(shape) for each in (x[None, :, None], y[:, None, None], side, side)]
        found.append(torch.stack(values, -1).reshape(-1, 4))
    return torch.cat(found)


cached_anchors = lru_cache(maxsize=32)(make_anchors)
"""The same for tuples, made once for each size of picture; not to be changed."""
