"""A timm model with what files of lower precision compute with in the place of its own layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ltmp_export.backbones import chosen
from ltmp_export.backbones.vit import eager
from ltmp_export.precision.eager import MeanKey, RoundedConv, RoundedLinear
from ltmp_export.precision.formats import Precision


class Stored(NamedTuple):
    """A layer's weight [out, in] and bias [out], None where it has none."""

    weight: NDArray[Any]
    bias: NDArray[Any] | None


def put_integers(model: nn.Module, precision: Precision, stored: Callable[[str], Stored]) -> None:
    """Put what rounds its inputs in the place of each int8 layer; `stored` is asked by its path."""
    for path, given in precision.layers.items():
        single = isinstance(model.get_submodule(path), nn.Conv2d)  # of single cells
        kind = RoundedConv if single else RoundedLinear
        weight, bias = stored(path)
        shown = _tensor(weight), None if bias is None else _tensor(bias)
        model.set_submodule(path, kind(*shown, given))


def put_mean_keys(model: nn.Module, stored: Callable[[str], Stored | None]) -> None:
    """Give the attention of each block a projection of its own for the metric of similarity.

    Args:
        model: Of any kind; only a ViT has such blocks.
        stored: Asked by the path of an attention; None where its keys are compared themselves.
    """
    if chosen.by_class(model) not in chosen.vits():
        return
    blocks: Any = model.blocks
    for index, block in enumerate(blocks):
        attn, path = eager.attends(block), f"blocks.{index}"
        found = stored(path if attn is block else f"{path}.attn")
        if found is not None:
            norm = getattr(attn, "k_norm", nn.Identity())
            heads = getattr(attn, "num_kv_heads", eager.maps(attn))
            bias = None if found.bias is None else _tensor(found.bias)
            attn.mean_key = MeanKey(_tensor(found.weight), bias, norm, heads)


def without_mean_keys(model: nn.Module) -> None:
    """Take these projections away again."""
    for module in model.modules():
        if hasattr(module, "mean_key"):
            del module.mean_key


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32, order="C"))
