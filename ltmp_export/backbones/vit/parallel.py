"""Blocks in ONNX whose attention and MLP run side by side, on the same tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltmp_export.graph.builder import Name
from ltmp_export.plan.parallel import JOINED

if TYPE_CHECKING:
    from ltmp_export.backbones.vit.layers import VitLayers


def attention_part(layers: VitLayers, path: str, rows: Name) -> Name:
    """Queries, keys and values [T, 3 * C] of what `in_proj` gave, [T, inner + 3 * C]."""
    g = layers.g
    with layers.half(f"{path}.in_proj"):
        return g.slice(g.cast(rows), 1, layers.vit.mlp_width)


def left(layers: VitLayers, path: str, mixed: Name, rows: Name) -> Name:
    """What attention mixed [T, C], and the MLP's part of `rows` → what both add, [T, C].

    Args:
        layers: The model's.
        path: Of the block.
        mixed: What attention mixed.
        rows: What `in_proj` gave.
    """
    g, vit = layers.g, layers.vit
    with layers.half(f"{path}.mlp.act"):
        hidden = g.slice(g.cast(rows), 1, 0, vit.mlp_width)
        if f"{path}.mlp_bias" in g.weights:
            hidden = g.op("Add", hidden, g.weight(f"{path}.mlp_bias"))
        inner = g.activation(vit.activation, hidden)
    if vit.parallel == JOINED:
        with layers.half(f"{path}.out_proj"):
            both = g.op("Concat", g.cast(mixed), g.cast(inner), axis=1)
        return layers.linear(f"{path}.out_proj", both)
    parts = ((f"{path}.attn_out_proj", mixed), (f"{path}.mlp_out_proj", inner))
    return g.op("Add", *(layers.exact(layers.linear(own, x)) for own, x in parts))
