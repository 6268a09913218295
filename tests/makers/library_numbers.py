"""Numbers for the weights of other libraries' models: by name alone, so that fixtures need none."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

Arrays = dict[str, np.ndarray]
_SPREAD = {1: 0.2, 2: 0.25, 3: 0.5, 4: 0.15}  # by dimensions


def numbers(shapes: Mapping[str, Sequence[int]]) -> Arrays:
    """Float32 weights of these names and shapes; norms and layer scales are about one."""
    return {name: _array(name, tuple(shape)) for name, shape in shapes.items()}


def images(side: int, count: int = 2) -> np.ndarray:
    """Images as they go into a model, [count, 3, side, side]."""
    drawn = np.random.default_rng(5).normal(size=(count, 3, side, side))
    return drawn.astype(np.float32)


def _array(name: str, shape: tuple[int, ...]) -> np.ndarray:
    drawn = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    about_one = any(part in name for part in ("norm", "ln", "lambda", "gamma", "ls_", "gamma"))
    base = 1.0 if len(shape) == 1 and about_one and not name.endswith("bias") else 0.0
    return np.asarray(base + _SPREAD.get(len(shape), 0.2) * drawn, np.float32)
