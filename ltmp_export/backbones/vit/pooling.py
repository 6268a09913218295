"""Attention pooling in ONNX: one query, the same for all images, attends to an image's tokens."""

from __future__ import annotations

from ltmp_export.backbones.vit import feed_forward
from ltmp_export.backbones.vit.layers import Layers
from ltmp_export.graph.builder import Name
from ltmp_export.graph.ragged import LOWEST, Layout
from ltmp_export.graph.single import OneLayout
from ltmp_export.plan import mlps
from ltmp_export.plan.pooling import PATH, AttentionPool


def pool(
    layers: Layers,
    own: AttentionPool,
    x: Name,
    size: Name | None,
    layout: Layout,
    *,
    width: int,
    spared: int,
    largest: int | None,
) -> Name:
    """Rows [T, C] behind the final norm → [B, C].

    Args:
        layers: The model's.
        own: Of the model.
        x: The rows.
        size: As for `Layout.score_bias`.
        layout: Where the tokens of an image are.
        width: C.
        spared: Tokens in front that the query does not see.
        largest: As of `Layout.score_bias`.
    """
    g, head_width = layers.g, width // own.heads
    alone = None  # of one image spared rows are masked: a NaN in them prunes all, and stays one
    if spared and isinstance(layout, OneLayout):
        alone, spared = g.op("Greater", layout.position, g.index(spared - 1)), 0
    k, v = _keys_and_values(layers, own, x, layout, head_width, spared)
    q = layers.norm(f"{PATH}.q_norm", g.reshape(_query(layers), 1, own.heads, 1, head_width))
    if layout.fixed is None:  # onnxruntime rounds the product of one row by how long it is
        q = g.op("Concat", q, q, axis=2)
    k = layers.norm(f"{PATH}.k_norm", k)
    with layers.half(f"{PATH}.scores"):
        q = g.op("Mul", g.cast(q), g.number(head_width**-0.5))
        scores = g.op("MatMul", q, g.op("Transpose", g.cast(k), perm=[0, 1, 3, 2]))
    scores = layers.exact(scores)  # [B, H, 1 or 2, N]
    bias = layout.score_bias(size, largest)
    if bias is not None:
        bias = g.slice(bias, 3, spared) if spared else bias
        scores = g.op("Add", scores, bias)
    if alone is not None:
        scores = g.op("Where", alone, scores, g.number(LOWEST))
    weights = g.op("Softmax", scores, axis=-1)
    if alone is not None:
        weights = g.op("Where", alone, weights, g.number(0.0))
    if spared and not layout.full:  # of no token at all there is nothing to mix
        there = g.op("Unsqueeze", g.slice(layout.valid, 1, spared), g.ints(1, 2))
        weights = g.op("Where", there, weights, g.number(0.0))
    with layers.half(f"{PATH}.mixed"):
        mixed = g.op("MatMul", g.cast(weights), g.cast(v))
        mixed = g.op("Gather", mixed, g.index(0), axis=2)  # [B, H, D]
        rows = g.reshape(mixed, -1, width)
    rows = layers.exact(layers.linear(f"{PATH}.proj", rows))
    normed = layers.norm(f"{PATH}.norm", rows)
    update = feed_forward.write(layers, f"{PATH}.mlp", normed, mlps.PLAIN, own.activation)
    return g.op("Add", rows, layers.exact(update))


def _query(layers: Layers) -> Name:
    """[1, C], which depends on no image."""
    g = layers.g
    latent = g.reshape(g.weight(f"{PATH}.latent"), 1, -1)
    if f"{PATH}.q.weight" not in g.weights:
        return latent
    return layers.linear(f"{PATH}.q", latent)


def _keys_and_values(
    layers: Layers, own: AttentionPool, x: Name, layout: Layout, width: int, spared: int
) -> tuple[Name, Name]:
    """[B, H, N, D] both, of the tokens behind those that are spared."""
    g = layers.g
    rows = layers.linear(f"{PATH}.kv", x)  # [T, 2 * H * D]
    places = g.slice(layout.rows, 1, spared) if spared else layout.rows
    with layers.half(f"{PATH}.kv"):
        pieces = g.reshape(g.cast(rows), -1, width)
        first = g.op("Unsqueeze", g.op("Mul", places, g.index(2 * own.heads)), g.ints(1))
        keys = g.op("Add", first, g.column(range(own.heads)))
        values = g.op("Add", keys, g.index(own.heads))
        k, v = (g.op("Gather", pieces, place, axis=0) for place in (keys, values))
    return k, v
