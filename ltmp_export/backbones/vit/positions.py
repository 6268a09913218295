"""The position embedding: the grid of patches it is for, and resizing it to another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltmp_export.backbones import by_name
from ltmp_export.backbones.vit import kinds
from ltmp_export.backbones.vit.features import Shaped
from ltmp_export.errors import InputError
from ltmp_export.files import memory
from ltmp_export.plan.geometry import Size

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Grid:
    """What the rows of a position embedding stand for.

    Attributes:
        rows: Patches down the image.
        columns: Patches across.
        patch: (height, width) of one in pixels.
        prefix: Rows before those of the patches: the class token's, the distillation token's, the
            registers'.
    """

    rows: int
    columns: int
    patch: Size
    prefix: int

    @property
    def image_size(self) -> Size:
        """(height, width) in pixels."""
        return (self.rows * self.patch[0], self.columns * self.patch[1])


def grid(
    weights: Mapping[str, Shaped],
    stated: Size | None,
    asked: Size | None,
    *,
    usual: Sequence[Size | None] = (),
    unplaced: bool | None = None,
    named: bool = False,
    cells: Size | None = None,
    source: str = "the checkpoint",
) -> Grid:
    """The grid of a checkpoint's position embedding, or a question.

    Of images as stated; else a square, with a row for each token before the patches, or with none
    where that is said; else of images as asked for. Registers have none in most models.

    Args:
        weights: With `pos_embed` [1, rows, C] and `patch_embed.proj.weight`; its tokens before
            the patches have rows of their own or none, or all but the registers have.
        stated: (height, width) of the images, as the checkpoint states it.
        asked: (height, width) that the user states; a square goes before it, since the user may
            well ask for another size than the checkpoint's.
        usual: (height, width) that models of its name or configuration have.
        unplaced: Whether the tokens before the patches have no rows, where something says so.
        named: Whether the model is known by name, which may be one without position embedding.
        cells: (height, width) in pixels of a cell of the map that a convolutional stem makes, where
            it is known; of ViTamin's, weights tell.
        source: Where the weights come from, for messages.

    Raises:
        InputError: The checkpoint contradicts itself, or what its rows are for has to be stated.
    """
    require_ranks(weights)
    stages = kinds.stages(weights)
    cells = stages.cells if cells is None and stages is not None else cells
    if kinds.has_stem(weights) and cells is None:
        raise InputError(
            f"{source}: nothing tells the layers of its convolutional stem (patch_embed.backbone); "
            "state the model's name with --model"
        )
    (down, across), (height, width) = cells or (1, 1), kinds.embedding(weights)[2:]
    patch, prefix = (down * height, across * width), prefix_tokens(weights)
    if "pos_embed" not in weights:
        return _without(patch, (stated, *usual, asked), named=named, source=source)
    rows, registers = weights["pos_embed"].shape[1], _registers(weights)
    befores = list(dict.fromkeys((0, prefix) if unplaced else (prefix, prefix - registers, 0)))
    # A name that gives these tokens positions leaves no reading without.
    possible = befores[:1] if unplaced is False else befores
    taken = befores if unplaced or (registers and unplaced is None) else befores[:1]
    for size, allowed in ((stated, possible), *((size, taken) for size in usual)):
        if size is not None and (found := _fitting(rows, size, patch, allowed)):
            return found
    if stated is not None and asked is None:
        raise InputError(_contradiction(rows, stated, patch, possible))
    squares = [Grid(side, side, patch, rows - side**2) for side in _sides(rows, taken)]
    fits = None if asked is None else _fitting(rows, asked, patch, befores)
    if registers and unplaced is None and squares and fits is not None and fits not in squares:
        raise InputError(
            f"{source}: the position embedding has {rows} rows: {squares[0].prefix} for the tokens "
            f"before {squares[0].rows}x{squares[0].columns} patches, or {fits.prefix} before "
            f"{fits.rows}x{fits.columns}; state the model's name with --model"
        )
    if squares and (len(squares) == 1 or unplaced is not None):
        return squares[0]
    if fits is not None:
        return fits
    raise InputError(_question(rows, patch, prefix, possible, asked, source))


def require_ranks(weights: Mapping[str, Shaped]) -> None:
    """Check that patches and positions have the dimensions of these.

    Raises:
        InputError: They have others, or none of a size.
    """
    known = {"patch_embed.proj.weight": 4, "pos_embed": 3} | kinds.stem_ranks(weights)
    for key, rank in known.items():
        shape = tuple(weights[key].shape) if key in weights else (1,) * rank
        if len(shape) != rank or 0 in shape:
            raise InputError(f"{key} has shape {shape}; a timm ViT has {rank} non-empty dimensions")


def prefix_tokens(weights: Mapping[str, Shaped]) -> int:
    """Tokens before the patches: class, distillation and register tokens."""
    return ("cls_token" in weights) + ("dist_token" in weights) + _registers(weights)


def _registers(weights: Mapping[str, Shaped]) -> int:
    shape = weights["reg_token"].shape if "reg_token" in weights else (1, 0)
    return shape[1] if len(shape) > 1 else 0


def _sides(rows: int, befores: Sequence[int]) -> list[int]:
    """Sides of the squares that rows are, some of them for other tokens."""
    sides = [(math.isqrt(max(rows - before, 0)), before) for before in befores]
    return [side for side, before in sides if side and side * side == rows - before]


def _without(patch: Size, sizes: Sequence[Size | None], *, named: bool, source: str) -> Grid:
    """The grid of a model without position embedding, of the first size that is known.

    Raises:
        InputError: Nothing says that it has none, or what its images are.
    """
    size = next((size for size in sizes if size is not None), None)
    if not named:
        raise InputError(
            f"{source}: pos_embed missing: nothing tells whether it has no position embedding, or "
            "one that weights do not show; state the model's name with --model"
        )
    if size is None or not min(down := size[0] // patch[0], across := size[1] // patch[1]):
        raise InputError(
            f"{source}: nothing tells the image size; state it with --img-size HEIGHT,WIDTH"
        )
    return Grid(down, across, patch, 0)


def _fitting(rows: int, size: Size, patch: Size, befores: Sequence[int]) -> Grid | None:
    """The grid of images of this size, if the embedding has its rows."""
    down, across = size[0] // patch[0], size[1] // patch[1]
    if down * across and rows - down * across in befores:
        return Grid(down, across, patch, rows - down * across)
    return None


def _contradiction(rows: int, size: Size, patch: Size, befores: Sequence[int]) -> str:
    patches = (size[0] // patch[0]) * (size[1] // patch[1])
    wanted = " or ".join(str(patches + before) for before in befores)
    return (
        f"the checkpoint states images of {size[0]}x{size[1]}, {patches} patches, but its "
        f"position embedding has {rows} rows; expected {wanted}; state the right size with "
        "--img-size"
    )


def _question(
    rows: int,
    patch: Size,
    prefix: int,
    befores: Sequence[int],
    asked: Size | None,
    source: str,
) -> str:
    """What the rows can be for, in one line."""
    readings = []
    for before in befores:
        sizes = [f"{h * patch[0]}x{w * patch[1]}" for h, w in _shapes(rows - before)]
        if sizes and prefix and not before:
            sizes[-1] += " if those tokens have none"
        readings += sizes
    known = f"; fitting are {', '.join(readings)}" if readings else ""
    square = "no square of patches" + (" and one for each token before them" if prefix else "")
    tried = "" if asked is None else f", and {asked[0]}x{asked[1]} would have other patches"
    return (
        f"{source}: the position embedding has {rows} rows, which is {square}{tried}; state the "
        f"image size it was trained at (--img-size HEIGHT,WIDTH){known}"
    )


def _shapes(patches: int) -> list[Size]:
    """The grid nearest to a square of so many patches, lying and standing; none if all are slim."""
    for down in range(math.isqrt(max(patches, 0)), 0, -1):
        if patches % down == 0:
            across = patches // down
            if across > 4 * down:
                return []
            return [(down, across)] if down == across else [(across, down), (down, across)]
    return []


def require_whole(asked: Size, patch: Size) -> None:
    """Check that images of that size, in pixels, can be, and are patches throughout.

    Raises:
        InputError: They are not.
    """
    by_name.require_sides(asked)
    if asked[0] % patch[0] or asked[1] % patch[1]:
        raise InputError(
            f"--img-size {asked[0]},{asked[1]} is no whole number of patches of "
            f"{patch[0]}x{patch[1]}"
        )


def resized(
    weights: Mapping[str, torch.Tensor], old: Grid, asked: Size | None
) -> tuple[Mapping[str, torch.Tensor], tuple[str, ...]]:
    """The weights for images of the size asked for, and a warning if that changed them.

    The embedding is resampled as timm does (bicubic, antialiased).

    Raises:
        InputError: The size is no whole number of patches, or takes more than the memory limit.
    """
    if asked is None:
        return weights, ()
    (height, width), patch = asked, old.patch
    require_whole(asked, patch)
    new = (height // patch[0], width // patch[1])
    if new == (old.rows, old.columns) or "pos_embed" not in weights:
        return weights, ()
    size = new[0] * new[1] * weights["pos_embed"].shape[2] * 4
    memory.require_memory(size, f"a position embedding of {new[0]}x{new[1]} patches")
    from timm.layers import resample_abs_pos_embed

    made = resample_abs_pos_embed(
        weights["pos_embed"],
        new_size=list(new),
        old_size=[old.rows, old.columns],
        num_prefix_tokens=old.prefix,
    )
    warning = (
        f"position embedding resized from {old.rows}x{old.columns} to {new[0]}x{new[1]} patches; "
        "thresholds and accuracy are those of the old size: check them on images"
    )
    return {**weights, "pos_embed": made}, (warning,)


def as_timm(weights: Mapping[str, torch.Tensor], grid: Grid) -> Mapping[str, torch.Tensor]:
    """The weights with positions of all tokens before the patches, or of none, as timm has them.

    Where registers alone have none, what is added to the others becomes part of these.
    """
    if not 0 < grid.prefix < prefix_tokens(weights):
        return weights
    names = [name for name in ("cls_token", "dist_token") if name in weights]
    rows = weights["pos_embed"][:, : grid.prefix]  # [1, 1 or 2, C]
    placed = {name: weights[name] + rows[:, at : at + 1] for at, name in enumerate(names)}
    return {**weights, **placed, "pos_embed": weights["pos_embed"][:, grid.prefix :]}
