"""The model that a file of lower precision states: its weights as stored, its inputs as rounded.

The reference computes with it where such a file is checked. So the check does not pretend that int8
is float32, and need not allow for what rounding to int8 does: under the same decisions and the same
integers both sides compute the same, and differ as two float32 files do.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ltmp_export.precision.formats import LEVELS, Activation, Precision, covering


class Taken(NamedTuple):
    """What an int8 layer was given for one image.

    Attributes:
        values: [n, in] float64, what the integers stand for.
        step: Of the finest integers; half of it is the largest error of rounding.
        low: The least that the integers can stand for.
        high: The most.
    """

    values: NDArray[np.float64]
    step: float
    low: float
    high: float


class RoundedLinear(nn.Module):
    """A linear layer of stored integer weights, that rounds what it is given, or is told how.

    Attributes:
        taken: What the file made of this input, or None to round by oneself.
        excess: By how many steps the last input was further from what was taken than half a step;
            negative where it was nearer.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, given: Activation) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.given = given
        self.taken: Taken | None = None
        self.excess = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        taken, self.excess = self.taken, 0.0
        if taken is None or taken.values.shape != (x[..., 0].numel(), x.shape[-1]):
            rounded = self.round(x)
            self.excess = 0.0 if taken is None else float("inf")
        else:
            rounded = torch.from_numpy(taken.values).to(x.dtype).reshape(x.shape)
            off = (x.clamp(taken.low, taken.high) - rounded).abs().max() if x.numel() else 0.0
            self.excess = float(off) / taken.step - 0.5
        y: Tensor = nn.functional.linear(rounded, self.weight, self.bias)
        return y

    def round(self, x: Tensor) -> Tensor:
        """What the file would make of an input if it computed as exactly."""
        given = self.given
        if given.scale is None:
            low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
            given = covering(low, high)._replace(terms=given.terms)
        total = torch.zeros_like(x)
        for step, point in given.steps():
            integers = ((x - total) / step).round().clamp(-point, LEVELS - point)
            total = total + integers * step
        return total


class RoundedConv(RoundedLinear):
    """The same of a convolution of single cells."""

    def forward(self, x: Tensor) -> Tensor:
        """[1, in, height, width] → [1, out, height, width]."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class MeanKey(nn.Module):
    """The projection of its own from which a file computes the metric of similarity."""

    def __init__(self, weight: Tensor, bias: Tensor | None, norm: nn.Module, heads: int) -> None:
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
        self.linear.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            self.linear.bias = nn.Parameter(bias, requires_grad=False)
        self.norm = norm
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """[N, C] → [N, D]."""
        keys: Tensor = self.linear(x)
        if isinstance(self.norm, nn.Identity):
            return keys
        mean: Tensor = self.norm(keys.reshape(len(x), self.heads, -1)).mean(1)
        return mean


def halved(model: nn.Module, precision: Precision) -> nn.Module:
    """Make a model round to float16 where a float16 file does: around its linear layers."""
    found = copy.deepcopy(model)
    for path, module in found.named_modules():
        rounds = "mean_key" not in path and path not in precision.kept
        if isinstance(module, (nn.Linear, nn.Conv2d)) and rounds:
            module.register_forward_pre_hook(lambda _, inputs: tuple(map(_half, inputs)))
            module.register_forward_hook(lambda _, inputs, output: _half(output))
    return found


def _half(x: Tensor) -> Tensor:
    return x.half().to(x.dtype)


def layers(model: nn.Module) -> dict[str, RoundedLinear]:
    """The int8 layers of a model, by path."""
    return {path: m for path, m in model.named_modules() if isinstance(m, RoundedLinear)}
