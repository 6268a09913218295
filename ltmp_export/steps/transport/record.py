"""Sinkhorn's mixtures, as a file recorded them: it decides nothing, and mixes by shares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ltmp_export.graph import searched
from ltmp_export.steps.transport.step import Transport

TENSORS: dict[str, int] = {}


def mixing(step: Transport, model: ModelProto, scope: str) -> str | None:
    """The shares [B, M, N] that a file does not name."""
    return searched.behind(model, f"{step.name}.v", "Softmax")


def shares(step: Transport, values: NDArray[Any], protected: int) -> NDArray[np.float64]:
    """[M, N] of each token the shares of the patch tokens before it."""
    return values.astype(np.float64)
