"""A network of convolutions and of units in which the cells of a map attend to one another.

Both are pieces, one after the other. A unit holds one or more transformer blocks, which are the
blocks of a plan; where the first of a stage merges tokens, the map has fewer cells from there on,
and everything behind it less to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeAlias, TypeVar

from ltmp_export.backbones.hybrid.cells import shaped
from ltmp_export.backbones.hybrid.convolutions import Chain
from ltmp_export.backbones.hybrid.unit import Passage, Unit
from ltmp_export.plan.cells import cells
from ltmp_export.plan.geometry import MOST_PIXELS, Place, Shape, Size
from ltmp_export.plan.linears import POOLED, Linear
from ltmp_export.plan.outputs import LOGITS
from ltmp_export.plan.plan import Plan, Rows, dense_plan

Piece: TypeAlias = "Chain | Unit"
H = TypeVar("H", bound="Hybrid")


@dataclass(frozen=True)
class Hybrid:
    """Such a network.

    Attributes:
        name: timm's name.
        image_size: (height, width) in pixels.
        in_chans: Channels of an image.
        classes: Of the classifier.
        pieces: In order, down to what is averaged over the map.
        head: Widths from the mean down to what the classifier is given.
        norm_eps: Epsilon of every LayerNorm.
        batch_eps: Epsilon of every BatchNorm.
    """

    kind: ClassVar[str]
    UNIT: ClassVar[type[Any]]
    INNER: ClassVar[tuple[str, ...]] = ()
    activation: ClassVar[str]
    prefix: ClassVar[int] = 0

    name: str
    image_size: Size
    in_chans: int
    classes: int
    pieces: tuple[Piece, ...]
    head: tuple[int, ...]
    norm_eps: float
    batch_eps: float

    def __post_init__(self) -> None:
        numbers = (*self.image_size, self.in_chans, self.classes, *self.head)
        whole = all(type(number) is int and 0 < number < 2**31 for number in numbers)
        if not whole or len(self.image_size) != 2 or max(self.image_size) > MOST_PIXELS:
            raise ValueError(f"a {self.kind} of sizes {numbers}")
        if not all(type(e) is float and 0 < e < 1 for e in (self.norm_eps, self.batch_eps)):
            raise ValueError(f"epsilons {self.norm_eps!r} and {self.batch_eps!r}")
        for unit in self.units:
            unit.require_sound()
        if not self.units or not isinstance(self.pieces[0], Chain):
            raise ValueError(f"a {self.kind} without convolutions or without attention")
        list(self.passages(dense_plan(self.depth)))  # whether every map fits

    @property
    def units(self) -> tuple[Any, ...]:
        """Those that hold transformer blocks."""
        return tuple(piece for piece in self.pieces if not isinstance(piece, Chain))

    @property
    def depth(self) -> int:
        """Transformer blocks, which are the blocks of a plan."""
        return sum(unit.depth for unit in self.units)

    @property
    def outputs(self) -> dict[str, Shape]:
        """What files of it can give, and the shape of each."""
        return {LOGITS: (self.classes,)}

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return (self.in_chans, *self.image_size)

    @property
    def tokens(self) -> int:
        """Tokens of one image before the first block."""
        return self.rows(dense_plan(self.depth))[0].given

    def require_possible(self, plan: Plan) -> None:
        """Check that the model can take a plan's steps.

        Raises:
            ValueError: It cannot.
        """
        if plan.before or len(plan.blocks) != self.depth:
            raise ValueError(f"a plan of {len(plan.blocks)} blocks, or of what stands before them")
        list(self.passages(plan))

    def passages(self, plan: Plan) -> Iterator[Passage]:
        """Each piece with the maps on its way under a plan.

        Raises:
            ValueError: A map does not fit, or something is merged elsewhere than where a stage
                begins.
        """

        def planned(unit: Unit, first: int, starts: bool, grid: Size) -> Size:
            merged = grid
            for block in range(first, first + unit.depth):
                for step in plan.blocks[block]:
                    tokens = unit.sets * merged[0] * merged[1]
                    left = step.after(tokens, self.prefix)
                    fits = block == first and starts and step.possible(tokens, self.prefix)
                    if not fits or step.restores or left is None or left % unit.sets:
                        raise ValueError(f"block {block} cannot take {step}")
                    merged = shaped(merged, left // unit.sets)
            return merged

        return self._passages(planned)

    def _passages(self, merge: Callable[[Unit, int, bool, Size], Size]) -> Iterator[Passage]:
        """The same where `merge` gives the grid that a unit's first block leaves."""
        size, first, starts = self.image_size, 0, True
        for piece in self.pieces:
            if isinstance(piece, Chain):
                yield Passage(piece, size, piece.map(size))
                size, starts = piece.map(size), True
                continue
            grid = piece.grid(size)
            merged = merge(piece, first, starts, grid)
            yield Passage(piece, size, piece.map(merged), first, starts, grid, merged)
            size, first, starts = piece.map(merged), first + piece.depth, False

    def reduced(self, ratio: float) -> dict[int, tuple[Size, Size]]:
        """Where a share of the tokens is merged once in each stage: a set's grid before and after.

        By the plan's number of the block.

        Raises:
            ValueError: Nothing is left, or a map behind a merge does not fit.
        """

        def some(unit: Unit, first: int, starts: bool, grid: Size) -> Size:
            left = cells(ratio, grid) if starts else grid
            if not min(left):
                raise ValueError(f"nothing is left of {grid[0]} × {grid[1]} tokens of {unit.path}")
            return left

        return {
            one.first: (one.grid, one.merged)
            for one in self._passages(some)
            if one.first is not None and one.starts
        }

    def places(self) -> tuple[Place, ...]:
        """Each transformer block, with nothing merged."""
        return tuple(
            Place(one.piece.block(index), one.piece.sets, one.grid, one.piece.width,
                  one.starts and not index)
            for one in self.passages(dense_plan(self.depth))
            if one.first is not None
            for index in range(one.piece.depth)
        )  # fmt: skip

    def rows(self, plan: Plan, counts: Sequence[int] | None = None) -> tuple[Rows, ...]:
        """Tokens of one image at each block; no image has a say."""
        found = []
        for one in self.passages(plan):
            if one.first is not None:
                sides = (one.grid, one.merged)
                received, kept = (one.piece.sets * rows * columns for rows, columns in sides)
                found.append(Rows(received, received, kept, kept))
                found += [Rows(kept, kept, kept, kept)] * (one.piece.depth - 1)
        return tuple(found)

    def macs(self, plan: Plan, counts: Sequence[int] | None = None) -> int:
        """Multiply-accumulates of one image: convolutions, attention, merging, linear layers."""
        total = sum(layer.ins * layer.outs for layer in self.last_linears())
        for one in self.passages(plan):
            steps = () if one.first is None else (plan.blocks[one.first],)
            merged = () if one.first is None else (one.merged,)
            total += one.piece.macs(one.size, *merged, *steps)
        return total

    def linears(self) -> Iterator[Linear]:
        """Linear layers in the order of the computation."""
        block = 0
        for unit in self.units:
            yield from unit.linears(block)
            block += unit.depth
        yield from self.last_linears()

    def last_linears(self) -> Iterator[Linear]:
        """Those behind the mean over the map."""
        raise NotImplementedError

    def layer_rows(self, rows: Sequence[Rows]) -> list[int]:
        """Rows that one image gives to each of the `linears`."""
        found = []
        for layer in self.linears():
            block = rows[layer.block or 0]
            found.append({POOLED: 1}.get(layer.rows, getattr(block, layer.rows, 0)))
        return found

    def most_numbers(self) -> int:
        """The most numbers that a map of one image, or attention on it, has: one after the other.

        Of convolutions what they are given and give, of attention the scores.
        """
        most = 0
        for one in self.passages(dense_plan(self.depth)):
            wide = max(max(conv.ins, conv.outs) for conv in one.piece.all_convs())
            most = max(most, one.size[0] * one.size[1] * wide)
            if one.first is not None:
                most = max(most, one.piece.scores(one.grid))
        return most

    def kept_places(self) -> frozenset[str]:
        """What of it a float16 file may compute in float32."""
        convs = (conv.path for piece in self.pieces for conv in piece.all_convs())
        inner = (f"{place.path}.{leaf}" for place in self.places() for leaf in self.INNER)
        return frozenset((*convs, *inner, *(layer.path for layer in self.linears())))

    def words(self) -> tuple[str, str]:
        """Architecture, and maps, for a person."""
        stages = [one for one in self.passages(dense_plan(self.depth)) if one.starts]
        widths = ", ".join(str(one.piece.width) for one in stages)
        maps = ", ".join(f"{one.size[0]}x{one.size[1]}" for one in stages)
        return (
            f"{self.depth} blocks in {len(stages)} stages, width {widths}, {self.activation}, "
            "pool avg",
            f"maps {maps}",
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; see `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls: type[H], values: Mapping[str, Any]) -> H:
        """The inverse of `to_json`.

        Raises:
            LookupError, TypeError, ValueError: It is none.
        """
        own = dict(values)
        pieces = [
            Chain.from_json(one) if "convs" in one else cls.UNIT.from_json(one)
            for one in own.pop("pieces")
        ]
        image_size, head = (tuple(own.pop(word)) for word in ("image_size", "head"))
        return cls(pieces=tuple(pieces), image_size=image_size, head=head, **own)
