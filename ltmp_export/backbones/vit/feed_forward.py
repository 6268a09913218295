"""The MLPs of transformer blocks in ONNX, plain and gated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltmp_export.graph.builder import Name
from ltmp_export.plan import mlps

if TYPE_CHECKING:
    from ltmp_export.backbones.vit.layers import Layers


def write(layers: Layers, path: str, x: Name, kind: str, act: str) -> Name:
    """Rows [T, C] → [T, C] of the layers' last, which may be float16.

    Args:
        layers: The model's.
        path: Of the MLP's weights.
        x: What the MLP is given.
        kind: One of `mlps.KINDS`.
        act: Activation.
    """
    if kind == mlps.NORMED:
        x = layers.norm(f"{path}.norm", x)
    first, *more, last = mlps.layers(kind, 1, 1)
    hidden = [layers.linear(f"{path}.{layer.leaf}", x) for layer in (first, *more)]
    with layers.half(f"{path}.act"):
        inner = _activated(layers, path, hidden, kind, act)
    if kind != mlps.NORMED:
        inner = layers.norm(f"{path}.norm", inner)
    return layers.linear(f"{path}.{last.leaf}", inner)


def _activated(layers: Layers, path: str, hidden: list[Name], kind: str, act: str) -> Name:
    """What the last layer is given, but for a norm."""
    g = layers.g
    if kind == mlps.PLAIN:
        return g.activation(act, g.cast(hidden[0]))
    if kind in (mlps.PACKED, mlps.PACKED_LAST):
        both, half = g.cast(hidden[0]), len(g.weights[f"{path}.fc1.weight"]) // 2
        hidden = [g.slice(both, 1, 0, half), g.slice(both, 1, half)]
    gate, value = reversed(hidden) if kind == mlps.PACKED_LAST else hidden
    return g.op("Mul", g.activation(act, g.cast(gate)), g.cast(value))
