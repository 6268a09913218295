"""Merging by a threshold in ONNX, each image with rows of its own number.

Names written here per block are stable: `similarity`, `partner`, `merged`, `merged_importance`,
`merge_threshold`. Protected tokens take no part in matching: entry i of the first three is the slot
of source i. After a merge the slots are in the order [protected ; sources ; destinations].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnx import TensorProto

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.packed import Candidates, Merges, pack
from ltmp_export.graph.ragged import LOWEST
from ltmp_export.plan import pairing
from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.steps.merge.step import Merge


def write(g: GraphBuilder, step: Merge, tokens: Candidates) -> Candidates:
    """Merge even slots into their most similar odd slot where that is above the threshold."""
    tokens = settled(g, tokens)
    partner, _, merged = match(g, step.threshold, tokens)
    return merge(g, tokens, partner, merged)


def merge(g: GraphBuilder, tokens: Candidates, partner: Name, merged: Name) -> Candidates:
    """Merge sources into destinations, see `match`; [protected ; sources ; destinations] then."""
    flags = g.op("Cast", merged, to=TensorProto.FLOAT)
    most = g.reduce("ReduceMax", g.reduce("ReduceSum", flags, [1]), [0], keepdims=True)
    width = g.op("Cast", g.op("Max", most, g.number(1.0)), to=TensorProto.INT64)  # [1] K
    present, chosen = g.ops("TopK", flags, width, names=("present", "chosen"), axis=1)  # [B, K]

    protected = tokens.layout.protected
    front_rows, source_rows, destination_rows = parts(g, tokens.rows, protected)
    to = g.op("GatherElements", partner, chosen, axis=1)  # [B, K] ordinals of destinations
    source = g.op("GatherElements", source_rows, chosen, axis=1)
    target = g.op("GatherElements", destination_rows, to, axis=1)
    mixing, shared, total = _mix(g, tokens, source, target, present)
    merges = Merges(source, target, mixing, present)
    size = tokens.size or g.op("Expand", g.number(1.0), tokens.total)

    front_alive, source_alive, destination_alive = parts(g, tokens.alive, protected)
    stays = g.op("And", source_alive, g.op("Not", merged))
    importance = None
    if IMPORTANCE in tokens.needed:
        carried = _merged_importance(g, tokens, present, chosen, to, shared)
        gone = g.op("Where", merged, g.number(LOWEST), carried[1])
        together = (*carried[0], gone, carried[2])
        importance = g.op("Concat", *together, axis=1, name="merged_importance")
    return replace(
        tokens,
        rows=g.op("Concat", *front_rows, source_rows, destination_rows, axis=1),
        alive=g.op("Concat", *front_alive, stays, destination_alive, axis=1),
        size=merges.placed(g, size, g.reshape(total, -1)),
        importance=importance,
        metric=None,
        merges=merges,
        gaps=True,
    )


def settled(g: GraphBuilder, tokens: Candidates) -> Candidates:
    """Close the gaps that pruning left, so that even and odd slots are those of living tokens."""
    if not tokens.gaps:
        return tokens
    living, layout = pack(g, tokens, "unpruned")
    if tokens.metric is None:
        raise ValueError("matching needs the metric")
    metric = g.reshape(tokens.metric, -1, tokens.metric_width)
    packed = g.op("Compress", metric, g.reshape(tokens.alive, -1), axis=0)  # [T', D]
    return replace(
        tokens,
        layout=layout,
        rows=g.op("Gather", living, layout.rows, axis=0),
        alive=layout.valid,
        importance=None,
        metric=g.op("Gather", packed, layout.rows, axis=0),
        gaps=False,
    )


def parts(g: GraphBuilder, values: Name, protected: int) -> tuple[tuple[Name, ...], Name, Name]:
    """[B, N] → the protected tokens', if there are any, the sources', the destinations'."""
    return (
        (g.slice(values, 1, 0, protected),) if protected else (),
        g.slice(values, 1, pairing.first_source(protected), step=2),
        g.slice(values, 1, pairing.first_destination(protected), step=2),
    )


def match(
    g: GraphBuilder,
    threshold: float,
    tokens: Candidates,
    held: Callable[[Name, Name, Name], Name] | None = None,
) -> tuple[Name, Name, Name]:
    """Each source's most similar destination, how similar it is, and whether it merges, [B, S].

    Args:
        g: Where to write.
        threshold: What similarities have to be above.
        tokens: Without gaps, see `settled`.
        held: Of similarities, those above the threshold and those that are there [B, S], who is
            held back.
    """
    if tokens.metric is None:
        raise ValueError("matching needs the metric")
    protected = tokens.layout.protected
    starts = (pairing.first_source(protected), pairing.first_destination(protected))
    sources, destinations = (g.slice(tokens.metric, 1, start, step=2) for start in starts)
    similarity = g.op("MatMul", sources, g.op("Transpose", destinations, perm=[0, 2, 1]))
    mask = tokens.layout.destination_mask()
    if mask is not None:
        similarity = g.op("Where", mask, similarity, g.number(LOWEST))
    best = g.reduce("ReduceMax", similarity, [2], name="similarity")
    partner = g.op("ArgMax", similarity, axis=2, keepdims=0, name="partner")
    above = g.op("Greater", best, g.number(threshold, "merge_threshold"))
    present = g.slice(tokens.alive, 1, starts[0], step=2)
    if held is not None:
        above = g.op("And", above, present)
        present = g.op("Not", held(best, above, present))
    return partner, best, g.op("And", above, present, name="merged")


def _mix(
    g: GraphBuilder, tokens: Candidates, source: Name, target: Name, present: Name
) -> tuple[Name, Name, Name]:
    """How the means that destinations become are made.

    Returns:
        `Merges.mixing`; [B, K, K] 1 where two sources share a destination, else 0; and the sizes
        [B, K, 1] of their destinations then.
    """
    mine, theirs = (g.op("Unsqueeze", target, g.ints(axis)) for axis in (2, 1))
    shared = g.op("Cast", g.op("Equal", mine, theirs), to=TensorProto.FLOAT)
    if tokens.size is None:
        weight, own = present, g.number(1.0)
    else:
        weight = g.op("Mul", present, g.op("Gather", tokens.size, source, axis=0))
        own = g.op("Gather", tokens.size, mine, axis=0)  # [B, K, 1]
    weighted = g.op("Mul", shared, g.op("Unsqueeze", weight, g.ints(1)))
    total = g.op("Add", g.reduce("ReduceSum", weighted, [2], keepdims=True), own)
    return g.op("Div", weighted, total), shared, total


def _merged_importance(
    g: GraphBuilder, tokens: Candidates, present: Name, chosen: Name, to: Name, shared: Name
) -> tuple[tuple[Name, ...], Name, Name]:
    """Of protected, sources, destinations; these get the maximum of what they became."""
    if tokens.importance is None:
        raise ValueError("carrying importance through a merge needs it")
    importance, protected = tokens.importance, tokens.layout.protected
    of_front, of_sources, of_destinations = parts(g, importance, protected)
    incoming = g.op("Mul", g.op("GatherElements", of_sources, chosen, axis=1), present)
    from_each = g.op("Mul", shared, g.op("Unsqueeze", incoming, g.ints(1)))  # [B, K, K]
    own = g.op("GatherElements", of_destinations, to, axis=1)
    largest = g.op("Max", own, g.reduce("ReduceMax", from_each, [2]))
    return of_front, of_sources, g.op("ScatterElements", of_destinations, to, largest, axis=1)
