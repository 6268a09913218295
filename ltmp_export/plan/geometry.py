"""What a network is here: geometry and the few facts weights do not tell. A ViT's is in `vit`.

Shape letters used throughout the package: B images, N tokens, T packed rows, C channels,
H heads, D channels per head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from ltmp_export.plan.linears import Linear
from ltmp_export.plan.plan import Plan, Rows

ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu", "silu", "relu")
POOLS = ("token", "avg")
MOST_PIXELS = 2**16  # of a side

Size: TypeAlias = tuple[int, int]  # height and width
Shape: TypeAlias = tuple[int | None, ...]


class Place(NamedTuple):
    """A transformer block, where tokens may be reduced.

    Attributes:
        path: Prefix of the names of its weights.
        sets: Sets of tokens of one image that attend among themselves.
        grid: Rows and columns of the tokens of one set.
        width: Channels C of a token.
        starts: Whether it takes nothing over from the block before but tokens.
    """

    path: str
    sets: int
    grid: Size
    width: int
    starts: bool


class Geometry(Protocol):
    """What everybody may ask of a network's geometry, whatever network it is.

    Between attention and MLP of a block one image has sets · tokens rows, set after set.
    """

    @property
    def kind(self) -> str:
        """Name of its folder in `backbones/`."""

    @property
    def name(self) -> str:
        """As timm calls it, or the file itself."""

    @property
    def image_size(self) -> Size:
        """(height, width) in pixels."""

    @property
    def in_chans(self) -> int:
        """Channels of an image."""

    @property
    def classes(self) -> int:
        """Number of logits; 0 of a model without classifier."""

    @property
    def outputs(self) -> Mapping[str, Shape]:
        """What files of it can give, by the names of `plan.outputs`, and in which shape.

        That of one image; None stands for a side that depends on the images.
        """

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""

    @property
    def activation(self) -> str:
        """Of the MLPs, one of `ACTIVATIONS`."""

    @property
    def depth(self) -> int:
        """Blocks, of which a plan says what happens in each."""

    @property
    def prefix(self) -> int:
        """Rows in front that are never merged away or pruned."""

    @property
    def tokens(self) -> int:
        """Tokens of one image before the first block."""

    def places(self) -> tuple[Place, ...]:
        """The blocks."""

    def rows(self, plan: Plan, counts: Sequence[int] | None = None) -> tuple[Rows, ...]:
        """Tokens of one image at each block; `counts` [depth]: what each MLP runs on, if known."""

    def require_possible(self, plan: Plan) -> None:
        """Check that the model can take a plan's steps; ValueError: it cannot."""

    def linears(self) -> Iterator[Linear]:
        """All linear layers, in the order of the computation."""

    def layer_rows(self, rows: Sequence[Rows]) -> list[int]:
        """Rows that one image gives to each of the `linears`."""

    def macs(self, plan: Plan, counts: Sequence[int] | None = None) -> int:
        """Multiply-accumulates of all products of one image; `counts` as in `rows`."""

    def kept_places(self) -> frozenset[str]:
        """What of it a float16 file may compute in float32, see `Precision.kept`."""

    def words(self) -> tuple[str, str]:
        """Architecture, and patches, for a person."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for the exported file's metadata, without the kind."""
