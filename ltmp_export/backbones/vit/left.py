"""What a model gives of the tokens that its last block leaves, in ONNX, see `plan.outputs`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from onnx import TensorProto

from ltmp_export.backbones import edges
from ltmp_export.backbones.vit import classifier
from ltmp_export.backbones.vit.layers import VitLayers
from ltmp_export.backbones.vit.tokens import Packed
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.owners import Owners
from ltmp_export.graph.ragged import Layout
from ltmp_export.plan.outputs import DENSE, FEATURES, LOGITS, SIZES, TOKEN_MAP, TOKENS
from ltmp_export.plan.plan import Plan
from ltmp_export.precision.formats import Precision

KEPT = "kept"  # the axis of the tokens that are left of the image that has most


@dataclass(frozen=True)
class Left:
    """Writes them.

    Attributes:
        layers: The model's.
        found: These tokens.
        plan: By which they were left.
    """

    layers: VitLayers
    found: Packed
    plan: Plan

    @property
    def static(self) -> bool:
        """Whether each image has the same slots; else its rows are packed."""
        return self.plan.static

    @property
    def g(self) -> GraphBuilder:
        """Where to."""
        return self.layers.g

    @property
    def layout(self) -> Layout:
        """Where the tokens of an image are."""
        return self.found.layout

    def give(
        self,
        names: Sequence[str],
        precision: Precision,
        batch: int | str,
        broken: Name | None,
    ) -> None:
        """Write outputs.

        Args:
            names: Which, in order.
            precision: Of the file.
            batch: Its first axis.
            broken: [B, 1] to be added to all that is no whole number, or None.
        """
        g = self.g
        made: dict[str, Callable[[], Name]] = {
            LOGITS: partial(self._answer, classifier.classify),
            FEATURES: partial(self._answer, classifier.features),
            TOKENS: self.tokens,
            SIZES: self.sizes,
            TOKEN_MAP: self.token_map,
            DENSE: self.dense,
        }
        kept = self.layout.most if self.static else KEPT
        for name in names:
            shape = [kept if side is None else side for side in self.layers.vit.outputs[name]]
            with g.scope("head"):
                found = made[name]()
                if broken is not None and name not in edges.KINDS:
                    axes = g.ints(*range(2, len(shape) + 1))
                    added = g.op("Unsqueeze", broken, axes) if shape[1:] else broken
                    found = g.op("Add", found, added)
            edges.output(g, name, found, precision, (batch, *shape))

    def _answer(self, made: Callable[..., Name]) -> Name:
        """What `classifier` makes of them."""
        rows = self.found.x
        if self.static:
            rows = self.g.reshape(rows, -1, self.layers.vit.width)
        size = self.found.size if self.plan.pool_sizes else None
        largest = None if self.plan.fractional else self.layers.vit.tokens
        return made(self.layers, rows, size, self.layout, largest)

    def _slots(self) -> tuple[Name, Name]:
        """[B, K] packed row of each token, in the rest the last one's, and whether there is one."""
        g, layout = self.g, self.layout
        count = layout.count
        if layout.images is not None:
            count = g.reduce("ReduceMax", count, [0], keepdims=True)
        position = g.arange(layout.most, g.op("Max", count, g.ints(1)))  # [K]
        rows = g.op("Min", position, g.op("Sub", layout.per_image, g.index(1)))
        if layout.offset is not None:
            rows = g.op("Add", rows, layout.offset)
        return rows, g.op("Less", position, layout.per_image)

    def _among(self, values: Name) -> Name:
        """[T] or [T, C] by image, 0 in the rest; as they are where every slot holds a token."""
        g, layout = self.g, self.layout
        if self.static and layout.full:
            return values
        vectors = values == self._normed()
        if self.static:
            valid = layout.valid
        else:
            rows, valid = self._slots()
            values = g.op("Gather", values, rows, axis=0)
        if vectors:
            valid = g.op("Unsqueeze", valid, g.ints(2))
        return g.op("Where", valid, values, g.number(0.0))

    def _normed(self) -> Name:
        """Tokens behind the final norm, as `x`."""
        return self.layers.norm("norm", self.found.x)

    def tokens(self) -> Name:
        """[B, K, C]."""
        return self._among(self._normed())

    def sizes(self) -> Name:
        """[B, K]."""
        g = self.g
        if self.found.size is not None and not self.plan.fractional:
            return self._among(self.found.size)
        place, prefix = g.op("Unsqueeze", self.token_map(), g.ints(1)), self.layers.vit.prefix
        if self.static:
            there = g.counting(self.layout.most)
        else:
            there = g.arange(self.layout.most, g.op("Shape", self._slots()[0], start=1, end=2))
        column = g.op("Unsqueeze", there, g.ints(1))  # [K, 1]
        owned = g.op("Cast", g.op("Equal", place, column), to=TensorProto.FLOAT)  # [B, K, P]
        sizes = g.reduce("ReduceSum", owned, [2])
        if not prefix:
            return sizes
        return g.op("Where", g.op("Less", there, g.index(prefix)), g.number(1.0), sizes)

    def token_map(self) -> Name:
        """[B, P]."""
        g, place = self.g, self._owned().place
        if self.static or self.layout.offset is None:
            return place
        inside = g.op("Sub", place, self.layout.offset)
        return g.op("Where", self._owned().living(g), inside, g.index(-1))

    def dense(self) -> Name:
        """[B, C, h, w]."""
        g, owners, vit = self.g, self._owned(), self.layers.vit
        place = owners.somewhere(g)
        if not self.static:
            rows = g.op("Gather", self._normed(), place, axis=0)  # [B, P, C]
        else:
            index = g.op("Unsqueeze", place, g.ints(2))
            rows = g.op("GatherND", self._normed(), index, batch_dims=1)
        if owners.lost is not None:
            living = g.op("Unsqueeze", owners.living(g), g.ints(2))
            rows = g.op("Where", living, rows, self.layers.norm("norm", owners.lost))
        return g.reshape(g.op("Transpose", rows, perm=[0, 2, 1]), 0, vit.width, *vit.grid)

    def _owned(self) -> Owners:
        """Who owns the patches.

        Raises:
            ValueError: Nobody followed it.
        """
        if self.found.owners is None:
            raise ValueError("nobody has followed who owns the patches")
        return self.found.owners
