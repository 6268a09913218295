"""Ragged batches in ONNX: tokens of all images packed as rows, padded only where images must meet.

Each image keeps its own number of tokens, so a batch is ragged. The rows of all images stand one
after the other, [T, C], in the order of the images:

    packed  [a0 a1 a2 | b0 b1 b2 b3 b4 | c0]          T = 9 rows, counts 3 5 1
    padded  [a0 a1 a2 a2 a2]   valid 1 1 1 0 0        B = 3 images, N = 5 slots
            [b0 b1 b2 b3 b4]         1 1 1 1 1
            [c0 c0 c0 c0 c0]         1 0 0 0 0

Every pointwise layer runs on packed rows and never computes padding. Attention, matching and
deciding see a padded view, made by Gather, which also splits and joins the heads. An image's empty
slots repeat its own last row, so nothing (a NaN, say) passes from one image to another; `valid`
keeps them out of every result.

Merging uses a one-hot matrix product and a masked maximum instead of scattering, which keeps it
deterministic and within opset 16. All integers are int64. Names written here per block are stable:
`importance`, `similarity`, `partner`, `merged`, `merged_importance`, `kept`, `count`, `size`,
`merge_threshold`, `prune_threshold`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnx import TensorProto

from ltmp_export.graph import GraphBuilder, Name
from ltmp_export.plan import Prune, Step

NEGATIVE_INFINITY = float("-inf")
NOWHERE = -1  # the destination of a source that does not merge


@dataclass(frozen=True)
class Layout:
    """Where the tokens of each image are.

    Attributes:
        count: [B] tokens per image.
        offset: [B] packed row of each image's class token.
        row: [B, N] packed row behind each slot; N is at least 2, so that there is always a
            destination to match with.
        valid: [B, N] bool, the slots that hold a token of their own.
        slots: Scalar N.
        position: [N] int64: 0, 1, 2, …
        is_class: [N] bool, true for slot 0, where every image has its class token.
        slot: [T] padded slot (b * N + n) of each packed row.
    """

    count: Name
    offset: Name
    row: Name
    valid: Name
    slots: Name
    position: Name
    is_class: Name
    slot: Name


@dataclass(frozen=True)
class Candidates:
    """Tokens between attention and MLP while steps decide about them, in B x M slots.

    Attributes:
        x: [R, C] rows.
        row: [B, M] row of `x` behind each slot, or None after a merge: then slot k has row k.
        alive: [B, M] bool, the slots that hold a token that stays so far.
        size: [B, M] float, or None while every token stands for one patch.
        importance: [B, M], or None if no later step needs it.
        metric: [B, M, D] unit vectors, or None if no later step needs it.
        layout: The layout the slots came from; M equals its N throughout.
        gaps: Whether a step has left slots in between that are no longer alive.
        width: C.
        metric_width: D.
    """

    x: Name
    row: Name | None
    alive: Name
    size: Name | None
    importance: Name | None
    metric: Name | None
    layout: Layout
    width: int
    metric_width: int
    gaps: bool = False


@dataclass(frozen=True)
class Packed:
    """The tokens after a block's steps: x [T, C], size [T] or None (all 1), and their layout."""

    x: Name
    size: Name | None
    layout: Layout


def make_layout(g: GraphBuilder, count: Name) -> Layout:
    """Lay out a batch from its token counts [B]."""
    offset = g.op("CumSum", count, g.index(0), exclusive=1)
    slots = g.reduce("ReduceMax", g.op("Concat", count, g.ints(2), axis=0), [0])  # scalar N
    position = g.op("Range", g.index(0), slots, g.index(1))  # [N]
    per_image = g.op("Unsqueeze", count, g.ints(1))  # [B, 1]
    valid = g.op("Less", position, per_image, name="valid")  # [B, N]
    within = g.op("Min", position, g.op("Sub", per_image, g.index(1)))
    row = g.op("Add", within, g.op("Unsqueeze", offset, g.ints(1)), name="row")
    is_class = g.op("Equal", position, g.index(0))
    slot = _true_positions(g, valid)
    return Layout(count, offset, row, valid, slots, position, is_class, slot)


def _true_positions(g: GraphBuilder, mask: Name) -> Name:
    """[B, N] bool → [T] flat positions of the true entries, in order."""
    return g.op("Squeeze", g.op("NonZero", g.reshape(mask, -1)), g.ints(0))


def pad(g: GraphBuilder, packed: Name, layout: Layout) -> Name:
    """[T, ...] → [B, N, ...]."""
    return g.op("Gather", packed, layout.row, axis=0)


def split_heads(
    g: GraphBuilder, qkv: Name, layout: Layout, heads: int, width: int
) -> tuple[Name, Name, Name]:
    """Packed rows [T, 3 * H * D] → queries, keys and values, [B, H, N, D] each.

    Splitting, padding and exchanging axes is one Gather of D numbers at a time for each.
    """
    pieces = g.reshape(qkv, -1, width)  # [T * 3 * H, D]
    first = g.op("Unsqueeze", g.op("Mul", layout.row, g.index(3 * heads)), g.ints(1))  # [B, 1, N]
    columns = (range(part * heads, (part + 1) * heads) for part in range(3))
    places = (g.op("Add", first, g.column(column)) for column in columns)  # [B, H, N]
    names = ("q", "k", "v")
    q, k, v = (
        g.op("Gather", pieces, place, axis=0, name=name)
        for name, place in zip(names, places, strict=True)
    )
    return q, k, v


def join_heads(g: GraphBuilder, padded: Name, layout: Layout, heads: int, width: int) -> Name:
    """[B, H, N, D] → packed rows [T, H * D]."""
    pieces = g.reshape(padded, -1, width)  # [B * H * N, D]
    before = g.op("Mul", g.op("Div", layout.slot, layout.slots), layout.slots)  # b * N
    first = g.op("Add", layout.slot, g.op("Mul", before, g.index(heads - 1)))  # b * H * N + n
    steps = g.op("Mul", layout.slots, g.ints(*range(heads)))  # [H]
    place = g.op("Add", g.op("Unsqueeze", first, g.ints(1)), steps)  # [T, H]
    return g.reshape(g.op("Gather", pieces, place, axis=0), -1, heads * width)


def attention_bias(g: GraphBuilder, size: Name | None, layout: Layout) -> Name:
    """[B, 1, 1, N] added to the attention scores: log of the key's size, -inf on empty slots."""
    log_size = g.number(0.0) if size is None else g.op("Log", size)
    bias = g.op("Where", layout.valid, log_size, g.number(NEGATIVE_INFINITY))
    return g.op("Unsqueeze", bias, g.ints(1, 2))


def importance(g: GraphBuilder, attention: Name, layout: Layout, heads: int) -> Name:
    """[B, H, N, N] attention → [B, N]: mean over heads and over the image's own queries."""
    count = g.op("Cast", layout.count, to=TensorProto.FLOAT)
    share = g.op("Unsqueeze", g.op("Div", g.number(1.0 / heads), count), g.ints(1))  # [B, 1]
    queries = g.op("Where", layout.valid, share, g.number(0.0))  # [B, N]
    per_head = g.op("MatMul", g.op("Unsqueeze", queries, g.ints(1, 2)), attention)  # [B, H, 1, N]
    return g.reduce("ReduceSum", per_head, [1, 2], name="importance")


def metric(g: GraphBuilder, keys: Name) -> Name:
    """[B, H, N, D] keys → [B, N, D]: mean over heads, scaled to unit length."""
    mean = g.reduce("ReduceMean", keys, [1])
    return g.op("Div", mean, g.reduce("ReduceL2", mean, [-1], keepdims=True), name="metric")


def reduce_tokens(g: GraphBuilder, steps: tuple[Step, ...], tokens: Candidates) -> Packed:
    """Take a block's steps one after the other, then pack what is left."""
    for position, step in enumerate(steps):
        later = steps[position + 1 :]
        if isinstance(step, Prune):
            tokens = _prune(g, step.threshold, tokens)
        else:
            tokens = _merge(g, step.threshold, _settled(g, tokens), needs_importance(later))
    return _pack(g, tokens)


def needs_importance(steps: tuple[Step, ...]) -> bool:
    """Whether a step among these reads importance."""
    return any(isinstance(step, Prune) for step in steps)


def _prune(g: GraphBuilder, threshold: float, tokens: Candidates) -> Candidates:
    """Drop slots whose importance is not above the threshold; slot 0, the class token, stays."""
    if tokens.importance is None:
        raise ValueError("pruning needs importance")
    above = g.op("Greater", tokens.importance, g.number(threshold, "prune_threshold"))
    keep = g.op("Or", above, tokens.layout.is_class)
    return replace(tokens, alive=g.op("And", tokens.alive, keep, name="kept"), gaps=True)


def _settled(g: GraphBuilder, tokens: Candidates) -> Candidates:
    """Close the gaps that pruning left, so that even and odd slots are those of living tokens."""
    if not tokens.gaps:
        return tokens
    if tokens.row is None:
        raise ValueError("a block merges at most once")
    alive = _true_positions(g, tokens.alive)  # [T']
    layout = make_layout(g, _count(g, tokens.alive))
    slot = g.op("Gather", alive, layout.row)  # [B, N'] slot each new slot was

    def move(values: Name | None, *shape: int) -> Name | None:
        return None if values is None else g.op("Gather", g.reshape(values, *shape), slot, axis=0)

    return replace(
        tokens,
        row=move(tokens.row, -1),
        alive=layout.valid,
        size=move(tokens.size, -1),
        importance=move(tokens.importance, -1),
        metric=move(tokens.metric, -1, tokens.metric_width),
        layout=layout,
        gaps=False,
    )


def _count(g: GraphBuilder, mask: Name, name: str | None = None) -> Name:
    """[B, M] bool → [B] number of true slots."""
    return g.reduce("ReduceSum", g.op("Cast", mask, to=TensorProto.INT64), [1], name=name)


def _merge(
    g: GraphBuilder, threshold: float, tokens: Candidates, with_importance: bool
) -> Candidates:
    """Merge even slots into their most similar odd slot where that is above the threshold.

    The new slots are [all sources ; all destinations]; merged sources are no longer alive.
    """
    if tokens.metric is None or tokens.row is None:
        raise ValueError("merging needs the metric and slots of packed rows")
    alive = _split(g, tokens.alive)
    merged, one_hot = _match(g, threshold, tokens, alive)  # [B, Ns], [B, Nd, Ns]
    x_source, x_destination = (
        g.op("Gather", tokens.x, row, axis=0) for row in _split(g, tokens.row)
    )
    if tokens.size is None:
        size_source, own = g.op("Cast", alive[0], to=TensorProto.FLOAT), g.number(1.0)
        flow = one_hot
    else:
        size_source, own = _split(g, tokens.size)  # [B, Ns], [B, Nd]
        flow = g.op("Mul", one_hot, g.op("Unsqueeze", size_source, g.ints(1)))
        x_destination = g.op("Mul", x_destination, g.op("Unsqueeze", own, g.ints(2)))
    size_destination = g.op("Add", g.reduce("ReduceSum", flow, [2]), own)  # [B, Nd]
    total = g.op("Add", x_destination, g.op("MatMul", flow, x_source))  # [B, Nd, C]
    x_destination = g.op("Div", total, g.op("Unsqueeze", size_destination, g.ints(2)))
    stays = g.op("And", alive[0], g.op("Not", merged))
    return replace(
        tokens,
        x=g.reshape(g.op("Concat", x_source, x_destination, axis=1), -1, tokens.width),
        row=None,
        alive=g.op("Concat", stays, alive[1], axis=1),
        size=g.op("Concat", size_source, size_destination, axis=1),
        importance=_merged_importance(g, tokens, one_hot) if with_importance else None,
        metric=None,
        gaps=True,
    )


def _split(g: GraphBuilder, values: Name) -> tuple[Name, Name]:
    """Even and odd slots of axis 1."""
    return g.slice(values, 1, 0, step=2), g.slice(values, 1, 1, step=2)


def _match(
    g: GraphBuilder, threshold: float, tokens: Candidates, alive: tuple[Name, Name]
) -> tuple[Name, Name]:
    """Which sources merge, [B, Ns] bool, and where to: [B, Nd, Ns] float, 1 for source into row."""
    if tokens.metric is None:
        raise ValueError("matching needs the metric")
    sources, destinations = _split(g, tokens.metric)  # [B, Ns, D], [B, Nd, D]
    similarity = g.op("MatMul", sources, g.op("Transpose", destinations, perm=[0, 2, 1]))
    present = g.op("Unsqueeze", alive[1], g.ints(1))  # [B, 1, Nd]
    similarity = g.op("Where", present, similarity, g.number(NEGATIVE_INFINITY))
    best = g.reduce("ReduceMax", similarity, [2], name="similarity")  # [B, Ns]
    partner = g.op("ArgMax", similarity, axis=2, keepdims=0, name="partner")
    is_class = g.slice(tokens.layout.is_class, 0, 0, step=2)
    free = g.op("And", alive[0], g.op("Not", is_class))
    above = g.op("Greater", best, g.number(threshold, "merge_threshold"))
    merged = g.op("And", above, free, name="merged")
    target = g.op("Unsqueeze", g.op("Where", merged, partner, g.index(NOWHERE)), g.ints(1))
    odd = g.slice(tokens.layout.position, 0, 1, step=2)
    index = g.op("Unsqueeze", g.op("Div", odd, g.index(2)), g.ints(1))  # [Nd, 1]: 0, 1, 2, …
    return merged, g.op("Cast", g.op("Equal", target, index), to=TensorProto.FLOAT)


def _merged_importance(g: GraphBuilder, tokens: Candidates, flow: Name) -> Name:
    """[B, M]: a destination gets the maximum of its own and what merged into it (all >= 0)."""
    if tokens.importance is None:
        raise ValueError("carrying importance through a merge needs it")
    source, destination = _split(g, tokens.importance)
    incoming = g.op("Mul", flow, g.op("Unsqueeze", source, g.ints(1)))  # [B, Nd, Ns]
    largest = g.op("Max", destination, g.reduce("ReduceMax", incoming, [2]))
    return g.op("Concat", source, largest, axis=1, name="merged_importance")


def _pack(g: GraphBuilder, tokens: Candidates) -> Packed:
    """Keep the living slots' rows, in slot order."""
    alive = _true_positions(g, tokens.alive)  # [T']
    row = alive if tokens.row is None else g.op("Gather", g.reshape(tokens.row, -1), alive, axis=0)
    x = g.op("Gather", tokens.x, row, axis=0)
    size = None
    if tokens.size is not None:
        size = g.op("Gather", g.reshape(tokens.size, -1), alive, axis=0, name="size")  # [T']
    return Packed(x, size, make_layout(g, _count(g, tokens.alive, name="count")))
