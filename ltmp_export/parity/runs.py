"""In which batches images are run: each alone, at every size, and the largest reversed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ltmp_export.errors import InputError
from ltmp_export.images.inputs import batches


@dataclass(frozen=True)
class Run:
    """One pass over all images: batches of a size, the images in each as given or reversed."""

    size: int
    order: str = "given"

    def place(self, number: int, count: int) -> tuple[int, NDArray[np.int64], int]:
        """Where image `number` of `count` is run: which batch, the images in it, its row."""
        which, row = divmod(number, self.size)
        index = batches(count, self.size)[which]
        if self.order == "given":
            return which, index, row
        return which, index[::-1], self.size - 1 - row


ALONE = Run(1)


def runs(batch_sizes: Sequence[int], reverse: bool = True) -> tuple[Run, ...]:
    """Every image alone first, then at each size, then at the largest in another order.

    Args:
        batch_sizes: Images in a batch.
        reverse: Whether that last run is one of them.

    Raises:
        InputError: A size is below 1 or there twice.
    """
    if not batch_sizes or min(batch_sizes) < 1:
        raise InputError(f"batch sizes {list(batch_sizes)}; every one must be at least 1")
    if len(set(batch_sizes)) < len(batch_sizes):
        raise InputError(f"batch sizes {list(batch_sizes)}: one is there twice")
    several = [Run(size) for size in batch_sizes if size > 1]
    largest = [Run(max(batch_sizes), "reversed")] if several and reverse else []
    return (ALONE, *several, *largest)
