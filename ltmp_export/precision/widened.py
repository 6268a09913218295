"""A model in float64 that takes little more memory than in float32: each weight when it is used.

A copy of a large model would take twice its weights beside them. So the large weights stay where
they are, shared with the model, and are cast each time one is read, which is a few percent of what
is then computed with it.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

WHOLE = 2**28  # bytes in the wide type up to which a model is copied as a whole
LARGE = 2**16  # elements from which a weight is cast when it is used


class _Cast(nn.Module):
    """What stands before a weight."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, weight: Tensor) -> Tensor:
        """The same in the wide type."""
        return weight.to(self.dtype)


def widened(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a model that computes in another type; it shares large weights with the model.

    Args:
        model: It stays as it is, and must stay as it is while the copy is used.
        dtype: Of floats.
    """
    weights = list(model.parameters())
    if sum(weight.numel() for weight in weights) * dtype.itemsize <= WHOLE:
        return copy.deepcopy(model).to(dtype)
    shared = [weight for weight in weights if weight.numel() >= LARGE]
    memo: dict[int, Any] = {id(weight): weight for weight in shared}
    found = copy.deepcopy(model, memo)
    kept = {*map(id, shared)}
    for module in list(found.modules()):
        own = list(module.named_parameters(recurse=False))
        for tensor in (*(weight for _, weight in own), *module.buffers(recurse=False)):
            if id(tensor) not in kept and tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
        for name, weight in own:
            if id(weight) in kept:
                parametrize.register_parametrization(module, name, _Cast(dtype), unsafe=True)
    return found
