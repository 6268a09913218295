"""A linear layer of a step's own weights in ONNX, whose weight is [outs, ins] as PyTorch has it."""

from __future__ import annotations

from ltmp_export.graph.builder import GraphBuilder, Name


def linear(g: GraphBuilder, name: str, x: Name) -> Name:
    """[..., ins] → [..., outs] by the weights `name.weight` and `name.bias`."""
    weight = g.op("Transpose", g.weight(f"{name}.weight"), perm=[1, 0])
    return g.op("Add", g.op("MatMul", x, weight), g.weight(f"{name}.bias"))
