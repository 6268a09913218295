"""Clustering patch tokens around peaks of their density in ONNX, all images with the same slots.

Names written here before a block are stable: `score`, `ranking`, the patch tokens by it, and
`partner`, of every patch token the nearest of the centres.
"""

from __future__ import annotations

from dataclasses import replace

from onnx import TensorProto

from ltmp_export.graph import distances, slots, sums
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.slots import Slots
from ltmp_export.steps.cluster.step import Cluster

_LEAST = 1e-6  # added to the sum of weights


def write(g: GraphBuilder, step: Cluster, tokens: Slots) -> Slots:
    """Means of clusters, in the order of the centres' scores."""
    protected, patches = tokens.protected, tokens.number - tokens.protected
    x = g.slice(tokens.x, 1, protected)
    apart = _distances(g, step, x, patches)  # [B, n, n]
    named = g.op("Pad", _scores(g, step, apart), g.ints(0, protected, 0, 0), g.number(0.0),
                 name="score")  # fmt: skip
    own = g.slice(named, 1, protected)
    _, ranking = g.ops("TopK", own, g.ints(patches), names=("ranked", "ranking"), axis=1)
    centres = g.op("Unsqueeze", g.slice(ranking, 1, 0, step.tokens), g.ints(2))  # [B, M, 1]
    to_centres = g.op("GatherND", apart, centres, batch_dims=1)  # [B, M, n]
    partner = g.op("ArgMin", to_centres, axis=1, keepdims=0, name="partner")  # [B, n]
    itself = _floats(g, g.op("Equal", centres, g.counting(patches)))  # [B, M, n]
    other = g.op("Sub", g.number(1.0), g.reduce("ReduceMax", itself, [1], keepdims=True))
    goes = g.op("Mul", _floats(g, slots.pairs(g, partner, step.tokens)), other)
    brought = going = g.op("Add", itself, goes)  # each in one cluster, centres in their own
    if step.weighted:
        brought = g.op("Mul", going, g.op("Exp", _score(g, f"{step.name}.score", x)))
    total = g.op("Add", sums.total(g, brought, [2], keepdims=True), g.number(_LEAST))
    mean = g.op("Div", g.op("MatMul", brought, x), total)
    made = g.op("Concat", g.slice(tokens.x, 1, 0, protected), mean, axis=1) if protected else mean
    return replace(
        tokens, number=step.after(tokens.number, protected), x=made, size=None, scores={},
        metric=None, went=_went(g, tokens, going),
    )  # fmt: skip


def _score(g: GraphBuilder, name: str, x: Name) -> Name:
    """[B, n, C] → [B, 1, n]: a linear layer of one number.

    From the left: on the right, onnxruntime rounds it by how many rows all images have.
    """
    rows = g.op("MatMul", g.weight(f"{name}.weight"), g.op("Transpose", x, perm=[0, 2, 1]))
    return g.op("Add", rows, g.weight(f"{name}.bias"))


def _distances(g: GraphBuilder, step: Cluster, x: Name, patches: int) -> Name:
    """[B, n, C] → [B, n, n], divided by the root of the width."""
    apart = distances.squared(g, x, patches)
    if f"{step.name}.score.weight" in g.weights:
        width = g.number(float(g.weights[f"{step.name}.score.weight"].shape[1]))
    else:
        width = _floats(g, g.op("Shape", x, start=2, end=3))
    return g.op("Sqrt", g.op("Div", apart, width))


def _scores(g: GraphBuilder, step: Cluster, apart: Name) -> Name:
    """[B, n, n] distances → [B, n] density times peak."""
    names = ("near", "near_places")
    squares = g.op("Mul", apart, apart)
    near = g.ops("TopK", squares, g.ints(step.neighbours), names=names, axis=2, largest=0)[0]
    mean = g.op("Mul", sums.total(g, near, [2]), g.number(1.0 / step.neighbours))
    density = g.op("Exp", g.op("Neg", mean))  # [B, n]
    of_other, of_own = (g.op("Unsqueeze", density, g.ints(axis)) for axis in (1, 2))
    farthest = g.reduce("ReduceMax", apart, [1, 2], keepdims=True)
    higher = g.op("Where", g.op("Greater", of_other, of_own), apart, farthest)
    return g.op("Mul", density, g.reduce("ReduceMin", higher, [2]))


def _went(g: GraphBuilder, tokens: Slots, going: Name) -> Name | None:
    """[B, N] where each slot is then, where somebody asks."""
    if tokens.came is None:
        return None
    front = g.slice(tokens.came, 1, 0, tokens.protected)
    places = g.op("ArgMax", going, axis=1, keepdims=0)
    return g.op("Concat", front, g.op("Add", places, g.index(tokens.protected)), axis=1)


def _floats(g: GraphBuilder, x: Name) -> Name:
    return g.op("Cast", x, to=TensorProto.FLOAT)
