"""Pictures put together on a sheet: rows of tiles with words under them, and a legend."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

GAP = 8  # pixels between tiles
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (90, 90, 90)
SMALLEST, LARGEST = 11, 26  # pixels of the letters
ELLIPSIS = "..."  # in every font

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Tile:
    """A picture with a few words.

    Attributes:
        picture: It has the room of the largest of a sheet.
        lines: Under it, one after the other; what is too long is cut.
    """

    picture: Image.Image
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """Tiles side by side.

    Attributes:
        heading: Above them; nothing if empty.
        tiles: From left to right.
    """

    heading: str
    tiles: tuple[Tile, ...]


def sheet(title: str, rows: Sequence[Row], legend: str) -> Image.Image:
    """Rows one below the other.

    Args:
        title: Above all.
        rows: At least one, with tiles.
        legend: Below all.
    """
    pictures = [tile.picture for row in rows for tile in row.tiles]
    wide, high = (max(picture.size[axis] for picture in pictures) for axis in (0, 1))
    letters = min(LARGEST, max(SMALLEST, max(wide, high) // 20))
    font, line = _font(letters), letters + letters // 3
    columns = max(len(row.tiles) for row in rows)
    width = GAP + columns * (wide + GAP)
    under = max(len(tile.lines) for row in rows for tile in row.tiles) * line
    told = _wrapped(legend, font, width - 2 * GAP)
    heads = sum(bool(row.heading) for row in rows)
    height = 3 * GAP + line * (1 + heads + len(told)) + len(rows) * (high + under + GAP)
    page = Image.new("RGB", (width, height), PAPER)
    pen, y = ImageDraw.Draw(page), GAP
    pen.text((GAP, y), _cut(title, font, width - 2 * GAP), INK, font)
    y += line + GAP // 2
    for row in rows:
        if row.heading:
            pen.text((GAP, y), _cut(row.heading, font, width - 2 * GAP), INK, font)
            y += line
        for column, tile in enumerate(row.tiles):
            x = GAP + column * (wide + GAP)
            page.paste(tile.picture, (x, y))
            for number, text in enumerate(tile.lines):
                place = x, y + high + number * line + 1
                pen.text(place, _cut(text, font, wide), FAINT if number else INK, font)
        y += high + under + GAP
    for text in told:
        pen.text((GAP, y), text, FAINT, font)
        y += line
    return page


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG."""
    written = io.BytesIO()
    picture.save(written, format="PNG")
    return written.getvalue()


@functools.cache
def _font(letters: int) -> Font:
    """Pillow's own letters; without FreeType they have one size."""
    try:
        return ImageFont.load_default(letters)
    except ImportError:
        return ImageFont.load_default()


def _plain(text: str) -> str:
    """What Pillow's own font has letters for; the rest becomes a question mark."""
    return "".join(c if c.isprintable() and ord(c) < 0x100 else "?" for c in text)


def _cut(text: str, font: Font, width: int) -> str:
    """As much of a text as fits, its end left out."""
    text = _plain(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + ELLIPSIS) > width:
        text = text[:-1]
    return text + ELLIPSIS


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    """Lines of whole words."""
    lines: list[str] = []
    for word in _plain(text).split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(_cut(word, font, width))
    return lines
