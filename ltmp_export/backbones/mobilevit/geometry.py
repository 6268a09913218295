"""MobileViT in plain numbers (arXiv 2110.02178, timm's `mobilevit_*`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ltmp_export.backbones.hybrid.convolutions import Conv, convs_of, require_joined, work
from ltmp_export.backbones.hybrid.geometry import Hybrid
from ltmp_export.plan.geometry import Size
from ltmp_export.plan.linears import KEPT, POOLED, RECEIVED, Linear
from ltmp_export.plan.step import Step

NAME = "a MobileViT"
CLASSES = ("ByobNet",)
KEY = r"stages\.\d+\.\d+\.conv_fusion\.conv\.weight"
FIRST = r"stem\.conv"
UNUSED = r".*\.num_batches_tracked"


@dataclass(frozen=True)
class Patches:
    """A MobileViT block: transformers among the pixels that have one place in their patch.

    Attributes:
        path: Of its weights.
        patch: Height and width of a patch in cells.
        blocks: Transformer blocks.
        width: Channels of a token.
        mlp_width: Channels inside the MLP.
        heads: Attention heads.
        local: Convolutions in front.
        project: The one behind the transformers.
        fusion: The one on what the block was given, beside what that gives.
    """

    path: str
    patch: Size
    blocks: int
    width: int
    mlp_width: int
    heads: int
    local: tuple[Conv, ...]
    project: Conv
    fusion: Conv

    @property
    def depth(self) -> int:
        """Its transformer blocks."""
        return self.blocks

    @property
    def sets(self) -> int:
        """Pixels of a patch: those at one place attend among themselves."""
        return self.patch[0] * self.patch[1]

    @property
    def ins(self) -> int:
        """Channels of the map that it is given."""
        return self.local[0].ins

    def block(self, index: int) -> str:
        """Path of the weights of one of its transformer blocks."""
        return f"{self.path}.transformer.{index}"

    def grid(self, size: Size) -> Size:
        """Rows and columns of patches.

        Raises:
            ValueError: The map is no whole number of patches.
        """
        (height, width), (ph, pw) = size, self.patch
        if height % ph or width % pw:
            raise ValueError(
                f"{self.path} is given a map of {height} × {width} cells, no whole number of "
                f"{ph} × {pw} patches: timm interpolates it, which is not supported"
            )
        return height // ph, width // pw

    def map(self, grid: Size) -> Size:
        """Height and width of a map of so many patches."""
        return grid[0] * self.patch[0], grid[1] * self.patch[1]

    def macs(self, size: Size, merged: Size, steps: Sequence[Step]) -> int:
        """Multiply-accumulates on a map, of which its first transformer block merges the tokens."""
        grid, left = self.grid(size), self.map(merged)
        n, p, c = grid[0] * grid[1], merged[0] * merged[1], self.width
        total = work(self.local, size) + work((self.project, self.fusion), left)
        for step in steps:
            total += step.macs(self.sets * n, 0, c)
            total += self.sets * n * p * self.ins  # what the block was given
        mlp = self.sets * p * 2 * c * self.mlp_width
        first = self._attention(n) + mlp
        return total + first + (self.blocks - 1) * (self._attention(p) + mlp)

    def _attention(self, tokens: int) -> int:
        """Multiply-accumulates of one attention in sets of so many tokens."""
        return self.sets * (4 * tokens * self.width**2 + 2 * tokens**2 * self.width)

    def scores(self, grid: Size) -> int:
        """Numbers of the scores of one attention."""
        return self.sets * self.heads * (grid[0] * grid[1]) ** 2

    def all_convs(self) -> tuple[Conv, ...]:
        """Its convolutions."""
        return (*self.local, self.project, self.fusion)

    def linears(self, block: int) -> Iterator[Linear]:
        """Its linear layers; its first block is the plan's block of this number."""
        c = self.width
        for index in range(self.blocks):
            path, number = self.block(index), block + index
            for leaf, ins, outs, rows, norm in (
                ("attn.qkv", c, 3 * c, RECEIVED, f"{path}.norm1"),
                ("attn.proj", c, c, RECEIVED, None),
                ("mlp.fc1", c, self.mlp_width, KEPT, f"{path}.norm2"),
                ("mlp.fc2", self.mlp_width, c, KEPT, None),
            ):
                scope = f"block_{number:02d}/{leaf.replace('.', '/')}"
                yield Linear(f"{path}.{leaf}", ins, outs, rows, number, norm, scope=scope)

    def require_sound(self) -> None:
        """Check what a file may have said.

        Raises:
            ValueError: It cannot be.
        """
        numbers = (*self.patch, self.blocks, self.width, self.mlp_width, self.heads)
        whole = all(type(number) is int and 0 < number < 2**31 for number in numbers)
        if type(self.path) is not str or len(self.patch) != 2 or not whole:
            raise ValueError(f"a MobileViT block of sizes {numbers}")
        require_joined((*self.local, self.project))
        self.fusion.require_sound()
        behind = self.ins + self.project.outs
        fits = self.local[-1].outs == self.width and self.fusion.ins == behind
        strides = {conv.stride for conv in (*self.local, self.project, self.fusion)}
        if not fits or strides != {1} or self.width % self.heads:
            raise ValueError(f"convolutions of {self.path} that do not fit each other")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Patches:
        """From what `dataclasses.asdict` made of one."""
        own = dict(values)
        local, (project,), (fusion,) = (
            convs_of(one) for one in (own.pop("local"), [own.pop("project")], [own.pop("fusion")])
        )
        patch = tuple(own.pop("patch"))
        return cls(patch=patch, local=local, project=project, fusion=fusion, **own)


@dataclass(frozen=True)
class MobileVit(Hybrid):
    """A MobileViT; `head` is the width of the mean."""

    kind: ClassVar[str] = "mobilevit"
    UNIT: ClassVar[type[Any]] = Patches
    INNER: ClassVar[tuple[str, ...]] = ("attn.scores", "attn.mixed", "mlp.act")
    activation: ClassVar[str] = "silu"

    def last_linears(self) -> Iterator[Linear]:
        """The classifier."""
        (width,) = self.head
        yield Linear("head.fc", width, self.classes, POOLED, fine=True)
