"""What a file's int8 layers were given for one image, read from its named tensors.

Rounding to integers is a decision, like merging: it is read from the file, and the reference is
made to take the same one. The names are written by `layers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from ltmp_export.plan.linears import KEPT, LEFT, Linear
from ltmp_export.precision.eager import Taken
from ltmp_export.precision.formats import (
    INTEGERS,
    LEVELS,
    MIDDLE,
    SCALE,
    TERMS,
    ZERO,
    Activation,
    Precision,
)

FLOAT, INT8, UINT8 = map(int, (TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8))


def names(precision: Precision, linears: Iterable[Linear] = ()) -> dict[str, int]:
    """Names and element types of the tensors that tell what int8 layers are given.

    Args:
        precision: Of the file.
        linears: The model's layers, where not all are called as in a ViT.
    """
    found = {}
    known = {layer.path: layer for layer in linears}
    for path, given in precision.layers.items():
        name = known.get(path, Linear(path, 0, 0, "")).written
        for suffix in TERMS[: given.terms]:
            found[f"{name}{INTEGERS}{suffix}"] = INT8 if precision.qdq else UINT8
        if given.scale is None:
            found |= {f"{name}{SCALE}": FLOAT, f"{name}{ZERO}": UINT8}
    return found


def read(
    precision: Precision,
    linears: Iterable[Linear],
    tensors: Mapping[str, NDArray[Any]],
    image: int,
    entering: Sequence[NDArray[np.int64]],
    leaving: Sequence[NDArray[np.int64]],
    static: bool,
    pooled: NDArray[np.int64] | None = None,
) -> dict[str, Taken]:
    """What each layer was given for one image, by path.

    Args:
        precision: Which layers round what they are given.
        linears: All that may.
        tensors: The tapped tensors of the batch.
        image: Row of the batch.
        entering: For each block [B] tokens before its steps.
        leaving: For each block [B] tokens after them.
        static: Whether every image has the same number of rows, the first of them living.
        pooled: [B] tokens behind all blocks, where these are known.

    Raises:
        ValueError: A tensor has too few rows.
    """
    found = {}
    for layer in linears:
        given = precision.layers.get(layer.path)
        if given is None:
            continue
        if layer.rows == LEFT:
            if pooled is None:
                continue
            counts = pooled
        elif layer.block is None:
            counts = np.ones(len(entering[0]), np.int64)
        elif layer.block >= len(leaving):
            continue  # decisions of the block before are none
        else:
            counts = (leaving if layer.rows == KEPT else entering)[layer.block]
        found[layer.path] = _taken(given, tensors, layer.written, image, counts, static)
    return found


def _taken(
    given: Activation,
    tensors: Mapping[str, NDArray[Any]],
    name: str,
    image: int,
    counts: NDArray[np.int64],
    static: bool,
) -> Taken:
    first, *others = (_unsigned(tensors[f"{name}{INTEGERS}{s}"]) for s in TERMS[: given.terms])
    rows = first.reshape(-1, first.shape[-1])
    per_image = len(rows) // len(counts)
    start = image * per_image if static else int(counts[:image].sum())
    place = slice(start, start + int(counts[image]))
    if len(rows) < place.stop or (not static and len(rows) != counts.sum()):
        raise ValueError(f"{name}{INTEGERS} has {len(rows)} rows for counts of {counts.sum()}")
    if given.scale is None:
        scale, zero = (tensors[f"{name}{suffix}"] for suffix in (SCALE, ZERO))
        if scale.size != 1 or zero.size != 1:
            raise ValueError(f"{name}: a scale of shape {scale.shape}; expected one number")
        given = given._replace(scale=float(scale.item()), zero_point=int(zero.item()))
        if not 0 < scale.item() < np.inf:
            raise ValueError(f"{name}{SCALE} is {scale.item():.3g}; expected a number above 0")
    (step, point), *more = given.steps()
    values = (rows[place] - point) * step
    low, high = -point * step, (LEVELS - point) * step
    for rest, (step, point) in zip(others, more, strict=True):
        values += (rest.reshape(-1, rest.shape[-1])[place] - point) * step
        low, high = low - point * step, high + (LEVELS - point) * step
    return Taken(values, step, low, high)


def _unsigned(integers: NDArray[Any]) -> NDArray[np.float64]:
    """Integers of 0 to 255, as scales and zero points count them."""
    return integers.astype(np.float64) + (MIDDLE if integers.dtype == np.int8 else 0)
