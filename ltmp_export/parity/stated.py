"""The model that a file of lower precision states, as PyTorch runs it: its weights as stored."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ltmp_export.backbones import chosen
from ltmp_export.backbones.vit import eager
from ltmp_export.errors import ExportError
from ltmp_export.precision.eager import MeanKey, RoundedConv, RoundedLinear
from ltmp_export.precision.formats import Activation, Precision
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
    for path, given in precision.layers.items():
        single = isinstance(found.get_submodule(path), nn.Conv2d)  # of single cells
        kind = RoundedConv if single else RoundedLinear
        found.set_submodule(path, _integer_linear(kind, arrays, path, given))
    if precision.protects and chosen.by_class(found) in chosen.vits():
        blocks: Any = found.blocks
        for index, block in enumerate(blocks):
            attn, path = eager.attends(block), f"blocks.{index}"
            path = path if attn is block else f"{path}.attn"
            weight, bias = (arrays.get(f"{path}.metric.{part}") for part in ("weight", "bias"))
            if weight is not None:
                norm = getattr(attn, "k_norm", nn.Identity())
                heads = getattr(attn, "num_kv_heads", eager.maps(attn))
                attn.mean_key = MeanKey(_tensor(weight), _optional(bias), norm, heads)
    return found


def _integer_linear(
    kind: type[RoundedLinear], stored: Weights, path: str, given: Activation
) -> RoundedLinear:
    weight = integer_weight(stored, path, given).astype(np.float32)
    return kind(_tensor(weight), _optional(stored.get(f"{path}.bias")), given)


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array.copy())


def _optional(array: NDArray[Any] | None) -> Tensor | None:
    return None if array is None else _tensor(array)
