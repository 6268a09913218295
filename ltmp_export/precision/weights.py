"""How the weights that a file holds are read again, also those in int8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from ltmp_export.errors import ExportError
from ltmp_export.precision.formats import Precision


class Weights:
    """The initializers of a model by name, each read when it is asked for.

    `beside` are those that it only refers to, see `graph.detached.detach`.
    """

    def __init__(
        self, model: onnx.ModelProto, beside: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._beside = beside or {}

    def get(self, name: str) -> NDArray[Any] | None:
        """An array, or None if there is none of that name."""
        if name in self._beside:
            return self._beside[name]
        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_type == TensorProto.STRING:
            return None
        array: NDArray[Any] = numpy_helper.to_array(tensor)
        return array


def integer_weight(stored: Weights, path: str, precision: Precision) -> NDArray[np.float64]:
    """What a layer's int8 weights stand for, [out, in].

    Raises:
        ExportError: They, or a scale for each output, are missing.
    """
    integers, scale = stored.get(f"{path}.weight.int8"), stored.get(f"{path}.weight.scale")
    if integers is None or scale is None or scale.shape != integers.shape[1:]:
        raise ExportError(f"the file has no int8 weights of {path} with a scale for each output")
    step = precision.weight_scales(path)[""]
    weight: NDArray[np.float64] = (integers * (scale.astype(np.float64) / step)).T
    return weight
