"""A block's steps in ONNX: who merges into whom, who stays, and the rows that are left.

A merge changes few rows:

    x[d] ← x[d] + Σ_k (s_k / S_d) (x[k] − x[d])      over the sources k that merge into d

with sizes s and S_d = s_d + Σ_k s_k: the weighted mean of METHOD §1. It is computed for the
K merging sources of an image, as a [K, K] product ("who shares my destination") with the [K, C]
differences. The new rows are appended to the old ones, and one Gather takes what is left from both:
no scatter of rows, and no sum whose order is open. Sources of one destination all compute its new
row, the same one; which of them is taken makes no difference.

Names written here per block are stable: `similarity`, `partner`, `merged`, `merged_importance`,
`kept`, `count`, `size`, `merge_threshold`, `prune_threshold`. The class token takes no part in
matching: entry i of the first three is slot 2 i + 2. After a merge the slots are in the order
[class token ; sources ; destinations].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnx import TensorProto

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.ragged import LOWEST, Layout
from ltmp_export.plan.plan import Merge, Prune, Step, reads_importance


@dataclass(frozen=True)
class Candidates:
    """Tokens while steps decide about them, in slots.

    Attributes:
        layout: Their slots.
        rows: [B, N] row of each slot's token, among the old and the new ones of `merges`.
        alive: [B, N] bool, the slots that hold a token that stays so far.
        old_rows: [1] how many rows there were.
        size: [T] patches of each row, or None while every token stands for one patch.
        importance: [B, N], or None if no later step needs it.
        metric: [B, N, D] unit vectors, or None if no later step needs it.
        metric_width: D.
        merges: What was merged, or None.
        gaps: Whether a step has left slots in between that are no longer alive.
    """

    layout: Layout
    rows: Name
    alive: Name
    old_rows: Name
    size: Name | None
    importance: Name | None
    metric: Name | None
    metric_width: int
    merges: Merges | None = None
    gaps: bool = False


@dataclass(frozen=True)
class Merges:
    """The K merging sources of each image; where it has fewer, others repeat what is there.

    Attributes:
        source: [B, K] row of each.
        target: [B, K] row of its destination.
        mixing: [B, K, K] weight of source j in the destination of source i, 0 if it has another.
    """

    source: Name
    target: Name
    mixing: Name


@dataclass(frozen=True)
class Reduced:
    """What a block's steps have decided, to be applied to rows.

    Attributes:
        layout: Of the tokens that are left.
        rows: [T'] row of each, among the old and the new ones.
        size: [T'] patches of each, or None while every token stands for one patch.
        merges: What was merged, or None.
    """

    layout: Layout
    rows: Name
    size: Name | None
    merges: Merges | None


def decide(g: GraphBuilder, steps: tuple[Step, ...], tokens: Candidates) -> Reduced:
    """Take a block's steps one after the other."""
    for position, step in enumerate(steps):
        if isinstance(step, Prune):
            tokens = _prune(g, step.threshold, tokens)
        elif isinstance(step, Merge):
            settled = _settled(g, tokens)
            tokens = _merge(g, step.threshold, settled, reads_importance(steps[position + 1 :]))
        else:
            raise ValueError(f"{step} has a static form, see `slots`")
    rows, layout = _pack(g, tokens)
    size = None if tokens.size is None else g.op("Gather", tokens.size, rows, axis=0, name="size")
    return Reduced(layout, rows, size, tokens.merges)


def reduce_rows(g: GraphBuilder, reduced: Reduced, x: Name, width: int) -> Name:
    """Rows [T, C] → the rows [T', C] that are left, merged."""
    merges = reduced.merges
    if merges is not None:
        target = g.op("Gather", x, merges.target, axis=0)  # [B, K, C]
        difference = g.op("Sub", g.op("Gather", x, merges.source, axis=0), target)
        new = g.op("Add", target, g.op("MatMul", merges.mixing, difference))
        x = g.op("Concat", x, g.reshape(new, -1, width), axis=0)
    return g.op("Gather", x, reduced.rows, axis=0)


def _prune(g: GraphBuilder, threshold: float, tokens: Candidates) -> Candidates:
    """Drop slots whose importance is not above the threshold; slot 0, the class token, stays.

    An empty slot has an importance of exactly 0, since nothing attends to it, and a merged source
    has `LOWEST`: neither is above a threshold in [0, 1].
    """
    if tokens.importance is None:
        raise ValueError("pruning needs importance")
    above = g.op("Greater", tokens.importance, g.number(threshold, "prune_threshold"))
    is_class = g.op("Equal", tokens.layout.position, g.index(0))
    return replace(tokens, alive=g.op("Or", above, is_class, name="kept"), gaps=True)


def _pack(g: GraphBuilder, tokens: Candidates, name: str = "count") -> tuple[Name, Layout]:
    """[T'] rows of the living slots, and the layout they are in."""
    alive = g.reshape(tokens.alive, -1)
    rows = g.op("Compress", g.reshape(tokens.rows, -1), alive, axis=0)
    counts = g.op("Cast", tokens.alive, to=TensorProto.INT64)
    return rows, tokens.layout.for_counts(g.reduce("ReduceSum", counts, [1], name=name))


def _settled(g: GraphBuilder, tokens: Candidates) -> Candidates:
    """Close the gaps that pruning left, so that even and odd slots are those of living tokens."""
    if not tokens.gaps:
        return tokens
    living, layout = _pack(g, tokens, "unpruned")
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


def _merge(
    g: GraphBuilder, threshold: float, tokens: Candidates, with_importance: bool
) -> Candidates:
    """Merge even slots into their most similar odd slot where that is above the threshold."""
    partner, merged = _match(g, threshold, tokens)  # [B, S]
    flags = g.op("Cast", merged, to=TensorProto.FLOAT)
    most = g.reduce("ReduceMax", g.reduce("ReduceSum", flags, [1]), [0], keepdims=True)
    width = g.op("Cast", g.op("Max", most, g.number(1.0)), to=TensorProto.INT64)  # [1] K
    present, chosen = g.ops("TopK", flags, width, names=("present", "chosen"), axis=1)  # [B, K]

    class_row, source_rows, destination_rows = _parts(g, tokens.rows)
    to = g.op("GatherElements", partner, chosen, axis=1)  # [B, K] ordinals of destinations
    source = g.op("GatherElements", source_rows, chosen, axis=1)
    target = g.op("GatherElements", destination_rows, to, axis=1)
    mixing, shared, size = _mix(g, tokens, source, target, present)

    new_rows = g.op("Add", tokens.layout.numbered(width), tokens.old_rows)  # [B, K]
    class_alive, source_alive, destination_alive = _parts(g, tokens.alive)
    stays = g.op("And", source_alive, g.op("Not", merged))
    destination_rows = g.op("ScatterElements", destination_rows, to, new_rows, axis=1)
    importance = None
    if with_importance:
        carried = _merged_importance(g, tokens, present, chosen, to, shared)
        gone = g.op("Where", merged, g.number(LOWEST), carried[1])
        importance = g.op("Concat", carried[0], gone, carried[2], axis=1, name="merged_importance")
    return replace(
        tokens,
        rows=g.op("Concat", class_row, source_rows, destination_rows, axis=1),
        alive=g.op("Concat", class_alive, stays, destination_alive, axis=1),
        size=size,
        importance=importance,
        metric=None,
        merges=Merges(source, target, mixing),
        gaps=True,
    )


def _parts(g: GraphBuilder, values: Name) -> tuple[Name, Name, Name]:
    """[B, N] → the class token's, the sources', the destinations'."""
    return g.slice(values, 1, 0, 1), g.slice(values, 1, 2, step=2), g.slice(values, 1, 1, step=2)


def _match(g: GraphBuilder, threshold: float, tokens: Candidates) -> tuple[Name, Name]:
    """[B, S]: the ordinal of each source's most similar destination, and whether it merges."""
    if tokens.metric is None:
        raise ValueError("matching needs the metric")
    sources, destinations = (g.slice(tokens.metric, 1, start, step=2) for start in (2, 1))
    similarity = g.op("MatMul", sources, g.op("Transpose", destinations, perm=[0, 2, 1]))
    mask = tokens.layout.destination_mask()
    if mask is not None:
        similarity = g.op("Where", mask, similarity, g.number(LOWEST))
    best = g.reduce("ReduceMax", similarity, [2], name="similarity")
    partner = g.op("ArgMax", similarity, axis=2, keepdims=0, name="partner")
    above = g.op("Greater", best, g.number(threshold, "merge_threshold"))
    present = g.slice(tokens.alive, 1, 2, step=2)
    return partner, g.op("And", above, present, name="merged")


def _mix(
    g: GraphBuilder, tokens: Candidates, source: Name, target: Name, present: Name
) -> tuple[Name, Name, Name]:
    """How the means that destinations become are made.

    Returns:
        `Merges.mixing`; [B, K, K] 1 where two sources share a destination, else 0; and the sizes
        [T + B * K] of the old and the new rows.
    """
    mine, theirs = (g.op("Unsqueeze", target, g.ints(axis)) for axis in (2, 1))
    shared = g.op("Cast", g.op("Equal", mine, theirs), to=TensorProto.FLOAT)
    if tokens.size is None:
        weight, own = present, g.number(1.0)
        old_sizes = g.op("Expand", own, tokens.old_rows)
    else:
        weight = g.op("Mul", present, g.op("Gather", tokens.size, source, axis=0))
        own = g.op("Gather", tokens.size, mine, axis=0)  # [B, K, 1]
        old_sizes = tokens.size
    weighted = g.op("Mul", shared, g.op("Unsqueeze", weight, g.ints(1)))
    total = g.op("Add", g.reduce("ReduceSum", weighted, [2], keepdims=True), own)  # [B, K, 1]
    size = g.op("Concat", old_sizes, g.reshape(total, -1), axis=0)
    return g.op("Div", weighted, total), shared, size


def _merged_importance(
    g: GraphBuilder, tokens: Candidates, present: Name, chosen: Name, to: Name, shared: Name
) -> tuple[Name, Name, Name]:
    """Of class token, sources, destinations; these get the maximum of what they became."""
    if tokens.importance is None:
        raise ValueError("carrying importance through a merge needs it")
    of_class, of_sources, of_destinations = _parts(g, tokens.importance)
    incoming = g.op("Mul", g.op("GatherElements", of_sources, chosen, axis=1), present)
    from_each = g.op("Mul", shared, g.op("Unsqueeze", incoming, g.ints(1)))  # [B, K, K]
    own = g.op("GatherElements", of_destinations, to, axis=1)
    largest = g.op("Max", own, g.reduce("ReduceMax", from_each, [2]))
    return of_class, of_sources, g.op("ScatterElements", of_destinations, to, largest, axis=1)
