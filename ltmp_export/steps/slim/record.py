"""SiT's mixtures, as a file recorded them: it decides nothing, and mixes by shares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ltmp_export.graph import searched
from ltmp_export.steps.slim.step import Slim

TENSORS: dict[str, int] = {}


def mixing(step: Slim, model: ModelProto, scope: str) -> str | None:
    """The shares [B, M, N] that a file does not name."""
    return searched.behind(model, f"{step.name}.scale", "Softmax")


def shares(step: Slim, values: NDArray[Any], protected: int) -> NDArray[np.float64]:
    """[M, N] of each token the shares of the patch tokens before it."""
    return values.astype(np.float64)
