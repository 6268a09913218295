"""What a Swin Transformer is here: stages of blocks whose tokens attend among those of a window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

from ltmp_export.plan.geometry import Place, Shape, Size
from ltmp_export.plan.linears import EMBEDDING, KEPT, PATCHES, POOLED, RECEIVED, Linear
from ltmp_export.plan.outputs import LOGITS
from ltmp_export.plan.plan import Plan, Rows

NAME = "a Swin Transformer"
CLASSES = ("SwinTransformer",)
KEY = r"layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table"
FIRST = r"patch_embed\.proj"
UNUSED = r"layers\.\d+\.blocks\.\d+\.(attn\.relative_position_index|attn_mask)"


class Block(NamedTuple):
    """One transformer block.

    Attributes:
        path: Prefix of the names of its weights.
        width: Channels C of a token.
        heads: Attention heads H.
        mlp_width: Channels inside the MLP.
        grid: Rows and columns of all its tokens.
        window: Rows and columns of those that attend among themselves.
        shift: By how many rows and columns the tokens are rolled before windows are cut.
        merges: Path of what makes a token of four in front of it, or nothing.
    """

    path: str
    width: int
    heads: int
    mlp_width: int
    grid: Size
    window: Size
    shift: Size
    merges: str

    @property
    def windows(self) -> Size:
        """Rows and columns of windows."""
        return self.grid[0] // self.window[0], self.grid[1] // self.window[1]

    @property
    def sets(self) -> int:
        """Windows."""
        return self.windows[0] * self.windows[1]

    @property
    def area(self) -> int:
        """Tokens of a window."""
        return self.window[0] * self.window[1]

    @property
    def tokens(self) -> int:
        """Tokens of an image."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class Swin:
    """A Swin Transformer; tuples are of its stages.

    Attributes:
        name: timm's name.
        image_size: (height, width) in pixels.
        patch_size: (height, width) in pixels.
        depths: Blocks.
        widths: Channels of a token.
        mlp_widths: Channels inside the MLP.
        heads: Attention heads.
        windows: (rows, columns) of a window.
        norm_eps: Epsilon of every LayerNorm.
        activation: One of `plan.geometry.ACTIVATIONS`.

    Raises:
        ValueError: These are no sizes of one, or windows or patches would have to be padded.
    """

    kind: ClassVar[str] = "swin"
    restores: ClassVar[bool] = True  # what is reduced is given back before windows are joined
    prefix: ClassVar[int] = 0
    name: str
    image_size: Size
    patch_size: Size
    in_chans: int
    classes: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    mlp_widths: tuple[int, ...]
    heads: tuple[int, ...]
    windows: tuple[Size, ...]
    norm_eps: float
    activation: str

    def __post_init__(self) -> None:
        stages = self.depths, self.widths, self.mlp_widths, self.heads
        sides = (
            *self.image_size,
            *self.patch_size,
            *(side for one in self.windows for side in one),
        )
        sizes = (*sides, self.in_chans, self.classes, *(size for one in stages for size in one))
        if not all(type(size) is int and 0 < size < 2**31 for size in sizes):
            raise ValueError(f"a Swin Transformer of sizes {sizes}; expected positive integers")
        count = len(self.depths)
        if not count or {len(one) for one in (*stages, self.windows)} != {count}:
            raise ValueError(f"a Swin Transformer of {count} stages with sizes of others")
        if sum(self.depths) > 2**10 or any(
            width % heads for width, heads in zip(self.widths, self.heads, strict=True)
        ):
            raise ValueError(f"widths {self.widths} of {self.heads} heads, {self.depths} blocks")
        if reason := self.padded():
            raise ValueError(reason)

    def padded(self) -> str:
        """Where something would have to be padded, or nothing."""
        size = "x".join(map(str, self.image_size))
        grid = self.image_size
        for stage, window in enumerate(self.windows):
            divisor, what = ((2, 2), "pairs of tokens") if stage else (self.patch_size, "patches")
            if any(side % part for side, part in zip(grid, divisor, strict=True)):
                return f"images of {size} are no whole number of {what} in stage {stage}"
            grid = grid[0] // divisor[0], grid[1] // divisor[1]
            if any(side % part for side, part in zip(grid, window, strict=True)):
                shown = "x".join(map(str, window))
                return (
                    f"images of {size} are no whole number of windows of {shown} in stage {stage}"
                )
        return ""

    @property
    def outputs(self) -> dict[str, Shape]:
        """What files of it can give, and the shape of each."""
        return {LOGITS: (self.classes,)}

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return (self.in_chans, *self.image_size)

    @property
    def depth(self) -> int:
        """Blocks."""
        return sum(self.depths)

    @property
    def grid(self) -> Size:
        """Rows and columns of patches."""
        (h, w), (ph, pw) = self.image_size, self.patch_size
        return h // ph, w // pw

    @property
    def tokens(self) -> int:
        """Tokens of one image before the first block."""
        return self.grid[0] * self.grid[1]

    def blocks(self) -> Iterator[Block]:
        """All blocks; every other one of a stage is shifted, where there are several windows."""
        (rows, columns) = self.grid
        for stage, depth in enumerate(self.depths):
            grid, window = (rows >> stage, columns >> stage), self.windows[stage]
            several = tuple(
                0 if side <= part else part // 2 for side, part in zip(grid, window, strict=True)
            )
            for number in range(depth):
                yield Block(
                    path=f"layers.{stage}.blocks.{number}",
                    width=self.widths[stage],
                    heads=self.heads[stage],
                    mlp_width=self.mlp_widths[stage],
                    grid=grid,
                    window=window,
                    shift=(several[0], several[1]) if number % 2 else (0, 0),
                    merges=f"layers.{stage}.downsample" if stage and not number else "",
                )

    def places(self) -> tuple[Place, ...]:
        """The blocks, whose sets are windows; masks begin with a stage, and where it is shifted."""
        return tuple(
            Place(b.path, b.sets, b.window, b.width, b.path.endswith(".0") or any(b.shift))
            for b in self.blocks()
        )

    def rows(self, plan: Plan, counts: Sequence[int] | None = None) -> tuple[Rows, ...]:
        """Tokens at each block; all are there again behind it."""
        found = []
        for index, (block, steps) in enumerate(zip(self.blocks(), plan.blocks, strict=True)):
            kept = block.tokens
            for step in steps:
                kept = step.after(kept, 0) or kept
            kept = kept if counts is None else int(counts[index])
            found.append(Rows(block.tokens, block.tokens, kept, block.tokens))
        return tuple(found)

    def require_possible(self, plan: Plan) -> None:
        """Check that the model can take a plan's steps.

        Raises:
            ValueError: It cannot.
        """
        if plan.before:
            raise ValueError(f"steps before blocks {list(plan.before)} of a Swin Transformer")
        for index, (block, steps) in enumerate(zip(self.blocks(), plan.blocks, strict=True)):
            fits = len(steps) < 2 and all(step.restores for step in steps)
            if not fits or not all(step.possible(block.tokens, 0) for step in steps):
                raise ValueError(f"block {index} cannot take {steps}")

    def linears(self) -> Iterator[Linear]:
        """All linear layers in the order of the computation.

        In int8 the head alone has 16 bits: a mask follows the tokens of its own window, and what
        is rounded in the first block decides of nobody for good.
        """
        patch = self.patch_size[0] * self.patch_size[1] * self.in_chans
        yield Linear(EMBEDDING, patch, self.widths[0], PATCHES)
        for index, block in enumerate(self.blocks()):
            path, c, scope = block.path, block.width, f"block_{index:02d}"
            if block.merges:
                ins = 4 * self.widths[self._stage(block) - 1]
                reduction, norm = f"{block.merges}.reduction", f"{block.merges}.norm"
                where = f"{scope}/merge/reduction"
                yield Linear(reduction, ins, c, RECEIVED, index, norm, scope=where)
            inside: tuple[tuple[str, int, int, str, str | None], ...] = (
                ("attn.qkv", c, 3 * c, RECEIVED, f"{path}.norm1"),
                ("attn.proj", c, c, RECEIVED, None),
                ("mlp.fc1", c, block.mlp_width, KEPT, f"{path}.norm2"),
                ("mlp.fc2", block.mlp_width, c, KEPT, None),
            )
            for leaf, ins, outs, rows, before in inside:
                where = f"{scope}/{leaf.replace('.', '/')}"
                yield Linear(f"{path}.{leaf}", ins, outs, rows, index, before, scope=where)
        yield Linear("head.fc", self.widths[-1], self.classes, POOLED, fine=True)

    def _stage(self, block: Block) -> int:
        """The number of a block's stage."""
        return int(block.path.split(".")[1])

    def layer_rows(self, rows: Sequence[Rows]) -> list[int]:
        """Rows that one image gives to each of the linear layers."""
        found = []
        for layer in self.linears():
            block = rows[layer.block or 0]
            by_word = {PATCHES: self.tokens, RECEIVED: block.received, KEPT: block.kept, POOLED: 1}
            found.append(by_word[layer.rows])
        return found

    def macs(self, plan: Plan, counts: Sequence[int] | None = None) -> int:
        """Multiply-accumulates one image takes."""
        rows = self.rows(plan, counts)
        total = sum(
            n * layer.ins * layer.outs
            for n, layer in zip(self.layer_rows(rows), self.linears(), strict=True)
        )
        for block, steps in zip(self.blocks(), plan.blocks, strict=True):
            total += 2 * block.tokens * block.area * block.width  # scores, and what they mix
            total += sum(step.macs(block.tokens, 0, block.width) for step in steps)
        return total

    def kept_places(self) -> frozenset[str]:
        """What of it a float16 file may compute in float32."""
        inner = ("attn.scores", "attn.mixed", "mlp.act")
        places = {f"{block.path}.{leaf}" for block in self.blocks() for leaf in inner}
        return frozenset(places | {layer.path for layer in self.linears()})

    def words(self) -> tuple[str, str]:
        """Architecture, and patches, for a person."""
        several = {
            "blocks": self.depths, "widths": self.widths, "heads": self.heads,
            "MLPs": self.mlp_widths, "windows": tuple(f"{h}x{w}" for h, w in self.windows),
        }  # fmt: skip
        told = [f"{word} {' '.join(map(str, values))}" for word, values in several.items()]
        patch = "x".join(map(str, self.patch_size))
        return f"Swin, {', '.join(told)}, {self.activation}, pool avg", f"patches {patch}"

    def to_json(self) -> dict[str, Any]:
        """Plain values for the exported file's metadata; see `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Swin:
        """The inverse of `to_json`."""
        pairs: dict[str, Any] = {
            key: tuple(tuple(one) if isinstance(one, list) else one for one in value)
            if isinstance(value, list)
            else value
            for key, value in values.items()
        }
        return cls(**pairs)
