"""Batches of pictures of about the same shape."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tag_core.errors import UnreadableInput
from tag_plugins_reid.aspect import TEMPLATES, aspect_group


class AspectGroups:
    """Batches of pictures of about the same shape, each resized to that shape by ``reid/aspect-resize``.

    Every picture belongs to the template whose width / height is nearest to its own, and every batch to one
    template; so little is distorted, and a batch still is one tensor. Sizes are read once, from the files' headers.

    Args:
        templates: width / height of each group; default: the 12 of the transform.
        drop_incomplete: leave out what does not fill a batch in this epoch; False makes smaller batches of it.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        seed: int,
        templates: list[float] | None = None,
        drop_incomplete: bool = True,
    ) -> None:
        ratios = TEMPLATES if templates is None else templates
        if not ratios or min(ratios) <= 0:
            raise ValueError(f"templates need to be above 0, and one at least; got {templates}")
        self.batch_size, self.seed, self.drop_incomplete = batch_size, seed, drop_incomplete
        with ThreadPoolExecutor() as pool:
            sizes = pool.map(lambda index: _size(dataset, index), range(len(dataset)))
            self.groups = [aspect_group(*size, ratios) for size in sizes]
        if drop_incomplete and max(map(self.groups.count, set(self.groups)), default=0) < batch_size:
            raise ValueError(
                f"no group of pictures of about one shape fills train.batch_size {batch_size}; make it smaller, or "
                "set drop_incomplete to false"
            )

    def batches(self, epoch: int) -> list[list[int]]:
        order = list(range(len(self.groups)))
        random.Random(f"{self.seed} {epoch}").shuffle(order)
        batches, begun = list[list[int]](), dict[int, list[int]]()
        for index in order:
            batch = begun.setdefault(self.groups[index], [])
            batch.append(index)
            if len(batch) == self.batch_size:
                batches.append(begun.pop(self.groups[index]))
        return batches if self.drop_incomplete else batches + list(begun.values())


def _size(dataset: Any, index: int) -> tuple[int, int]:
    """(height, width); of what cannot be read, which training will find out, any."""
    try:
        return dataset.size(index)  # type: ignore[no-any-return]
    except UnreadableInput:
        return 1, 1
    except AttributeError:
        raise ValueError("reid/aspect-groups needs a data set that knows the size of its pictures") from None
