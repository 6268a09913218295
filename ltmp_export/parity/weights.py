"""Are a file's weights the checkpoint's, as its precision stores them?

For int8 the checkpoint's channels are balanced first (`calibration.quantise`). By how much follows
from the LayerNorms of the file; whatever it is, the model stays the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from ltmp_export.backbones import chosen
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.plan.linears import Linear, rounded
from ltmp_export.plan.parallel import attention
from ltmp_export.plan.vit import Vit
from ltmp_export.precision.formats import INT8, TERMS, Precision
from ltmp_export.precision.integers import column_scales, of_keys
from ltmp_export.precision.weights import Weights, integer_weight

CLOSE = 1e-4  # relative: what was computed in float32 for the file is computed again here
HALF_A_STEP = 0.5 + 1e-2

Arrays: TypeAlias = Mapping[str, NDArray[Any]]


def other(
    model: onnx.ModelProto,
    checkpoint: Checkpoint,
    precision: Precision,
    beside: Arrays | None = None,
) -> str:
    """Which stored weight is not the checkpoint's of that name, or nothing.

    `beside` are weights that the model only refers to.
    """
    tensors = chosen.arrays(checkpoint.model) | dict(checkpoint.plan.parameters)
    wanted = {name: tensor.numpy() for name, tensor in tensors.items()}
    stored = Weights(model, beside)
    derived: dict[str, NDArray[Any]] = {}
    if precision.kind == INT8:
        derived = _balanced(stored, wanted, rounded(checkpoint.geometry))
    if precision.protects and isinstance(checkpoint.geometry, Vit):
        derived |= _metrics(wanted | derived, checkpoint.geometry)
    wanted |= derived
    differences = (
        _difference(stored, name, own, CLOSE if name in derived else 0.0)
        for name, own in wanted.items()
    )
    others = list(filter(None, differences))
    for path in precision.layers:
        own = wanted[f"{path}.weight"]
        others += _integers(stored, path, own.reshape(len(own), -1), precision)
    more = f"; {len(others)} weights in all" if others[1:] else ""
    return f"the file's {others[0]}{more}" if others else ""


def _balanced(stored: Weights, wanted: Arrays, linears: list[Linear]) -> dict[str, NDArray[Any]]:
    """What of the checkpoint's weights is balanced, as the file's LayerNorms are."""
    found: dict[str, NDArray[Any]] = {}
    for path, norm in ((layer.path, layer.norm) for layer in linears if layer.norm is not None):
        scaled, moved = f"{norm}.weight", f"{norm}.bias"
        weight, bias = stored.get(scaled), stored.get(moved)
        lacks = weight is None or (bias is None and moved in wanted)
        if weight is None or lacks or weight.shape != wanted[scaled].shape:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            stretch = wanted[scaled] / weight.astype(np.float64)
        stretch = np.where(np.isfinite(stretch) & (stretch > 0), stretch, 1.0)
        shift = np.zeros_like(stretch)
        found[scaled] = wanted[scaled] / stretch
        if bias is not None:
            if f"{path}.bias" in wanted:  # without one nothing can take a shift up
                shift = wanted[moved] - bias * stretch
            found[moved] = (wanted[moved] - shift) / stretch
        found[f"{path}.weight"] = wanted[f"{path}.weight"] * stretch
        if f"{path}.bias" in wanted:
            found[f"{path}.bias"] = wanted[f"{path}.bias"] + wanted[f"{path}.weight"] @ shift
    return found


def _metrics(wanted: Arrays, vit: Vit) -> dict[str, NDArray[Any]]:
    """The projections of the similarity metric, see `layers.Layers.mean_key`."""
    found = {}
    for block in range(vit.depth):
        path = attention(f"blocks.{block}", vit.parallel)
        for part, keys in of_keys(wanted, path, vit.key_width).items():
            keys = keys.astype(np.float64)
            if f"{path}.k_norm.weight" in wanted:
                own = keys.reshape(-1, keys.shape[-1])
            else:
                own = keys.mean(axis=0)
            found[f"{path}.metric.{part}"] = own if part == "weight" else own[:, 0]
    return found


def _difference(stored: Weights, name: str, own: NDArray[Any], close: float) -> str:
    """How a stored weight differs by more than `close`, relative to the largest, or nothing."""
    array = stored.get(name)
    if array is None or array.dtype not in (np.float16, np.float32):
        return ""
    if array.shape != own.shape:
        return f"{name} has the shape {list(array.shape)} instead of {list(own.shape)}"
    own = own.astype(array.dtype)
    if np.array_equal(array, own, equal_nan=True):
        return ""
    apart = float(np.abs(array.astype(np.float64) - own).max())
    if apart <= close * max(1.0, float(np.abs(own).max())):
        return ""
    return f"{name} differs from the checkpoint's by up to {apart:.2g}"


def _integers(stored: Weights, path: str, own: NDArray[Any], precision: Precision) -> Iterator[str]:
    """How int8 weights are not what `precision.integers.quantised` makes of a weight [out, in].

    Their scale must be the one that the weight leads to, whatever the file states, and each integer
    within half a step of the number it stands for.
    """
    name = f"{path}.weight"
    found = integer_weight(stored, path, precision)
    if found.shape != own.shape:
        yield f"{name}.int8 has the shape {list(found.shape)} instead of {list(own.shape)}"
        return
    columns = column_scales(own)
    for suffix, step in precision.weight_scales(path).items():
        scale = stored.get(f"{name}.scale{suffix}")
        off = np.inf
        if scale is not None and scale.shape == columns.shape:
            off = float(np.abs(scale / (columns * step) - 1).max())
        if not off <= CLOSE:
            yield f"{name}.scale{suffix} differs from the checkpoint's by up to {off:.2g} of it"
    products = 1 if precision.qdq else precision.layers[path].terms
    for suffix in TERMS[:products]:
        first, own_copy = stored.get(f"{name}.int8"), stored.get(f"{name}.int8{suffix}")
        if own_copy is None:  # a tool stores equal weights once
            continue
        if first is None or not np.array_equal(first, own_copy):
            yield f"{name}.int8{suffix} is another weight than {name}.int8"
    off = float((np.abs(found - own) / columns[:, None]).max())
    if not off <= HALF_A_STEP:
        yield f"{name}.int8 differs from the checkpoint's by up to {off:.2g} steps"
