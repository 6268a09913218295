"""From a checkpoint and images to int8 linear layers: balanced channels, weights, scales.

A linear layer y = x Wᵀ + b becomes integer products of x with one scale and W with a scale per
output. What is lost is lost mostly in x, where a few channels are far larger than the others; so
what LayerNorm gives is balanced first, which changes nothing of what the model computes:

    x' = (x - shift) / stretch        folded into LayerNorm's weight and bias (RMSNorm: no shift)
    W' = W * stretch,  b' = b + W shift

(SmoothQuant, arXiv 2211.10438, and its shifted form, arXiv 2304.09145). Of each balanced x' the
range is measured on images, and clipped to where the mean square error is least.

onnxruntime's own quantiser writes static scales as pairs of QuantizeLinear and DequantizeLinear.
Where a bias follows it does not join these to integer products, and they are slower than float32
(384 → 1536 on 100 tokens: 1.6 ms, float32 0.54, what `layers` writes 0.2); so the form is our own,
and that one is for other runtimes (`Precision.int8_form`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers import RmsNorm
from torch import nn

from ltmp_export.calibration import protection
from ltmp_export.calibration.observed import Given, observe
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.distributed.cluster import HERE, Place
from ltmp_export.images.inputs import Images
from ltmp_export.plan.linears import Linear, rounded
from ltmp_export.precision.formats import (
    DYNAMIC,
    LEVELS,
    SMALLEST_RANGE,
    Activation,
    Precision,
    covering,
)
from ltmp_export.progress import Progress, silent

STRENGTH = 0.85  # of balancing: 1 gives all channels one range, 0 all columns of the weights
HEADROOM = 1.1  # of a range that is not clipped
_CLIPS = np.linspace(0.4, 1.0, 25)


def prepare(
    checkpoint: Checkpoint,
    images: Images,
    asked: Precision,
    progress: Progress = silent,
    place: Place = HERE,
) -> tuple[Checkpoint, Precision]:
    """Balance a checkpoint and measure the scales of its linear layers.

    Args:
        checkpoint: The checkpoint; it is not changed.
        images: What to measure on.
        asked: Scales and protection, with `auto` to protect what the images show to need it.
        progress: Called with a few words as each image begins.
        place: Where the images run.

    Returns:
        A checkpoint that computes the same and is easier to quantise, and `asked` with its layers.

    Raises:
        InputError: The images lead to numbers that are not finite.
    """
    asked = replace(asked, protected=asked.protected or asked.auto)
    given = observe(checkpoint, images, progress, place)
    linears = rounded(checkpoint.geometry)
    model, changed = balanced(checkpoint.model, linears, given)
    fine = {layer.path for layer in linears if layer.fine}
    layers = {
        path: _activation(seen, asked, path in fine) for path, seen in (given | changed).items()
    }  # in the order of the computation
    precision = replace(asked, layers=layers, calibration=images.described)
    prepared = replace(checkpoint, model=model)
    if asked.auto:
        deciding = [one.path for one in linears if one.fine and one.block is not None]
        coarse = {path: _activation((given | changed)[path], asked, False) for path in deciding}
        precision = protection.where_needed(prepared, precision, coarse, images, progress)
    return prepared, precision


def balanced(
    model: nn.Module, linears: Sequence[Linear], given: Mapping[str, Given]
) -> tuple[nn.Module, dict[str, Given]]:
    """A model that computes the same with balanced channels, and what the layers are given then."""
    model = copy.deepcopy(model)
    changed = {}
    for layer in linears:
        path, norm = layer.path, None if layer.norm is None else model.get_submodule(layer.norm)
        linear: Any = model.get_submodule(path)
        if path in given and isinstance(norm, (nn.LayerNorm, RmsNorm)):
            changed[path] = _balance(norm, linear, given[path])
    return model, changed


@torch.no_grad()
def _balance(norm: Any, linear: nn.Linear, given: Given) -> Given:
    """Change both in place, and say what the linear layer is given then."""
    shift, own = (given.low + given.high) / 2, getattr(norm, "bias", None)
    if linear.bias is None or own is None:  # which would have to take it up
        shift = np.zeros_like(shift)
    reach = np.maximum(np.maximum(given.high - shift, shift - given.low), SMALLEST_RANGE)
    largest = np.maximum(linear.weight.abs().amax(dim=0).numpy(), SMALLEST_RANGE)
    log = STRENGTH * np.log(reach) - (1 - STRENGTH) * np.log(largest)
    stretch = np.exp(log - log.mean()).astype(np.float32)
    stretch[norm.weight.numpy() == 0] = 1  # where it could not be told from the balanced weight
    moved, scaled = torch.from_numpy(shift), torch.from_numpy(stretch)
    if linear.bias is not None:
        linear.bias.add_(linear.weight @ moved)
    linear.weight.mul_(scaled)
    norm.weight.div_(scaled)
    if own is not None:
        own.sub_(moved).div_(scaled)
    return Given(*((x - shift) / stretch for x in (given.rows, given.low, given.high)))


def _activation(given: Given, asked: Precision, fine: bool) -> Activation:
    """How a layer's input is rounded; of a range that need not be clipped all of it counts."""
    terms = 2 if asked.protected and fine else 1
    if asked.scales == DYNAMIC:
        return Activation(None, terms=terms)
    low, high = min(0.0, float(given.low.min())), max(0.0, float(given.high.max()))
    if terms > 1:
        return covering(low * HEADROOM, high * HEADROOM, asked.qdq)._replace(terms=terms)
    if asked.qdq:
        ranges = [covering(low * clip, high * clip, symmetric=True) for clip in _CLIPS]
        return min(ranges, key=lambda one: _error(given.rows, one))
    high = min(
        (high * clip for clip in _CLIPS), key=lambda end: _error(given.rows, covering(low, end))
    )
    low = min(
        (low * clip for clip in _CLIPS), key=lambda end: _error(given.rows, covering(end, high))
    )
    return covering(low, high)


def _error(rows: NDArray[np.float32], tried: Activation) -> float:
    """The mean square error of rounding by a static scale."""
    scale, point = tried.steps()[0]
    integers = np.clip(np.rint(rows / np.float32(scale)), -point, LEVELS - point)
    return float(np.square(integers * np.float32(scale) - rows).mean())
