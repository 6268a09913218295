"""The model that a file of lower precision states, as PyTorch runs it: its weights as stored."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import torch
from torch import nn

from ltmp_export.backbones import rounded
from ltmp_export.backbones.rounded import Stored
from ltmp_export.errors import ExportError
from ltmp_export.precision.formats import Precision
from ltmp_export.precision.weights import Weights, integer_weight


def model_of(model: onnx.ModelProto, plain: nn.Module, precision: Precision) -> nn.Module:
    """A copy of a checkpoint's model with what a file stores in its place.

    Args:
        model: The exported model.
        plain: timm's model of its checkpoint.
        precision: Of the file.

    Raises:
        ExportError: A weight is missing or has another shape.
    """
    found = copy.deepcopy(plain)
    arrays = Weights(model)
    state = found.state_dict()
    for name in state:
        array = arrays.get(name)
        if array is not None and array.dtype in (np.float16, np.float32):
            if array.shape != tuple(state[name].shape):
                raise ExportError(
                    f"the file's {name} has the shape {list(array.shape)} instead of "
                    f"{list(state[name].shape)}"
                )
            state[name] = torch.from_numpy(array.astype(np.float32))
    found.load_state_dict(state)

    def integers(path: str) -> Stored:
        weight = integer_weight(arrays, path, precision)
        return Stored(weight, arrays.get(f"{path}.bias"))

    def metric(path: str) -> Stored | None:
        weight = arrays.get(f"{path}.metric.weight")
        return None if weight is None else Stored(weight, arrays.get(f"{path}.metric.bias"))

    rounded.put_integers(found, precision, integers)
    if precision.protects:
        rounded.put_mean_keys(found, metric)
    return found
