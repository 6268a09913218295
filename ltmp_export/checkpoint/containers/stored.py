"""Tensors that are still in their file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ltmp_export.checkpoint.containers.elements import BFLOAT16, FLOATS, ElementType

if TYPE_CHECKING:
    import torch


class DamagedError(Exception):
    """A file is not what it claims to be; the message says how, without the file's name."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: what it claims to be, and how to read it.

    Attributes:
        shape: As the file states it.
        dtype: Element type.
        storage_bytes: Bytes of the file that hold it, unpacked; other tensors may share them.
        read: Reads it; raises DamagedError where the file does not hold what it claims.
        first: Reads the bytes of its first element alone, without PyTorch; raises the same.
    """

    shape: tuple[int, ...]
    dtype: ElementType
    storage_bytes: int
    read: Callable[[], torch.Tensor] = field(repr=False)
    first: Callable[[], bytes] = field(repr=False)

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def number(self) -> float:
        """The first element of a tensor of floats.

        Raises:
            DamagedError: The file does not hold it.
            ValueError: These are no floats.
        """
        if self.dtype not in FLOATS:
            raise ValueError(f"{self.dtype} is no type of floats")
        content = self.first()
        if self.dtype == BFLOAT16:  # the upper half of a float32
            return float(np.frombuffer(b"\0\0" + content, "<f4")[0])
        return float(np.frombuffer(content, np.dtype(self.dtype.name).newbyteorder("<"))[0])
