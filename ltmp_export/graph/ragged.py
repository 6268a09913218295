"""Ragged batches in ONNX: tokens of all images packed as rows, padded only where images must meet.

Each image keeps its own number of tokens, so a batch is ragged. The rows of all images stand one
after the other, [T, C], in the order of the images:

    packed  [a0 a1 a2 | b0 b1 b2 b3 b4 | c0]          T = 9 rows, counts 3 5 1
    slots   [a0 a1 a2 a2 a2]   valid 1 1 1 0 0        B = 3 images, N = 5 slots
            [b0 b1 b2 b3 b4]         1 1 1 1 1
            [c0 c0 c0 c0 c0]         1 0 0 0 0

Every pointwise layer runs on packed rows and never computes padding. Attention, matching and
deciding see slots, made by Gather, which also splits the heads; Compress leaves the padding out
again. An image's empty slots repeat its own last row, so nothing (a NaN, say) passes from one image
to another; `valid` keeps them out of every result. All integers are int64. Of single images see
`graph.single`.

A small operator costs an onnxruntime session about a microsecond whatever it computes, so there are
as few as possible, and those that several blocks or steps share are written once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from onnx import TensorProto

from ltmp_export.graph import sums
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.unit import unit
from ltmp_export.plan import pairing

# In place of -inf, so that no constant of a graph is infinite: added to an attention score it gives
# no attention at all, and no score is below it.
LOWEST = float(np.finfo(np.float32).min)
# In a batch slots are a multiple of this. onnxruntime adds up the product of one row (importance)
# in such pieces, and what is left over in another order, which depends on the rest of the batch.
SLOTS_STEP = 4


@dataclass(frozen=True)
class Layout:
    """Where the tokens of each image are.

    Attributes:
        count: [B] tokens per image.
        most: The most tokens an image can have, known before running.
        images: [B, 1] 0, 1, 2, …; None in a graph for single images.
        fixed: N, where it is known before running: row b * N + n is slot n of image b, empty or
            not. None where rows are packed.
        full: Whether no slot is known to be empty.
        per_image: [B, 1] tokens.
        offset: [B, 1] row of each image's first token; None in a graph for single images.
        slots: [1] N; where rows are packed ≥ P + 2 and a multiple of 4.
        position: [N] 0, 1, 2, …
        rows: [B, N] row behind each slot.
        living: [B, N] bool, who holds a token where these do not stand in front, else None.
        protected: P slots in front that never go.
        heads_axis: Where the heads of queries, keys, values and scores stand.
    """

    heads_axis: ClassVar[int] = 1

    g: GraphBuilder
    count: Name
    most: int
    images: Name | None
    fixed: int | None
    full: bool
    per_image: Name
    offset: Name | None
    slots: Name
    position: Name
    rows: Name
    living: Name | None = None
    protected: int = 1

    @property
    def valid(self) -> Name:
        """[B, N] bool, the slots that hold a token of their own."""
        if self.living is not None:
            return self.living
        return self.g.op("Less", self.position, self.per_image)

    @property
    def numbers(self) -> Name:
        """`images` of a batch.

        Raises:
            ValueError: The graph is one for single images.
        """
        if self.images is None:
            raise ValueError("a graph for single images does not number them")
        return self.images

    def for_counts(self, count: Name) -> Layout:
        """The layout of other token counts [B]."""
        return make_layout(self.g, count, self.most, self.numbers, self.protected)

    def class_rows(self) -> Name:
        """[B] packed row of each image's class token.

        Of counts as they are: a tool joins an axis behind a sum with it, and calls that the count.
        """
        if self.offset is None:
            return self.g.ints(0)
        if self.fixed is not None:
            return self.g.reshape(self.offset, -1)
        return self.g.op("CumSum", self.count, self.g.index(0), exclusive=1)

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

    def exchanged(self, keys: Name) -> Name:
        """[B, H, N, D] → [B, H, D, N]."""
        return self.g.op("Transpose", keys, perm=[0, 1, 3, 2])

    def heads_alone(self, x: Name) -> Name:
        """What was computed with places that every image has: as it is."""
        return x

    def join_heads(self, padded: Name, heads: int, width: int) -> Name:
        """[B, H, N, D] → packed rows [T, H * D]."""
        g = self.g
        if self.fixed is None:
            rows = g.reshape(g.op("Transpose", padded, perm=[0, 2, 1, 3]), -1, heads * width)
            return g.op("Compress", rows, g.reshape(self.valid, -1), axis=0)
        pieces = g.reshape(padded, -1, width)  # [B * H * N, D]
        place = self.position  # of a slot's first head: b * H * N + n
        if self.images is not None:
            before = g.op("Mul", self.images, g.op("Mul", self.slots, g.index(heads)))
            place = g.op("Add", place, before)  # [B, N]
        first = g.op("Unsqueeze", g.reshape(place, -1), g.ints(1))  # [T, 1]
        steps = g.op("Mul", self.slots, g.ints(*range(heads)))  # [H]
        gathered = g.op("Gather", pieces, g.op("Add", first, steps), axis=0)  # [T, H, D]
        return g.reshape(gathered, -1, heads * width)

    def score_bias(self, size: Name | None, largest: int | None) -> Name | None:
        """What to add to attention scores [B, H, N, N]: log of the key's size; `LOWEST` if empty.

        The logarithms are a table: onnxruntime's differ in the last bit by where a number stands in
        its tensor, and with them an image's result by its batch.

        Args:
            size: [T]; [B, N] where N is fixed; None while every token stands for one patch.
            largest: The most patches that a token can stand for; None where sizes are no whole
                numbers, whose logarithms are computed.

        Returns:
            [B, 1, 1, N], or None where there is nothing to add.
        """
        g = self.g
        if size is None and self.full:
            return None
        bias = g.number(0.0)
        if size is not None:
            if largest is None:
                bias = sums.logarithms(g, size)
            else:
                whole = g.op("Cast", size, to=TensorProto.INT64)
                bias = g.op("Gather", g.logarithms(largest), whole)
            if self.fixed is None:
                bias = g.op("Gather", bias, self.rows, axis=0)
        if not self.full:
            bias = g.op("Where", self.valid, bias, g.number(LOWEST))
        return g.op("Unsqueeze", bias, g.ints(1, 2))

    def importance(self, weights: Name, heads: int) -> Name:
        """[B, H, N, N] attention → [B, N]: mean over heads and over the image's own queries.

        The row of shares stands for each head: of a product that broadcasts over heads but not over
        images MNN takes other rows without a word, and tract refuses it.
        """
        g = self.g
        if self.fixed is not None and self.full:
            row = np.full((1, 1, 1, self.fixed), 1.0 / (heads * self.fixed), np.float32)
            queries = g.stored(f"const/queries[{heads},{self.fixed}]", row)  # all four axes
            batch = g.ints(1)
            if self.images is not None:
                batch = g.op("Shape", self.images, start=0, end=1)
            shape = g.op("Concat", batch, g.ints(heads, 1, self.fixed), axis=0)
            queries = g.op("Expand", queries, shape)
        else:
            share = g.op("Gather", self._shares(heads), self.count, axis=0)  # [B, H, 1, 1]
            own = g.op("Unsqueeze", self.valid, g.ints(1, 2))  # [B, 1, 1, N]
            queries = g.op("Where", own, share, g.number(0.0))  # [B, H, 1, N]
        per_head = g.op("MatMul", queries, weights)  # [B, H, 1, N]
        return g.reduce("ReduceSum", per_head, [1, 2], name="importance")

    def _shares(self, heads: int) -> Name:
        """A constant [most + 1, H, 1, 1]: of 0, 1, … tokens what one adds to the mean of all."""
        counts = np.arange(self.most + 1, dtype=np.float32).clip(min=1)
        shares = np.float32(1.0 / heads) / counts
        table = np.repeat(shares[:, None], heads, 1)[:, :, None, None]
        return self.g.stored(f"const/shares[{heads},{self.most}]", table)

    def class_attention(self, weights: Name, heads: int) -> Name:
        """[B, H, N, N] attention → [B, N]: what the class token, row 0, gives; mean over heads."""
        g = self.g
        of_class = g.op("Gather", weights, g.index(0), axis=2)  # [B, H, N]
        return g.op(
            "Mul", sums.total(g, of_class, [1]), g.number(1.0 / heads), name="class_attention"
        )

    def metric(self, keys: Name, heads: int, width: int) -> Name:
        """[B, H, N, D] keys → [B, N, D]: mean over heads, scaled to unit length."""
        g = self.g
        if self.images is None:  # a product with a row of 1 / H is faster than the mean of one
            total = g.op("MatMul", g.row(1.0 / heads, heads), g.reshape(keys, heads, -1))
            mean = g.reshape(total, 1, -1, width)
        else:
            mean = g.reduce("ReduceMean", keys, [1])
        return unit(g, mean, width, name="metric")

    def slots_of(self, rows: Name, width: int) -> Name:
        """Metric by rows [T, D] → by slots [B, N, D]."""
        if self.fixed is not None:
            return self.g.reshape(rows, -1, self.fixed, width, name="metric")
        return self.g.op("Gather", rows, self.rows, axis=0, name="metric")

    # Matching

    def destination_mask(self) -> Name | None:
        """[B, 1, Nd] bool, destinations that hold a token; None where all do."""
        if self.full:
            return None
        first = pairing.first_destination(self.protected)
        return self.g.op("Unsqueeze", self.g.slice(self.valid, 1, first, step=2), self.g.ints(1))


def make_layout(g: GraphBuilder, count: Name, most: int, images: Name, protected: int) -> Layout:
    """Lay out packed rows of a batch from token counts [B]."""
    per_image = g.op("Unsqueeze", count, g.ints(1))
    largest = g.reduce("ReduceMax", count, [0], keepdims=True)
    largest = g.op("Max", largest, g.ints(0))  # of no images it is the lowest number there is
    slots = g.op("Gather", _slots_for(g, most, pairing.least(protected)), largest)  # [1]
    position = g.arange(most + SLOTS_STEP, slots)
    rows = g.op("Min", position, g.op("Sub", per_image, g.index(1)))  # [B, N]
    offset = g.op("CumSum", per_image, g.index(0), exclusive=1)
    rows = g.op("Add", rows, offset)
    place = (per_image, offset, slots, position, rows, None, protected)
    return Layout(g, count, most, images, None, False, *place)


def _slots_for(g: GraphBuilder, most: int, least: int) -> Name:
    """A constant: how many slots 0, 1, … `most` tokens need."""
    needed = np.arange(most + 1).clip(min=least)
    fours = -(-needed // SLOTS_STEP) * SLOTS_STEP
    return g.stored(f"const/slots[{most},{least}]", fours.astype(np.int64))


def fixed_layout(
    g: GraphBuilder,
    slots: int,
    images: Name | None,
    count: Name | None = None,
    living: Name | None = None,
    protected: int = 1,
) -> Layout:
    """Lay out images of so many slots each.

    Args:
        g: Where to write.
        slots: N.
        images: As in `Layout`.
        count: [B] tokens in the first slots of each image; None if all hold one.
        living: As in `Layout`.
        protected: P.
    """
    full = count is None and living is None
    if count is None:
        count = g.ints(slots)
        if images is not None:
            count = g.op("Expand", count, g.op("Shape", images, start=0, end=1))
    position = g.counting(slots)
    if images is None:
        offset, rows = None, g.op("Unsqueeze", position, g.ints(0))  # [1, N]
    else:
        offset = g.op("Mul", images, g.index(slots))
        rows = g.op("Add", position, offset)  # [B, N]
    per_image = g.op("Unsqueeze", count, g.ints(1))
    n = g.ints(slots)
    place = (per_image, offset, n, position, rows)
    return Layout(g, count, slots, images, slots, full, *place, living, protected)
