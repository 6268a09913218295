"""One picture: the tokens that are left behind a block.

Every token's region has the mean colour of its patches. A token of several patches has an outline
in a hue of its own, thick where this block made it; a thin line connects its pieces. Pruned patches
are dim and hatched, brighter where this block pruned them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ltmp_export.drawing import regions
from ltmp_export.drawing.colours import HUES
from ltmp_export.drawing.owned import Owned
from ltmp_export.drawing.seen import enlarged

INK = (16, 16, 16)  # beside a hue, so that it is seen on any ground
_DIM = 0.25  # of the brightness of pruned patches
_GROUND = 20  # added to it
_HATCH, _NEW_HATCH = 125, 235  # grey of the lines
_FAINT, _FAINTEST = 0.6, 0.2  # how much is seen of the lines between pieces
_ROOMY = 16  # pixels of a patch in which a thick outline leaves something to be seen
_FEW = 40  # lines; the more there are beyond them, the fainter each


def draw(seen: NDArray[np.uint8], owned: Owned, hues: NDArray[np.int64], side: int) -> Image.Image:
    """The tokens behind a block.

    Args:
        seen: [H, W, 3] what the model saw.
        owned: Who owns its patches.
        hues: [P] as `colours.of` gives them.
        side: Pixels of the picture's longer side.
    """
    shown = enlarged(seen, side)
    patch = regions.patch_of(len(shown), shown.shape[1], owned.grid)
    canvas = regions.mean_colours(seen, owned)[patch]
    across = side / max(owned.grid)  # pixels of a patch
    living = owned.living[patch]
    canvas[~living] = _dimmed(shown)[~living]
    _hatch(canvas, owned, patch, across)
    canvas = _connected(canvas, owned, hues, across)
    _outline(canvas, owned, hues, patch, across)
    return Image.fromarray(canvas)


def line_width(across: float) -> int:
    """Pixels of a thin outline, where a patch is so many pixels wide."""
    return int(min(4, max(1, round(across / 18))))


def _dimmed(shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey and dark."""
    grey = shown.astype(np.float64) @ (0.299, 0.587, 0.114)
    return np.repeat((_GROUND + _DIM * grey)[..., None], 3, axis=2).astype(np.uint8)


def _hatch(
    canvas: NDArray[np.uint8], owned: Owned, patch: NDArray[np.int64], across: float
) -> None:
    """Lines over pruned patches."""
    height, width = patch.shape
    period, thick = max(5, round(across / 3)), max(1, round(across / 30))
    line = (np.arange(height)[:, None] + np.arange(width)) % period < thick
    canvas[line & ~owned.living[patch]] = _HATCH
    canvas[line & owned.pruned_here[patch]] = _NEW_HATCH


def _outline(
    canvas: NDArray[np.uint8],
    owned: Owned,
    hues: NDArray[np.int64],
    patch: NDArray[np.int64],
    across: float,
) -> None:
    """The true outline of each token of several patches, inside of its region."""
    thin = line_width(across)
    label, hue = owned.places[patch], hues[patch]
    drawn = hue >= 0
    new = drawn & owned.merged_here[patch]
    wide = 2 * thin + (across >= _ROOMY)
    for which, thick in ((drawn & ~new, thin), (new, wide)):
        canvas[which & regions.edge(label, thick + 1)] = INK
        inner = which & regions.edge(label, thick)
        canvas[inner] = HUES[hue[inner]]


def _connected(
    canvas: NDArray[np.uint8], owned: Owned, hues: NDArray[np.int64], across: float
) -> NDArray[np.uint8]:
    """The same with faint lines between the pieces of each token."""
    rows, columns = owned.grid
    wide, high = canvas.shape[1] / columns, canvas.shape[0] / rows
    plain = Image.fromarray(canvas)
    lined = plain.copy()
    pen, thin = ImageDraw.Draw(lined), max(1, line_width(across) // 2)

    def middle(patch: int) -> tuple[float, float]:
        return (patch % columns + 0.5) * wide, (patch // columns + 0.5) * high

    count = 0
    for token in np.unique(owned.places[hues >= 0]).tolist():
        red, green, blue = HUES[hues[owned.places == token][0]].tolist()
        for a, b in regions.links(owned, token):
            count += 1
            pen.line((middle(a), middle(b)), fill=INK, width=thin + 2)
            pen.line((middle(a), middle(b)), fill=(red, green, blue), width=thin)
    seen = max(_FAINTEST, _FAINT * min(1.0, _FEW / max(count, 1)))
    return np.array(Image.blend(plain, lined, seen))
