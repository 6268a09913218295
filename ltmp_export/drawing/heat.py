"""Heat maps: what of each patch is in one token, over what the model saw in grey."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltmp_export.drawing import regions, sheets, words
from ltmp_export.drawing.courses import SAW
from ltmp_export.drawing.mixed import Mixture
from ltmp_export.drawing.seen import enlarged
from ltmp_export.drawing.sheets import Row, Tile

# From nothing to the most, brighter and brighter, told apart by people with any colour vision.
RAMP = np.array(
    [(0, 32, 76), (60, 75, 108), (124, 123, 120), (190, 175, 108), (255, 234, 70)], np.float64
)
_OVER = 0.65  # how much of a colour lies over the picture
_COLUMNS = 8
_GAP = 4  # pixels between the tokens of a mosaic
_BRIGHT = (
    "Each picture is one token: the brighter a patch, the more of it is in the token, of dark blue "
    "nothing, of yellow the most"
)
_COUNTED = "Counted is what merging mixes, not attention."
LEGEND = f"{_BRIGHT} (the share is under it). {_COUNTED}"
PAGE_LEGEND = f"{_BRIGHT}. {_COUNTED}"


@dataclass(frozen=True)
class Mixed:
    """An image through a file whose tokens are of many patches each.

    Attributes:
        image: Its name.
        model: The file.
        seen: [H, W, 3] what the model saw, as `seen.pixels` gives it.
        mixtures: Its tokens, of each place that makes new ones.
    """

    image: str
    model: Path
    seen: NDArray[np.uint8] = field(repr=False)
    mixtures: tuple[Mixture, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        alt = " ".join(alternative(self.image, self.model, one) for one in self.mixtures)
        mixtures = [one.to_json() for one in self.mixtures]
        return {"model": str(self.model), "alt": alt, "mixtures": mixtures}


def draw(
    seen: NDArray[np.uint8], shares: NDArray[np.float64], grid: tuple[int, int], side: int
) -> Image.Image:
    """One token.

    Args:
        seen: [H, W, 3] what the model saw.
        shares: [P] what of each patch is in it.
        grid: Rows and columns of the patches.
        side: Pixels of the longer side.
    """
    shown = enlarged(seen, side)
    most = float(np.abs(shares).max(initial=0.0))
    level = np.clip(shares / most, 0, 1) if most > 0 else np.zeros_like(shares)
    stops = np.linspace(0, 1, len(RAMP))
    colour = np.stack([np.interp(level, stops, channel) for channel in RAMP.T], axis=1)  # [P, 3]
    patch = regions.patch_of(len(shown), shown.shape[1], grid)
    grey = shown.astype(np.float64) @ (0.299, 0.587, 0.114)
    mixed = _OVER * colour[patch] + (1 - _OVER) * grey[..., None]
    return Image.fromarray(mixed.round().astype(np.uint8))


def sheet(
    image: str, told: str, seen: NDArray[np.uint8], mixture: Mixture, side: int, saw: str
) -> Image.Image:
    """All tokens of a place.

    Args:
        image: Its name.
        told: What the file is.
        seen: [H, W, 3] what the model saw.
        mixture: The tokens.
        side: Pixels of the longer side of each picture.
        saw: How what the model saw was prepared.
    """
    tiles = [Tile(Image.fromarray(enlarged(seen, side)), (SAW,))]
    for number, shares in enumerate(mixture.shares):
        picture = draw(seen, shares, mixture.grid, side)
        tiles.append(Tile(picture, (f"token {number}: {_most(shares)}",)))
    columns = min(_COLUMNS, len(tiles))
    rows = [Row("", tuple(tiles[at : at + columns])) for at in range(0, len(tiles), columns)]
    title = f"{image}, tokens made {mixture.place}: {told}"
    return sheets.sheet(title, rows, f"What the model saw: {saw}. {LEGEND}")


def mosaic(
    seen: NDArray[np.uint8], mixture: Mixture, tokens: Sequence[int], side: int
) -> Image.Image:
    """Some tokens in one picture, row by row, without words.

    Args:
        seen: [H, W, 3] what the model saw.
        mixture: The tokens.
        tokens: Which, at least one.
        side: Pixels of the longer side of all together, about.
    """
    columns = math.ceil(math.sqrt(len(tokens)))
    each = max(8, (side - (columns - 1) * _GAP) // columns)
    drawn = [draw(seen, mixture.shares[token], mixture.grid, each) for token in tokens]
    wide, high = drawn[0].width + _GAP, drawn[0].height + _GAP
    rows = math.ceil(len(drawn) / columns)
    page = Image.new("RGB", (columns * wide - _GAP, rows * high - _GAP), "white")
    for place, picture in enumerate(drawn):
        page.paste(picture, (place % columns * wide, place // columns * high))
    return page


def alternative(image: str, model: Path, mixture: Mixture) -> str:
    """The same for who does not see it."""
    parts = [f"{image} through {model.name}: {len(mixture.shares)} tokens made {mixture.place}."]
    return " ".join([*parts, *(told(mixture, token) for token in range(len(mixture.shares)))])


def told(mixture: Mixture, token: int) -> str:
    """One token in a sentence."""
    shares = mixture.shares[token]
    if not np.abs(shares).max(initial=0.0) > 0:
        return f"Token {token} is empty."
    patch = words.where(np.array([shares.argmax()]), mixture.grid)
    return (
        f"Token {token} is most of the patch in {patch}; half of it is of {_half(shares)} of "
        f"{len(shares)} patches."
    )


def _half(shares: NDArray[np.float64]) -> int:
    """The fewest patches that are half of a token."""
    falling = np.sort(np.maximum(shares, 0))[::-1].cumsum()
    return int(np.searchsorted(falling, falling[-1] / 2) + 1)


def _most(shares: NDArray[np.float64]) -> str:
    most = float(shares.max(initial=0.0))
    return f"up to {most:.1%}" if most > 0 else "empty"
