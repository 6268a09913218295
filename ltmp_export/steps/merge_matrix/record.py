"""Merging by a constant matrix, as a file recorded it: it decides nothing, and mixes by shares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ltmp_export.steps.merge_matrix.step import MergeMatrix

TENSORS: dict[str, int] = {}


def mixing(step: MergeMatrix, model: ModelProto, scope: str) -> str | None:
    """The matrix [n, N], a weight of the file."""
    return f"{step.name}.merge_matrix"


def shares(step: MergeMatrix, values: NDArray[Any], protected: int) -> NDArray[np.float64]:
    """Its rows and columns behind the protected ones."""
    return values[protected:, protected:].astype(np.float64)
