"""EfficientViT of MIT in plain numbers (arXiv 2205.14756, timm's `efficientvit_b*`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ltmp_export.backbones.hybrid.convolutions import (
    HARDSWISH,
    Chain,
    Conv,
    convs_of,
    require_joined,
    work,
)
from ltmp_export.backbones.hybrid.geometry import Hybrid
from ltmp_export.plan.geometry import Size
from ltmp_export.plan.linears import POOLED, RECEIVED, Linear
from ltmp_export.plan.step import Step

NAME = "an EfficientViT"
CLASSES = ("EfficientVit",)
KEY = r"stages\.\d+\.blocks\.\d+\.context_module\.main\.qkv\.conv\.weight"
FIRST = r"stem\.in_conv\.conv"
UNUSED = r".*\.num_batches_tracked"


@dataclass(frozen=True)
class Cells:
    """An EfficientViT block: linear attention among the cells of a map, then convolutions.

    Attributes:
        path: Of its weights.
        heads: Attention heads of each scale.
        head_width: Channels of each head.
        eps: What is added to the sum of the weights.
        qkv: Queries, keys and values of the cells themselves.
        scales: For each further scale the two convolutions that make others of these.
        proj: The convolution behind all scales.
        local: Convolutions behind the attention.
    """

    path: str
    heads: int
    head_width: int
    eps: float
    qkv: Conv
    scales: tuple[tuple[Conv, ...], ...]
    proj: Conv
    local: Chain

    @property
    def depth(self) -> int:
        """One block."""
        return 1

    @property
    def sets(self) -> int:
        """All cells attend to one another."""
        return 1

    @property
    def width(self) -> int:
        """Channels of a cell."""
        return self.qkv.ins

    @property
    def all_heads(self) -> int:
        """Heads of all scales."""
        return self.heads * (1 + len(self.scales))

    def block(self, index: int) -> str:
        """Path of the weights."""
        return self.path

    def grid(self, size: Size) -> Size:
        """Each cell is a token."""
        return size

    def map(self, grid: Size) -> Size:
        """The inverse."""
        return grid

    def macs(self, size: Size, merged: Size, steps: Sequence[Step]) -> int:
        """Multiply-accumulates on a map that is merged between attention and convolutions."""
        n, d = size[0] * size[1], self.head_width
        total = self.qkv.macs(size) + self.proj.macs(size)
        total += sum(work(convs, size) for convs in self.scales)
        total += 2 * self.all_heads * n * d * (d + 1)  # keys times values, queries times these
        total += sum(step.macs(n, 0, self.width) for step in steps)
        return total + self.local.macs(merged)

    def scores(self, grid: Size) -> int:
        """None are made; what stands for them."""
        return self.all_heads * self.head_width * (self.head_width + 1)

    def all_convs(self) -> tuple[Conv, ...]:
        """Its convolutions."""
        scales = (conv for convs in self.scales for conv in convs)
        return (self.qkv, *scales, self.proj, *self.local.convs)

    def linears(self, block: int) -> Iterator[Linear]:
        """The convolutions of one cell of its attention."""
        for leaf, conv in (("qkv", self.qkv), ("proj", self.proj)):
            scope = f"block_{block:02d}/attn/{leaf}/conv"
            yield Linear(conv.path, conv.ins, conv.outs, RECEIVED, block, scope=scope)

    def require_sound(self) -> None:
        """Check what a file may have said.

        Raises:
            ValueError: It cannot be.
        """
        numbers = (self.heads, self.head_width)
        whole = all(type(number) is int and 0 < number < 2**31 for number in numbers)
        if type(self.path) is not str or not whole or type(self.eps) is not float:
            raise ValueError(f"an EfficientViT block of heads {numbers}, epsilon {self.eps!r}")
        for convs in self.scales:
            require_joined((self.qkv, *convs))
        self.qkv.require_sound()
        self.proj.require_sound()
        wide, ends = self.heads * self.head_width, [convs[-1] for convs in self.scales]
        fits = all(conv.outs == 3 * wide for conv in (self.qkv, *ends))
        fits = fits and self.proj.ins == self.all_heads * self.head_width
        fits = fits and self.proj.outs == self.width == self.local.convs[0].ins
        alone = {(conv.kernel, conv.groups) for conv in (self.qkv, self.proj)} == {(1, 1)}
        strides = {conv.stride for convs in self.scales for conv in convs}
        strides |= {conv.stride for conv in (self.qkv, self.proj)}
        if not fits or not alone or strides != {1} or not self.local.shortcut:
            raise ValueError(f"convolutions of {self.path} that do not fit each other")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Cells:
        """From what `dataclasses.asdict` made of one."""
        own = dict(values)
        qkv, proj = convs_of([own.pop("qkv"), own.pop("proj")])
        scales = tuple(convs_of(convs) for convs in own.pop("scales"))
        local = Chain.from_json(own.pop("local"))
        return cls(qkv=qkv, scales=scales, proj=proj, local=local, **own)


@dataclass(frozen=True)
class EfficientVit(Hybrid):
    """An EfficientViT; `head` has the widths of the mean and of the layer behind it."""

    kind: ClassVar[str] = "efficientvit"
    UNIT: ClassVar[type[Any]] = Cells
    activation: ClassVar[str] = HARDSWISH

    def last_linears(self) -> Iterator[Linear]:
        """The two layers behind the mean."""
        mean, hidden = self.head
        yield Linear("head.classifier.0", mean, hidden, POOLED, fine=True)
        yield Linear("head.classifier.4", hidden, self.classes, POOLED, fine=True)
