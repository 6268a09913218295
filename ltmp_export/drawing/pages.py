"""Whole pictures: a strip of blocks for one image, a grid of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from ltmp_export.drawing import sheets, words
from ltmp_export.drawing.courses import Course
from ltmp_export.drawing.sheets import Row, Tile

COLUMNS = 4  # of a strip at most, beside what the model saw
HIGHEST = 16_000  # pixels of a grid's page


def strip(
    courses: Sequence[Course], told: Sequence[str], blocks: Sequence[int], side: int, saw: str
) -> Image.Image:
    """The blocks of one image; of several files one below the other.

    Args:
        courses: Of the image, through each file.
        told: What each file is.
        blocks: Those shown.
        side: Pixels of the longer side of each picture.
        saw: How what the model saw was prepared.
    """
    tiles = [course.tiles(blocks, side) for course in courses]
    columns = math.ceil(len(blocks) / math.ceil(len(blocks) / COLUMNS))
    rows = []
    for start in range(0, len(blocks), columns):
        for number, each in enumerate(tiles):
            heading = told[number] if len(tiles) > 1 else ""
            chosen = each[1 + start : 1 + start + columns]
            first = each[0] if not start else _blank(each[0])
            rows.append(Row(heading, (first, *chosen)))
    title = courses[0].image if len(tiles) > 1 else f"{courses[0].image}: {told[0]}"
    return sheets.sheet(title, rows, legend(saw))


def grid_rows(
    courses: Sequence[Course], told: Sequence[str], blocks: Sequence[int], side: int
) -> list[Row]:
    """The rows of one image in a grid: one for each file."""
    several = len(courses) > 1
    return [
        Row(
            f"{course.image}: {told[number]}" if several else course.image,
            tuple(course.tiles(blocks, side)),
        )
        for number, course in enumerate(courses)
    ]


def rows_of_a_page(side: int) -> int:
    """How many rows one page of a grid has."""
    return max(1, HIGHEST // (side + side // 4))


def grid(title: str, rows: Sequence[Row], saw: str) -> Image.Image:
    """Many images, each with its blocks."""
    return sheets.sheet(title, rows, legend(saw))


def legend(saw: str) -> str:
    """What is under every sheet."""
    return f"What the model saw: {saw}. {words.LEGEND}"


def _blank(tile: Tile) -> Tile:
    """Room for it."""
    return Tile(Image.new("RGB", tile.picture.size, sheets.PAPER), ())
