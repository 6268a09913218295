"""Differential attention (arXiv 2410.05258) in ONNX: one map of a head less λ times the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltmp_export.graph.builder import Name
from ltmp_export.graph.ragged import Layout
from ltmp_export.plan.difference import NORM_EPS, start

if TYPE_CHECKING:
    from ltmp_export.backbones.vit.layers import VitLayers


def projected(layers: VitLayers, qkv: Name, layout: Layout) -> tuple[Name, Name, Name]:
    """Rows [T, 3 * C] → queries and keys [B, 2 * H, N, D / 2], values [B, H, N, D]."""
    vit = layers.vit
    q, k, _ = layout.split_heads(qkv, vit.maps, vit.key_width)
    v = layout.split_heads(qkv, vit.heads, vit.head_width)[2]
    return q, k, v


def difference(layers: VitLayers, path: str, weights: Name, heads_axis: int) -> Name:
    """Maps [B, 2 * H, N, N] → [B, H, N, N], what values are mixed by."""
    g = layers.g
    first, second = (g.slice(weights, heads_axis, place, step=2) for place in (0, 1))
    return g.op("Sub", first, g.op("Mul", second, _lambda(layers, path)))


def behind(layers: VitLayers, path: str, mixed: Name) -> Name:
    """What a head mixed [B, H, N, D], normalised and scaled."""
    g = layers.g
    normed = g.rms_norm(layers.exact(mixed), g.weight(f"{path}.sub_norm.weight"), NORM_EPS)
    return g.op("Mul", normed, g.number(1 - start(_block(path))))


def _lambda(layers: VitLayers, path: str) -> Name:
    g, parts = layers.g, []
    for place, letter in ((1, "a"), (2, "b")):
        if f"{path}.lambda_a" in g.weights:
            total = g.weight(f"{path}.lambda_{letter}")
        else:
            pair = (g.weight(f"{path}.lambda_{which}{place}") for which in "qk")
            total = g.reduce("ReduceSum", g.op("Mul", *pair), [0])
        parts.append(g.op("Exp", total))
    return g.op("Add", g.op("Sub", *parts), g.number(start(_block(path))))


def _block(path: str) -> int:
    return int(path.split(".")[1])
