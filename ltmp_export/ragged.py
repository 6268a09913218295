"""Ragged batches in ONNX: tokens of all images packed as rows, padded only where images must meet.

Each image keeps its own number of tokens, so a batch is ragged. The rows of all images stand one
after the other, [T, C], in the order of the images:

    packed  [a0 a1 a2 | b0 b1 b2 b3 b4 | c0]          T = 9 rows, counts 3 5 1
    slots   [a0 a1 a2 a2 a2]   valid 1 1 1 0 0        B = 3 images, N = 5 slots
            [b0 b1 b2 b3 b4]         1 1 1 1 1
            [c0 c0 c0 c0 c0]         1 0 0 0 0

Every pointwise layer runs on packed rows and never computes padding. Attention, matching and
deciding see slots, made by Gather, which also splits and joins the heads. An image's empty slots
repeat its own last row, so nothing (a NaN, say) passes from one image to another; `valid` keeps
them out of every result. In a graph for single images rows are slots, and what tells images from
one another is not written.

A small operator costs an onnxruntime session about a microsecond whatever it computes, so there are
as few of them as possible, and those that several blocks or steps share are written once.
All integers are int64.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from ltmp_export.graph import GraphBuilder, Name

NEGATIVE_INFINITY = float("-inf")
LEAST_SLOTS = 3  # the class token, a destination, a source: matching is never about nothing


@dataclass(frozen=True)
class Layout:
    """Where the tokens of each image are.

    Attributes:
        count: [B] tokens per image.
        most: The most tokens an image can have, known before running.
        images: [B, 1] 0, 1, 2, …; None in a graph for single images.
        even: Whether all images are known to have the same number of tokens, at least 3.
        per_image: [B, 1] tokens.
        offset: [B, 1] packed row of each image's class token; None in a graph for single images.
        slots: [1] N, at least 3.
        position: [N] 0, 1, 2, …
        rows: [B, N] packed row behind each slot.
    """

    g: GraphBuilder
    count: Name
    most: int
    images: Name | None
    even: bool
    per_image: Name
    offset: Name | None
    slots: Name
    position: Name
    rows: Name

    @property
    def valid(self) -> Name:
        """[B, N] bool, the slots that hold a token of their own."""
        return self.g.op("Less", self.position, self.per_image)

    def for_counts(self, count: Name) -> Layout:
        """The layout of other token counts [B]."""
        return make_layout(self.g, count, self.most, self.images)

    def class_rows(self) -> Name:
        """[B] packed row of each image's class token."""
        if self.offset is None:
            return self.g.ints(0)
        return self.g.reshape(self.offset, -1)

    def where_valid(self, values: Name) -> Name:
        """[B, N] → [T], the slots that hold a token."""
        flat = self.g.reshape(values, -1)
        if self.even:
            return flat
        return self.g.op("Compress", flat, self.g.reshape(self.valid, -1), axis=0)

    # Attention

    def split_heads(self, qkv: Name, heads: int, width: int) -> tuple[Name, Name, Name]:
        """Packed rows [T, 3 * H * D] → queries, keys and values, [B, H, N, D] each.

        Splitting, padding and exchanging axes is one Gather of D numbers at a time for each.
        """
        g = self.g
        pieces = g.reshape(qkv, -1, width)  # [T * 3 * H, D]
        first = g.op("Unsqueeze", g.op("Mul", self.rows, g.index(3 * heads)), g.ints(1))
        q_place = g.op("Add", first, g.column(range(heads)))  # [B, H, N]
        k_place, v_place = (g.op("Add", q_place, g.index(part * heads)) for part in (1, 2))
        return (
            g.op("Gather", pieces, q_place, axis=0, name="q"),
            g.op("Gather", pieces, k_place, axis=0, name="k"),
            g.op("Gather", pieces, v_place, axis=0, name="v"),
        )

    def join_heads(self, padded: Name, heads: int, width: int) -> Name:
        """[B, H, N, D] → packed rows [T, H * D]."""
        g = self.g
        pieces = g.reshape(padded, -1, width)  # [B * H * N, D]
        place = self.position  # of a slot's first head: b * H * N + n
        if self.images is not None:
            before = g.op("Mul", self.images, g.op("Mul", self.slots, g.index(heads)))
            place = g.op("Add", place, before)  # [B, N]
        first = g.op("Unsqueeze", self.where_valid(place), g.ints(1))  # [T, 1]
        steps = g.op("Mul", self.slots, g.ints(*range(heads)))  # [H]
        gathered = g.op("Gather", pieces, g.op("Add", first, steps), axis=0)  # [T, H, D]
        return g.reshape(gathered, -1, heads * width)

    def score_bias(self, size: Name | None) -> Name | None:
        """What to add to attention scores [B, H, N, N]: log of the key's size [T], -inf if empty.

        None while every token stands for one patch and no slot is empty.
        """
        g = self.g
        if size is None and self.even:
            return None
        log_size = g.number(0.0)
        if size is not None:
            log_size = g.op("Gather", g.op("Log", size), self.rows, axis=0)
        bias = g.op("Where", self.valid, log_size, g.number(NEGATIVE_INFINITY))
        return g.op("Unsqueeze", bias, g.ints(1, 2))  # [B, 1, 1, N]

    def importance(self, weights: Name, heads: int) -> Name:
        """[B, H, N, N] attention → [B, N]: mean over heads and over the image's own queries."""
        g = self.g
        count = g.op("Cast", self.per_image, to=TensorProto.FLOAT)
        share = g.op("Div", g.number(1.0 / heads), count)  # [B, 1]
        queries = g.op("Where", self.valid, share, g.number(0.0))  # [B, N]
        per_head = g.op("MatMul", g.op("Unsqueeze", queries, g.ints(1, 2)), weights)
        return g.reduce("ReduceSum", per_head, [1, 2], name="importance")  # of [B, H, 1, N]

    def metric(self, keys: Name, heads: int, width: int) -> Name:
        """[B, H, N, D] keys → [B, N, D]: mean over heads, scaled to unit length."""
        g = self.g
        if self.images is None:  # a product with a row of 1 / H is faster than the mean of one
            total = g.op("MatMul", g.row(1.0 / heads, heads), g.reshape(keys, heads, -1))
            mean = g.reshape(total, 1, -1, width)
        else:
            mean = g.reduce("ReduceMean", keys, [1])
        return g.op("LpNormalization", mean, axis=-1, p=2, name="metric")

    # Matching

    def destination_mask(self) -> Name | None:
        """[B, 1, Nd] bool, the odd slots that hold a token; None where no source could take others.

        A single image has empty slots only if it has no source.
        """
        if self.even or self.images is None:
            return None
        return self.g.op("Unsqueeze", self.g.slice(self.valid, 1, 1, step=2), self.g.ints(1))

    def numbered(self, width: Name) -> Name:
        """[B, K] 0, 1, 2, … through all images, K [1] entries each."""
        within = self.g.arange(self.most, width)
        if self.images is None:
            return self.g.op("Unsqueeze", within, self.g.ints(0))
        return self.g.op("Add", within, self.g.op("Mul", self.images, width))

    # Pooling

    def mean_of_patches(self, x: Name) -> Name:
        """[T, C] → [B, C]: plain mean over each image's patch tokens, zeros if none is left."""
        g = self.g
        patches = g.slice(self.valid, 1, 1)  # [B, N - 1] bool
        selected = g.op("Cast", patches, to=TensorProto.FLOAT)
        rows = g.op("Gather", x, g.slice(self.rows, 1, 1), axis=0)  # [B, N - 1, C]
        total = g.op("MatMul", g.op("Unsqueeze", selected, g.ints(1)), rows)  # [B, 1, C]
        count = g.op("Max", g.op("Sub", self.per_image, g.index(1)), g.index(1))  # [B, 1]
        divisor = g.op("Cast", count, to=TensorProto.FLOAT)
        return g.op("Div", g.op("Squeeze", total, g.ints(1)), divisor)


def make_layout(
    g: GraphBuilder, count: Name, most: int, images: Name | None, even: bool = False
) -> Layout:
    """Lay out a batch from its token counts [B], or one image; the rest as in `Layout`."""
    per_image = g.op("Unsqueeze", count, g.ints(1))
    if even:
        slots = g.ints(most)
    else:
        largest = count if images is None else g.reduce("ReduceMax", count, [0], keepdims=True)
        slots = g.op("Max", largest, g.ints(LEAST_SLOTS))
    position = g.arange(most, slots)
    rows = position
    if not even:
        rows = g.op("Min", rows, g.op("Sub", per_image, g.index(1)))  # [B, N]
    offset = None
    if images is not None:
        offset = g.op("CumSum", per_image, g.index(0), exclusive=1)
        rows = g.op("Add", rows, offset)
    elif even:
        rows = g.op("Unsqueeze", rows, g.ints(0))  # [1, N]
    return Layout(g, count, most, images, even, per_image, offset, slots, position, rows)
