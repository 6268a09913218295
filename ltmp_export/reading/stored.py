"""Tensors that are still in their file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

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
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    storage_bytes: int
    read: Callable[[], torch.Tensor] = field(repr=False)

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)
