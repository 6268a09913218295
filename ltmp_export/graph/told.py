"""What a graph of single images does not name itself, told from what it names, [1, n] as in others.

A runtime computes every node of a file, so a file has none that only a check would read. Of a block
these are made where they are asked for:

    count              of `tokens`        similarity  of `similarities` [S, D]
    importance         of `importances`   partner     of `choice` [S, 1 + D], see `merge.single`
    merged_importance  of `carried`       merged      of `choice`
    kept               of `stays`              cdf         of `cdfs`

So is the `count` of a block of slots, [B, N, C], where a tool has dropped what no node reads.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.ragged import LOWEST


def _count(g: GraphBuilder, tokens: Name) -> Name:
    """Rows [T, C] are those of one image, slots [B, N, C] those of each."""
    images = g.op("Shape", tokens, start=0, end=-2)
    return g.op("Expand", g.op("Shape", tokens, start=-2, end=-1), images)


def _similarity(g: GraphBuilder, similarities: Name) -> Name:
    """Of each source the largest, `LOWEST` if there is no destination."""
    padded = g.op("Pad", similarities, g.ints(0, 1, 0, 0), g.number(LOWEST))
    return _row(g, g.reduce("ReduceMax", padded, [1]))


def _partner(g: GraphBuilder, choice: Name) -> Name:
    """The ordinal of the destination; 0 for a source that stays."""
    column = g.op("ArgMax", choice, axis=1, keepdims=0)
    return _row(g, g.op("Max", g.op("Sub", column, g.index(1)), g.index(0)))


def _merged(g: GraphBuilder, choice: Name) -> Name:
    stays = g.op("Gather", choice, g.index(0), axis=1)
    return _row(g, g.op("Less", stays, g.number(0.5)))


def _row(g: GraphBuilder, values: Name) -> Name:
    """[n] → [1, n]."""
    return g.op("Unsqueeze", values, g.ints(0))


_Made = Callable[[GraphBuilder, Name], Name]
_TOLD: dict[str, tuple[str, _Made]] = {
    "count": ("tokens", _count),
    "similarity": ("similarities", _similarity),
    "partner": ("choice", _partner),
    "merged": ("choice", _merged),
    "importance": ("importances", _row),
    "merged_importance": ("carried", _row),
    "kept": ("stays", _row),
    "cdf": ("cdfs", _row),
}


# What these give has a length that depends on data: rows of several images may be packed.
_RAGGED = {"Compress", "NonZero"}


def source(name: Name, model: onnx.ModelProto, single: bool) -> Name | None:
    """The tensor of a model that another is told from, or None; `single`: of single images."""
    scope, _, leaf = name.rpartition("/")
    fixed = leaf == "count" and not _RAGGED & {node.op_type for node in model.graph.node}
    return f"{scope}/{_TOLD[leaf][0]}" if leaf in _TOLD and (single or fixed) else None


def tell(model: onnx.ModelProto, names: list[Name]) -> None:
    """Add to a model what makes these of what it names."""
    (opset,) = (one.version for one in model.opset_import if not one.domain)
    g = GraphBuilder(opset, {})
    for name in names:
        scope, _, leaf = name.rpartition("/")
        base, made = _TOLD[leaf]
        with g.scope(f"told/{scope}"):
            found = made(g, f"{scope}/{base}")
        with g.scope(scope):
            g.keep(g.op("Identity", found, name=leaf))
    added = g.build("told", {}).graph
    stored = {tensor.name for tensor in model.graph.initializer}
    for node in added.node:  # a tool may have left the names of what it renamed
        node.name = f"told:{node.name}"
    model.graph.node.extend(added.node)
    model.graph.initializer.extend(t for t in added.initializer if t.name not in stored)
