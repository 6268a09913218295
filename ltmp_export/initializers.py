"""How a file holds weights: rounded to int8 where its precision says so, and read again."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from ltmp_export.errors import ExportError
from ltmp_export.precision import Activation

WEIGHT_LEVELS = 127


def quantised(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a weight to int8.

    Args:
        weight: [out, in].

    Returns:
        Integers [in, out] of -127 to 127 and their scale [out].
    """
    scale = np.abs(weight).max(axis=1) / np.float32(WEIGHT_LEVELS)
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    return np.ascontiguousarray(np.rint(weight / scale[:, None]).astype(np.int8).T), scale


class Weights:
    """The initializers of a model by name, each read when it is asked for."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def get(self, name: str) -> NDArray[Any] | None:
        """An array, or None if there is none of that name."""
        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_type == TensorProto.STRING:
            return None
        array: NDArray[Any] = numpy_helper.to_array(tensor)
        return array


def integer_weight(stored: Weights, path: str, given: Activation) -> NDArray[np.float64]:
    """What a layer's int8 weights stand for, [out, in].

    Raises:
        ExportError: They, or a scale for each output, are missing.
    """
    integers, scale = stored.get(f"{path}.weight.int8"), stored.get(f"{path}.weight.scale")
    if integers is None or scale is None or scale.shape != integers.shape[1:]:
        raise ExportError(f"the file has no int8 weights of {path} with a scale for each output")
    step = 1.0 if given.scale is None else given.scale
    weight: NDArray[np.float64] = (integers * (scale.astype(np.float64) / step)).T
    return weight
