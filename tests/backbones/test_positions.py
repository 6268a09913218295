"""Position embeddings for another image size, and the grids that can be told."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

from ltmp_export import check, export
from ltmp_export.backbones.vit.positions import Grid, grid
from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices
from tests.conftest import DIGITS_LTMP, state_of

Write = Callable[[dict[str, Any]], Path]
ONE = torch.empty(1, 1, 8, device="meta")


def weights(rows: int, prefix: int = 1) -> dict[str, torch.Tensor]:
    tokens = dict.fromkeys(("cls_token", "dist_token")[:prefix], ONE)
    if prefix > 2:
        tokens["reg_token"] = torch.empty(1, prefix - 2, 8, device="meta")
    return tokens | {
        "pos_embed": torch.empty(1, rows, 8, device="meta"),
        "patch_embed.proj.weight": torch.empty(8, 3, 4, 4, device="meta"),
    }


@pytest.mark.parametrize(
    ("rows", "stored", "asked", "expected"),
    [
        (17, None, None, (4, 4, 1)),
        (17, (16, 16), None, (4, 4, 1)),
        (13, (16, 12), None, (4, 3, 1)),
        (12, (16, 12), None, (4, 3, 0)),
        (13, None, (12, 16), (3, 4, 1)),
        (17, None, (32, 32), (4, 4, 1)),
        (17, (64, 64), (32, 32), (4, 4, 1)),
        (13, (16, 12), (32, 24), (4, 3, 1)),
        (17, (18, 18), None, (4, 4, 1)),
        (65, None, (20, 52), (8, 8, 1)),
        (16, None, (12, 20), (3, 5, 1)),  # with a row for the class token, before 4 by 4 without
        (65, None, (16, 64), (8, 8, 1)),
    ],
)
def test_grid(rows: int, stored: Any, asked: Any, expected: tuple[int, int, int]) -> None:
    """As stored, else square, else as asked; a size that is no whole number of patches is cut."""
    down, across, prefix = expected
    assert grid(weights(rows), stored, asked) == Grid(down, across, (4, 4), prefix)


@pytest.mark.parametrize(
    ("rows", "tokens", "stored", "expected"),
    [
        (18, 2, None, (4, 4, 2)),
        (14, 2, (12, 16), (3, 4, 2)),
        (16, 0, None, (4, 4, 0)),
        (16, 2, (16, 16), (4, 4, 0)),
        (12, 0, (12, 16), (3, 4, 0)),
    ],
)
def test_grid_behind_other_tokens(
    rows: int, tokens: int, stored: Any, expected: tuple[int, int, int]
) -> None:
    """Two tokens before the patches have two rows or none, and no token has none."""
    down, across, prefix = expected
    assert grid(weights(rows, tokens), stored, None) == Grid(down, across, (4, 4), prefix)


@pytest.mark.parametrize(("rows", "tokens"), [(17, 2), (17, 0), (18, 1), (18, 0)])
def test_rows_of_other_tokens_than_there_are(rows: int, tokens: int) -> None:
    with pytest.raises(InputError, match=f"{rows} rows, which is no square of patches"):
        grid(weights(rows, tokens), None, None)


def test_grids_that_cannot_be_told() -> None:
    with pytest.raises(InputError, match="13 rows, which is no square .*; state the im"):
        grid(weights(13), None, None)
    with pytest.raises(
        InputError, match="states images of 32x32, 64 patches, .* 17 rows; expected 65 or 64;"
    ):
        grid(weights(17), (32, 32), None)
    with pytest.raises(InputError, match="17 rows; expected 64; state the right size"):
        grid(weights(17, prefix=0), (32, 32), None)


def test_another_image_size_resizes_with_a_warning(tmp_path: Path) -> None:
    """As timm resamples it; the exported file is that model, and its check knows of it."""
    larger = Choices(image_size=(40, 48))
    plain, found = load_checkpoint(DIGITS_LTMP), load_checkpoint(DIGITS_LTMP, larger)
    assert found.vit.image_size == (40, 48)
    expected = resample_abs_pos_embed(plain.model.pos_embed, [10, 12], [8, 8])
    assert torch.equal(found.model.pos_embed, expected)
    (warning,) = found.warnings
    assert warning.startswith("position embedding resized from 8x8 to 10x12 patches; thresholds")
    export(DIGITS_LTMP, tmp_path / "m.onnx", choices=larger)
    check(tmp_path / "m.onnx", DIGITS_LTMP, samples=3).require()


def test_the_same_size_changes_nothing() -> None:
    found = load_checkpoint(DIGITS_LTMP, Choices(image_size=(32, 32)))
    assert not found.warnings
    assert torch.equal(found.model.pos_embed, load_checkpoint(DIGITS_LTMP).model.pos_embed)


def test_a_size_between_patches_is_refused() -> None:
    with pytest.raises(InputError, match="--img-size 42,40 is no whole number of patches of 4x4"):
        load_checkpoint(DIGITS_LTMP, Choices(image_size=(42, 40)))


def test_the_name_tells_a_size_that_the_file_does_not(tmp_path: Path) -> None:
    """28 x 7 patches are as many as 14 x 14, and yet another picture."""
    model = timm.create_model("deit_tiny_patch16_224", depth=1, num_classes=3)
    torch.save(state_of(model, 1) | {"arch": "ltp_deit_tiny_patch16_224"}, tmp_path / "c.pth")
    found = load_checkpoint(tmp_path / "c.pth", Choices(image_size=(448, 112)))
    assert found.vit.image_size == (448, 112)
    assert found.warnings[0].startswith("position embedding resized from 14x14 to 28x7 patches")


def test_a_stated_size_that_is_wrong_is_refused_until_put_right(
    content: dict[str, Any], write: Write
) -> None:
    content["args"]["img_size"] = 64
    with pytest.raises(InputError, match="states images of 64x64, 256 patches, but .* --img-size"):
        load_checkpoint(write(content))
    assert load_checkpoint(write(content), Choices(image_size=(32, 32))).vit.image_size == (32, 32)


def question(rows: int, prefix: int, **said: Any) -> str:
    with pytest.raises(InputError) as caught:
        grid(weights(rows, prefix), None, None, **said)
    return str(caught.value)


def test_two_readings_are_asked_for() -> None:
    """16 by 14 patches and a class token are as many rows as 15 by 15 patches without."""
    open_still = question(225, 1)
    assert "fitting are 64x56, 56x64, 60x60 if those tokens have none" in open_still
    assert question(225, 1, unplaced=False).endswith("fitting are 64x56, 56x64")
    assert grid(weights(225), None, None, unplaced=True) == Grid(15, 15, (4, 4), 0)
    assert grid(weights(225), None, (64, 56)) == Grid(16, 14, (4, 4), 1)
    assert grid(weights(225), None, (60, 60)) == Grid(15, 15, (4, 4), 0)
    assert grid(weights(225), (60, 60), None) == Grid(15, 15, (4, 4), 0)


def square(patches: int) -> int:
    """The side of a square of so many patches, or 0."""
    side = next(side for side in range(patches + 2) if side * side >= patches)
    return side if side * side == patches else 0


def by_rule(rows: int, prefix: int, unplaced: bool) -> tuple[int, int] | None:
    """Side and tokens with rows of their own, or None where it has to be asked for."""
    for before in (0, prefix) if unplaced else (prefix,):
        if rows > before and square(rows - before):
            return square(rows - before), before
    return None


@pytest.mark.parametrize("prefix", range(7))  # class, distillation and register tokens
def test_every_grid_follows_the_rule(prefix: int) -> None:
    """All grids up to 40 by 40 patches, with rows for the tokens before them and without."""
    asked = 0
    for down, across, placed in itertools.product(range(1, 41), range(1, 41), (True, False)):
        rows = down * across + (prefix if placed else 0)
        file = weights(rows, prefix)
        size = (4 * down, 4 * across)
        for unplaced in (False, True):
            expected = by_rule(rows, prefix, unplaced)
            if expected is None:
                asked += 1
                with pytest.raises(InputError, match="state the image size"):
                    grid(file, None, None, unplaced=unplaced)
                found = grid(file, None, size, unplaced=unplaced)
                assert (found.rows, found.columns) == (down, across)
                assert found.prefix == rows - down * across
            else:
                side, before = expected
                assert grid(file, None, None, unplaced=unplaced) == Grid(side, side, (4, 4), before)
            stated = grid(file, size, None, unplaced=None if unplaced is False else unplaced)
            assert (stated.rows, stated.columns) == (down, across)
    assert asked > 1000


def test_a_name_that_knows_another_size_never_misleads() -> None:
    """13 by 15 patches and a class token are as many rows as 14 by 14 without, for every n."""
    for side in range(2, 41):
        rows = (side - 1) * (side + 1) + 1
        named: dict[str, Any] = {"usual": ((4 * side, 4 * side),), "unplaced": False}
        own = (4 * (side - 1), 4 * (side + 1))
        if square(rows - 1) == 0:
            assert "state the image size" in question(rows, 1, **named)
        found = grid(weights(rows), None, own, **named)
        assert (found.rows, found.columns, found.prefix) == (side - 1, side + 1, 1)
        with pytest.raises(InputError, match="states images of"):
            grid(weights(rows), (4 * side, 4 * side), None, unplaced=False)


def test_usual_sizes_read_what_fits_them() -> None:
    usual = ((16, 12), (12, 20))
    assert grid(weights(13), None, None, usual=usual) == Grid(4, 3, (4, 4), 1)
    assert grid(weights(16), None, None, usual=usual, unplaced=False) == Grid(3, 5, (4, 4), 1)
    assert "state the image size" in question(12, 1, usual=usual)
    assert grid(weights(12), None, None, usual=usual, unplaced=True) == Grid(4, 3, (4, 4), 0)
