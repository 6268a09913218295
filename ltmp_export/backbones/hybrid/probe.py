"""Tiny files of a network of convolutions and attention, on which opsets are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ltmp_export.backbones.hybrid.convolutions import Conv
from ltmp_export.backbones.hybrid.geometry import Hybrid
from ltmp_export.precision.formats import Precision
from ltmp_export.steps.merge_mask import stages

RATIO = 0.25


def models(
    opset: int,
    precision: Precision,
    net: Hybrid,
    norms: Mapping[str, int],
    lower: Callable[..., ModelProto],
) -> Iterator[ModelProto]:
    """One for any batch with soft masks, one for single images with hard ones.

    Args:
        opset: At which.
        precision: In which numbers.
        net: Geometry.
        norms: Channels of each LayerNorm, by path.
        lower: What writes them.
    """
    for hard, batch_size in ((False, None), (True, 1)):
        steps, start = stages.of_ratio(net, RATIO, hard)
        masks = {name: np.array(value, np.float32) for name, value in start.items()}
        yield lower(
            net, stages.plan_of(net, steps), _weights(net, norms) | masks, opset=opset,
            batch_size=batch_size, token_counts=True, precision=precision,
        )  # fmt: skip


def _weights(net: Hybrid, norms: Mapping[str, int]) -> dict[str, NDArray[np.float32]]:
    """Ones by timm's names."""
    convs = [conv for piece in net.pieces for conv in piece.all_convs()]
    shapes: dict[str, Sequence[int]] = {}
    for layer in net.linears():
        shapes |= {
            f"{layer.path}.weight": (layer.outs, layer.ins),
            f"{layer.path}.bias": [layer.outs],
        }
    shapes |= {f"{conv.path}.weight": _kernel(conv) for conv in convs}
    for path, width in {conv.norm: conv.outs for conv in convs if conv.norm}.items():
        shapes |= {f"{path}.running_{part}": (width,) for part in ("mean", "var")}
        norms = {**norms, path: width}
    for path, width in norms.items():
        shapes |= {f"{path}.{part}": (width,) for part in ("weight", "bias")}
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def _kernel(conv: Conv) -> tuple[int, ...]:
    """The shape of a convolution's weight."""
    return conv.outs, conv.ins // conv.groups, conv.kernel, conv.kernel
