"""Attention among the tokens of each image, in ONNX, and the scores that steps read off it."""

from __future__ import annotations

from collections.abc import Sequence

from ltmp_export.backbones.vit import differential, parallel
from ltmp_export.backbones.vit.layers import VitLayers
from ltmp_export.graph import sums
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.ragged import Layout
from ltmp_export.plan.plan import demands
from ltmp_export.plan.scores import CLASS_ATTENTION, CLASS_VALUES, IMPORTANCE
from ltmp_export.plan.step import Step


class Bound:
    """What the places of tokens do to one block's attention; here nothing.

    Attributes:
        alike: Whether what they do to a mean over heads is the mean of what they do.
    """

    alike = True

    def turned(self, layers: VitLayers, q: Name, k: Name) -> tuple[Name, Name, Name]:
        """Queries and keys [B, H, N, D] as they are multiplied; keys by which tokens compare."""
        return q, k, k

    def compared(self, g: GraphBuilder, metric: Name) -> Name:
        """Keys [B, N, D] of a projection of their own as tokens are compared by them."""
        return metric

    def biased(self, g: GraphBuilder, scores: Name) -> Name:
        """Scores [B, H, N, N] with their bias."""
        return scores


def attend(
    layers: VitLayers,
    path: str,
    rows: Name,
    size: Name | None,
    layout: Layout,
    at: Bound,
    largest: int | None,
) -> tuple[Name, Name, Name]:
    """Maps of attention [B, H, N, N], keys by which tokens are compared, and values [B, H, N, D].

    Args:
        layers: The model's.
        path: Of the block.
        rows: [T, C] normalised tokens, see `VitLayers.entered`.
        size: How many patches each token stands for, or None while all are 1.
        layout: Where the tokens of an image are.
        at: What the places of the tokens do.
        largest: As of `Layout.score_bias`.
    """
    g, vit = layers.g, layers.vit
    q, k, v = layers.projected(path, rows, layout)
    own = layers.attention(path)
    q, k = (layers.norm(f"{own}.{n}_norm", x) for n, x in (("q", q), ("k", k)))
    q, k, keys = at.turned(layers, q, k)
    with layers.half(f"{path}.attn.scores"):
        q = g.op("Mul", g.cast(q), g.number(vit.key_width**-0.5))
        scores = g.op("MatMul", q, layout.exchanged(g.cast(k)))
    scores = at.biased(g, layers.exact(scores))
    bias = layout.score_bias(size, largest)
    if bias is not None:
        scores = g.op("Add", scores, bias)
    return g.op("Softmax", scores, axis=-1), keys, v


def mix(layers: VitLayers, path: str, layout: Layout, weights: Name, v: Name, given: Name) -> Name:
    """The output [T, C] of attention from its weights and values, without the residual.

    Where the MLP runs beside it, that of both, from the rows that attention was given.
    """
    g, vit, own = layers.g, layers.vit, layers.attention(path)
    if vit.differential:
        weights = differential.difference(layers, own, weights, layout.heads_axis)
    with layers.half(f"{path}.attn.mixed"):
        mixed = g.op("MatMul", g.cast(weights), g.cast(v))
    if vit.differential:
        mixed = differential.behind(layers, own, mixed)
        rows = layout.join_heads(mixed, vit.heads, vit.head_width)
    else:
        with layers.half(f"{path}.attn.mixed"):
            rows = layout.join_heads(mixed, vit.heads, vit.head_width)
    if vit.parallel:
        both = parallel.left(layers, path, rows, given)
        return layers.exact(layers.layer_scale(f"{path}.ls", both))
    out = layers.linear(f"{path}.attn.proj", layers.norm(f"{path}.attn.norm", rows))
    return layers.exact(layers.layer_scale(f"{path}.ls1", out))


def scores(
    layers: VitLayers, steps: Sequence[Step], layout: Layout, weights: Name, values: Name
) -> dict[str, Name]:
    """The scores [B, N] that steps demand, from attention [B, H, N, N] and values [B, H, N, D]."""
    wanted, found, heads = demands(steps), {}, layers.vit.maps
    g = layers.g
    if IMPORTANCE in wanted:
        found[IMPORTANCE] = layout.importance(weights, heads)
    if CLASS_ATTENTION in wanted:
        found[CLASS_ATTENTION] = layout.class_attention(weights, heads)
    if CLASS_VALUES in wanted:
        found[CLASS_VALUES] = _class_values(g, layout, weights, layers.exact(values))
    return found


def _class_values(g: GraphBuilder, layout: Layout, weights: Name, values: Name) -> Name:
    """[B, N] what the class token, row 0, gives of each head times the length of its value."""
    axis = layout.heads_axis
    of_class = g.op("Gather", weights, g.index(0), axis=axis + 1)  # [B, H, N]
    squares = g.reduce("ReduceSum", g.op("Mul", values, values), [axis + 2])
    weighted = g.op("Mul", of_class, g.op("Sqrt", squares))
    return sums.total(g, weighted, [axis], name="class_values")
