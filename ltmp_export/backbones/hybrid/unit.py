"""What a unit of attention tells the network that it is in, in plain numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from ltmp_export.backbones.hybrid.convolutions import Conv
from ltmp_export.plan.geometry import Size
from ltmp_export.plan.linears import Linear
from ltmp_export.plan.step import Step


class Unit(Protocol):
    """Transformer blocks on one map."""

    @property
    def path(self) -> str:
        """Of its weights."""

    @property
    def depth(self) -> int:
        """Its blocks."""

    @property
    def sets(self) -> int:
        """Sets into which the tokens of an image fall, which attend among themselves."""

    @property
    def width(self) -> int:
        """Channels of a token."""

    def block(self, index: int) -> str:
        """Path of the weights of one of its blocks."""

    def grid(self, size: Size) -> Size:
        """Rows and columns of one set's tokens, from the size of the map.

        Raises:
            ValueError: The map does not fit.
        """

    def map(self, grid: Size) -> Size:
        """The inverse."""

    def macs(self, size: Size, merged: Size, steps: Sequence[Step]) -> int:
        """Multiply-accumulates on a map, of which its first block makes one of another size."""

    def scores(self, grid: Size) -> int:
        """Numbers of the scores of one attention."""

    def all_convs(self) -> tuple[Conv, ...]:
        """Its convolutions."""

    def linears(self, block: int) -> Iterator[Linear]:
        """Its linear layers; its first block is the plan's block of this number."""

    def require_sound(self) -> None:
        """Check what a file may have said; ValueError where it cannot be."""


class Passage(NamedTuple):
    """A piece and the maps on its way.

    Attributes:
        piece: It.
        size: Height and width of the map it is given.
        left: Of the map it leaves.
        first: The plan's number of its first block; None where it has none.
        starts: Whether that is the first of a stage, and may merge.
        grid: Rows and columns of one set's tokens in a unit.
        merged: The same behind the first block's merge.
    """

    piece: Any
    size: Size
    left: Size
    first: int | None = None
    starts: bool = False
    grid: Size = (0, 0)
    merged: Size = (0, 0)
