"""Regions, colours and pictures, by hand-made owners: no model, no runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ltmp_export.drawing import colours, names, pages, regions, seen, sheets, tokens, words
from ltmp_export.drawing.courses import Course
from ltmp_export.drawing.owned import Owned
from ltmp_export.errors import InputError
from ltmp_export.images.preprocessing import Preprocessing
from tests.conftest import FIXTURES

GOLDEN = FIXTURES / "drawn"
_UNLIKE = 0.01  # of the pixels: how Pillow draws a slanted line may change

# 5 x 4 patches, a row in front. Before: each its own, but 6 and 7 pruned. Tokens 1 (in two pieces,
# made here), 2 (of two, made here), 3 (alone), ...; -1: patches 6 and 7 before, 19 here.
PLACES = np.array([1, 1, 2, 2, 3,
                   4, -1, -1, 5, 1,
                   6, 7, 8, 9, 1,
                   10, 11, 12, 13, -1])  # fmt: skip
BEFORE = np.where(np.isin(np.arange(20), (6, 7)), -1, np.arange(20) + 1)


def owned() -> Owned:
    return Owned(3, (4, 5), PLACES, BEFORE, 14, 1)


def ground() -> NDArray[np.uint8]:
    """[16, 20, 3], bright to the right and below."""
    y, x = np.mgrid[0:16, 0:20]
    return np.stack([12 * x, 15 * y, 6 * x + 5 * y], axis=2).astype(np.uint8)


def course() -> Course:
    hues = tuple(colours.of([owned()]))
    return Course("a picture.png", Path("model.onnx"), ground(), (owned(),), hues)


def test_a_region_has_the_mean_colour_of_its_patches() -> None:
    found = regions.mean_colours(ground(), owned())
    mine = np.isin(regions.patch_of(16, 20, (4, 5)), np.flatnonzero(PLACES == 1))
    np.testing.assert_array_equal(found[0], ground()[mine].mean(0).round())
    assert (found[PLACES == 1] == found[0]).all()
    np.testing.assert_array_equal(found[6], ground()[4:8, 4:8].mean((0, 1)).round())


def test_patches_are_where_the_grid_says() -> None:
    found = regions.patch_of(9, 10, (3, 5))
    assert found.shape == (9, 10)
    assert np.bincount(found.ravel()).tolist() == [6] * 15
    assert found[3, 2] == 6


def test_edges_are_of_the_true_region() -> None:
    label = np.array([[1, 1, 1, 1]] * 4 + [[1, 1, 2, 2]] * 2)
    found = regions.edge(label, 1)
    inner = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)]
    assert {tuple(place) for place in np.argwhere(~found).tolist()} <= {*inner, (4, 1)}
    assert not found[1, 1]
    assert found[3, 2]  # above the other
    assert found[3, 1]  # at its corner


def test_pieces_and_the_shortest_links_between_them() -> None:
    assert regions.pieces(owned(), 1) == [[0, 1], [9, 14]]
    assert regions.links(owned(), 1) == [(1, 9)]
    assert regions.pieces(owned(), 2) == [[2, 3]]
    assert regions.links(owned(), 2) == []


def test_neighbours_differ_and_colours_stay() -> None:
    rng = np.random.default_rng(0)
    blocks, places = [], np.arange(64)
    for block in range(4):
        before, merging = places, rng.permutation(np.unique(places))
        into = dict(zip(merging[:8].tolist(), merging[8:16].tolist(), strict=True))
        joined = np.array([into.get(place, place) for place in places.tolist()])
        _, places = np.unique(joined, return_inverse=True)
        blocks.append(Owned(block, (8, 8), places, before, int(places.max()) + 1, 0))
    found = colours.of(blocks)
    for one, hues in zip(blocks, found, strict=True):
        assert ((hues >= 0) == one.several).all()
        for token in np.unique(one.places[one.several]):
            assert len(set(hues[one.places == token].tolist())) == 1
    grid, hue = blocks[0].places.reshape(8, 8), found[0].reshape(8, 8)
    beside = (grid[:, 1:] != grid[:, :-1]) & (hue[:, 1:] >= 0)
    assert not (beside & (hue[:, 1:] == hue[:, :-1])).any()
    kept = (found[0] >= 0) & ~blocks[1].merged_here
    assert (found[0] == found[1])[kept].mean() > 0.8


def test_colours_are_told_apart_without_one_kind_of_cone() -> None:
    """In the planes that protanopes and deuteranopes see (Viénot, Brettel, Mollon 1999)."""
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714],
                       [0.0299566, 0.184309, 1.46709]])  # fmt: skip
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    linear = (colours.HUES / 255.0) ** 2.2
    for seen_by in (np.eye(3), protan, deutan):
        lms = linear @ to_lms.T @ seen_by.T
        shown = np.clip(lms @ np.linalg.inv(to_lms).T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(shown[:, None] - shown[None], axis=2) + np.eye(len(shown))
        assert apart.min() > 0.12


@pytest.mark.parametrize("side", [100, 224])
def test_pictures_are_those_that_were_looked_at(side: int) -> None:
    drawn = np.asarray(course().picture(3, side))
    path = GOLDEN / f"tokens_{side}.png"
    wanted = np.asarray(Image.open(path))
    assert drawn.shape == wanted.shape
    unlike = (np.abs(drawn.astype(int) - wanted) > 8).any(2).mean()
    assert unlike < _UNLIKE, f"{unlike:.1%} of the pixels differ from {path.name}"


def test_what_a_picture_tells_apart() -> None:
    """Outlines in a hue, thick where made here; pruned ones grey; single ones flat."""
    drawn, patch = np.asarray(course().picture(3, 200)), regions.patch_of(160, 200, (4, 5))
    hue = colours.HUES[colours.of([owned()])[0][2]]
    assert (drawn[2, 85] == hue).all()
    pruned = drawn[patch == 6]
    assert (pruned == pruned[:, :1]).all()
    assert pruned.max() < drawn[patch == 19].max()  # pruned here: bright lines
    single = drawn[patch == 12]
    assert (np.abs(single.astype(int) - np.median(single, axis=0)) < 2).mean() > 0.8


def test_what_the_model_saw() -> None:
    given = np.array([[[0.0, 2.0]], [[-2.0, 0.5]], [[0.0, 0.0]]], np.float32)
    as_seen = seen.pixels(given, Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1.0, "bicubic"))
    assert as_seen.tolist() == [[[128, 0, 128], [255, 191, 128]]]
    grey = seen.pixels(given[:1], Preprocessing((0.0,), (1.0,), 1.0, "bicubic"))
    assert grey.tolist() == [[[0, 0, 0], [255, 255, 255]]]
    alpha = np.concatenate([given * 0, np.zeros((1, 1, 2), np.float32)])
    hidden = seen.pixels(alpha, Preprocessing((0.0,) * 4, (1.0,) * 4, 1.0, "bicubic"))
    assert (hidden == 255).all()
    with pytest.raises(InputError, match="inputs of 2 channels cannot be shown"):
        seen.pixels(given[:2], Preprocessing((0.0,) * 2, (1.0,) * 2, 1.0, "bicubic"))


def test_a_strip_has_every_tile_whole() -> None:
    one = course()
    page = np.asarray(pages.strip([one], ["model.onnx (ltmp)"], (3,), 160, "as it is"))
    tiles = [np.asarray(tile.picture) for tile in one.tiles((3,), 160)]
    assert len(tiles) == 2
    for tile in tiles:
        assert any(
            np.array_equal(page[y : y + tile.shape[0], x : x + tile.shape[1]], tile)
            for y in range(page.shape[0] - tile.shape[0])
            for x in (sheets.GAP, 2 * sheets.GAP + 160)
        )
    side_by_side = pages.strip([one, one], ["a", "b"], (3,), 160, "as it is")
    assert side_by_side.height > 2 * 128 > page.shape[0] - 128


def test_names_of_images_cannot_break_a_sheet() -> None:
    hostile = "\x1b[31m\n漢字<script>" * 40
    page = sheets.sheet(hostile, [sheets.Row(hostile, course().tiles((3,), 100)[:1])], hostile)  # type: ignore[arg-type]
    assert page.width == 100 + 2 * sheets.GAP


def test_words() -> None:
    assert words.caption(owned()) == ("block 3: 14 tokens", "2 merged, 3 patches pruned")
    told = words.alternative("cat.jpg", "model.onnx", [owned()])
    assert told == (
        "cat.jpg through model.onnx, 20 patches. Behind block 3: 14 tokens, 2 merged, the largest "
        "of 4 patches; 3 patches pruned."
    )


def test_what_a_block_did_in_words() -> None:
    """Of 3 by 4 patches behind a class token: two pairs and two patches joined, three gone."""
    before = np.array([1, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8, -1])
    places = np.array([1, 1, 2, 3, 1, 1, 4, 2, -1, -1, -1, -1])
    one = Owned(2, (3, 4), places, before, 5, 1)
    (hues,) = colours.of([one])
    assert words.here(one) == "This block merged 4 tokens into 2 and pruned 3 patches in 2 tokens."
    assert words.so_far(one) == "So far: 2 tokens of several patches, 4 patches pruned."
    assert list(words.merges(one, hues)) == [
        f"{colours.NAMES[hues[0]]}: row 1 columns 1 to 2 with row 2 columns 1 to 2",
        f"{colours.NAMES[hues[2]]}: row 1 column 3 with row 2 column 4",
    ]
    assert (
        words.where(np.array([0, 2, 3, 9]), (3, 4)) == "row 1 columns 1 and 3 to 4, row 3 column 2"
    )
    same = replace(one, before=np.where(places < 0, -1, places))
    assert words.here(same) == "This block merged and pruned nothing."
    gone = replace(one, before=np.where(places < 0, np.arange(12) + 1, places))
    assert words.here(gone) == "This block pruned 4 patches."


def test_names_of_files() -> None:
    made = names.Names()
    given = ["a/b.jpg", "a_b.png", "A_B.webp", "../../etc/passwd", "...", "digit 3 (a 4)", "x" * 99]
    assert [made.of(name) for name in given] == [
        "a_b", "a_b-2", "A_B-3", "etc_passwd", "picture", "digit_3_a_4", "x" * 80,
    ]  # fmt: skip


def test_a_line_is_thin_at_any_size() -> None:
    assert [tokens.line_width(width) for width in (3.0, 16.0, 23.0, 38.0, 73.0, 300.0)] == [
        1, 1, 1, 2, 4, 4,
    ]  # fmt: skip


def test_nothing_left_and_all_in_one() -> None:
    gone = Owned(0, (4, 5), np.full(20, -1), np.arange(20) + 1, 1, 1)
    one = Owned(1, (4, 5), np.full(20, 1), np.arange(20) + 1, 2, 1)
    for owned_by, told in ((gone, "0 merged, 20 patches pruned"), (one, "1 merged, 0 patches")):
        (hues,) = colours.of([owned_by])
        drawn = np.asarray(tokens.draw(ground(), owned_by, hues, 100))
        assert drawn.shape == (80, 100, 3)
        assert words.caption(owned_by)[1].startswith(told)
    assert (drawn[40, 50] == ground().mean((0, 1)).round()).all()
