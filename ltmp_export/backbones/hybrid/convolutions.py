"""Convolutions in plain numbers: what each makes of a map's size, and its work."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ltmp_export.plan.geometry import ACTIVATIONS, Size

HARDSWISH = "hardswish"
KNOWN_ACTIVATIONS = ("", *ACTIVATIONS, HARDSWISH)


class Conv(NamedTuple):
    """A convolution with an odd kernel, padded on all sides by half of it.

    Attributes:
        path: Of its weights, by timm's names.
        ins: Channels in.
        outs: Channels out.
        kernel: Side of the kernel in cells.
        stride: Cells from one output to the next.
        groups: Groups of channels that do not see each other.
        norm: Path of the BatchNorm behind it, or "".
        act: Activation behind that, or "".
    """

    path: str
    ins: int
    outs: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    norm: str = ""
    act: str = ""

    def map(self, size: Size) -> Size:
        """Height and width of what it makes of a map."""
        return -(-size[0] // self.stride), -(-size[1] // self.stride)

    def macs(self, size: Size) -> int:
        """Multiply-accumulates on a map of this size."""
        rows, columns = self.map(size)
        return rows * columns * self.outs * (self.ins // self.groups) * self.kernel**2

    def require_sound(self) -> None:
        """Check what a file may have said.

        Raises:
            ValueError: It is no convolution.
        """
        numbers = (self.ins, self.outs, self.kernel, self.stride, self.groups)
        whole = all(type(number) is int and 0 < number < 2**31 for number in numbers)
        words = all(type(word) is str for word in (self.path, self.norm, self.act))
        fits = whole and self.kernel % 2 == 1 and not (self.ins % self.groups)
        if not (words and fits and self.act in KNOWN_ACTIVATIONS):
            raise ValueError(f"a convolution {tuple(self)}")


@dataclass(frozen=True)
class Chain:
    """Convolutions one after the other.

    Attributes:
        convs: They.
        shortcut: Whether what goes in is added to what comes out.
    """

    convs: tuple[Conv, ...]
    shortcut: bool = False

    def __post_init__(self) -> None:
        require_joined(self.convs)
        kept = self.convs[0].ins == self.convs[-1].outs and all(c.stride == 1 for c in self.convs)
        if type(self.shortcut) is not bool or (self.shortcut and not kept):
            raise ValueError(f"a shortcut around {self.convs[0].path}")

    def map(self, size: Size) -> Size:
        """Height and width of what it makes of a map."""
        return passed(self.convs, size)

    def macs(self, size: Size) -> int:
        """Multiply-accumulates on a map of this size."""
        return work(self.convs, size)

    def all_convs(self) -> tuple[Conv, ...]:
        """They."""
        return self.convs

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Chain:
        """From what `dataclasses.asdict` made of one."""
        return cls(convs_of(values["convs"]), values["shortcut"])


def convs_of(values: Sequence[Sequence[Any]]) -> tuple[Conv, ...]:
    """Convolutions from lists of their values."""
    return tuple(Conv(*one) for one in values)


def require_joined(convs: Sequence[Conv]) -> None:
    """Check that each takes what the one before gives.

    Raises:
        ValueError: One does not, or there is none.
    """
    for conv in convs:
        conv.require_sound()
    fits = (before.outs == after.ins for before, after in itertools.pairwise(convs))
    if not convs or not all(fits):
        raise ValueError(f"convolutions {[conv.path for conv in convs]} that do not fit each other")


def passed(convs: Sequence[Conv], size: Size) -> Size:
    """Height and width of a map behind all of these."""
    for conv in convs:
        size = conv.map(size)
    return size


def work(convs: Sequence[Conv], size: Size) -> int:
    """Multiply-accumulates of all of these, one after the other, from a map of this size."""
    return sum(conv.macs(before) for conv, before in sized(convs, size))


def sized(convs: Sequence[Conv], size: Size) -> Iterator[tuple[Conv, Size]]:
    """Each with the size of the map that it is given."""
    for conv in convs:
        yield conv, size
        size = conv.map(size)
