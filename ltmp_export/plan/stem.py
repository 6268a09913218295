"""The convolutions that some ViTs have in front of the patch embedding, in plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

PATH = "patch_embed.backbone"
RESNET = "resnet"  # ResNet V2's: weights standardised, GroupNorm, ReLU, padded as TensorFlow does
PLAIN = "plain"  # convolutions with BatchNorm and an activation between them (MobileCLIP's)
MBCONV = "mbconv"  # inverted bottlenecks behind LayerNorms of a cell's channels (ViTamin's)
KINDS = (RESNET, PLAIN, MBCONV)
FIRST, MIDDLE, LAST = ".conv1_1x1", ".conv2_kxk", ".conv3_1x1"  # of a bottleneck of MBCONV
GROUPS = 32  # of every GroupNorm
NORM_EPS = 1e-5  # of every GroupNorm and BatchNorm
LAYER_NORM_EPS = 1e-6  # of every LayerNorm
WEIGHT_EPS = 1e-8  # of the standardised weights


class StemConv(NamedTuple):
    """A convolution, and the map that it makes.

    Attributes:
        path: Of its weights, by timm's names.
        ins: Channels that an output channel sees.
        outs: Output channels.
        kernel: Side of the kernel in cells.
        stride: Cells from one output to the next.
        groups: Groups of channels that do not see each other.
        pads: Cells of padding above, left, below, right.
        rows: Of its output.
        columns: Of its output.
    """

    path: str
    ins: int
    outs: int
    kernel: int
    stride: int
    groups: int
    pads: tuple[int, int, int, int]
    rows: int
    columns: int


@dataclass(frozen=True)
class Stem:
    """Convolutions, and the embedding of patches of the map that they make.

    Attributes:
        kind: One of `KINDS`.
        convs: In the order of the computation.
        width: Channels of the map.
        patch: (height, width) of a patch of it in cells; None where each cell is a token as it is.
        activation: Between the convolutions.
    """

    kind: str
    convs: tuple[StemConv, ...]
    width: int
    patch: tuple[int, int] | None
    activation: str

    def __post_init__(self) -> None:
        numbers = [self.width, *(self.patch or (1, 1))]
        for conv in self.convs:
            numbers += [conv.ins, conv.outs, conv.kernel, conv.stride, conv.groups]
            numbers += [conv.rows, conv.columns, *(pad + 1 for pad in conv.pads)]
        whole = all(type(number) is int and 0 < number < 2**31 for number in numbers)
        if self.kind not in KINDS or not whole or len(numbers) < 4:
            raise ValueError(f"a stem of kind {self.kind!r:.50} and sizes {numbers}")

    def of(self, path: str) -> StemConv:
        """The convolution of that name.

        Raises:
            KeyError: There is none.
        """
        return {conv.path: conv for conv in self.convs}[path]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(
            one.rows * one.columns * one.outs * one.ins * one.kernel**2 for one in self.convs
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Stem:
        """From what `dataclasses.asdict` made of one."""
        convs = tuple(
            StemConv(*one)._replace(pads=tuple(one[6]))  # JSON knows no tuples
            for one in values["convs"]
        )
        patch = None if values["patch"] is None else tuple(values["patch"])
        return cls(**{**values, "convs": convs, "patch": patch})
