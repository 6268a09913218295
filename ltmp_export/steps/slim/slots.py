"""Mixing patch tokens by shares that layers give them in ONNX, all images with the same slots."""

from __future__ import annotations

from dataclasses import replace

from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.linear import linear
from ltmp_export.graph.slots import Slots
from ltmp_export.steps.slim.step import Slim


def write(g: GraphBuilder, step: Slim, tokens: Slots) -> Slots:
    """Tokens [B, N, C] → [B, protected + M, C], see `Slim`."""
    x, protected = tokens.x, tokens.protected
    weight, bias = (g.weight(f"{step.name}.weight.0.{part}") for part in ("weight", "bias"))
    patches = g.slice(x, 1, protected) if protected else x
    normed = g.layer_norm(patches, weight, bias, step.eps)
    hidden = g.activation("gelu", linear(g, f"{step.name}.weight.1", normed))
    scores = linear(g, f"{step.name}.weight.3", hidden)  # [B, N, M]
    scores = g.op("Mul", scores, g.weight(f"{step.name}.scale"))
    shares = g.op("Softmax", g.op("Transpose", scores, perm=[0, 2, 1]), axis=-1)
    mixed = g.op("MatMul", shares, patches)  # [B, M, C]
    if protected:
        mixed = g.op("Concat", g.slice(x, 1, 0, protected), mixed, axis=1)
    return replace(tokens, number=protected + step.tokens, x=mixed, size=None)
