"""One image through one file: what the model saw, and its tokens behind each block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltmp_export.drawing import colours, seen, tokens, words
from ltmp_export.drawing.owned import Owned, Owners
from ltmp_export.drawing.sheets import Tile

if TYPE_CHECKING:
    from ltmp_export.model_file.model import ExportedModel

SAW = "what the model saw"


@dataclass(frozen=True)
class Course:
    """An image through a file.

    Attributes:
        image: Its name.
        model: The file.
        seen: [H, W, 3] what the model saw, as `seen.pixels` gives it.
        blocks: Who owns its patches behind each block that the file tells of.
        hues: Of each of them, as `colours.of` gives it.
    """

    image: str
    model: Path
    seen: NDArray[np.uint8] = field(repr=False)
    blocks: tuple[Owned, ...]
    hues: tuple[NDArray[np.int64], ...]

    def owned(self, block: int) -> Owned:
        """Behind a block."""
        return self.blocks[self._place(block)]

    def picture(self, block: int, side: int) -> Image.Image:
        """The tokens behind a block, with so many pixels on the longer side."""
        place = self._place(block)
        return tokens.draw(self.seen, self.blocks[place], self.hues[place], side)

    def tiles(self, blocks: Sequence[int], side: int) -> list[Tile]:
        """What the model saw, and the tokens behind some blocks."""
        owned = self.blocks[0]
        patches = f"{len(owned.places)} patches"
        first = Tile(Image.fromarray(seen.enlarged(self.seen, side)), (SAW, patches))
        return [
            first,
            *(Tile(self.picture(b, side), words.caption(self.owned(b))) for b in blocks),
        ]

    def alternative(self, blocks: Sequence[int]) -> str:
        """The same for who does not see it."""
        found = [self.owned(block) for block in blocks]
        return words.alternative(self.image, self.model.name, found)

    def to_json(self, blocks: Sequence[int] | None = None) -> dict[str, Any]:
        """Plain values, of some blocks or of all."""
        blocks = [one.block for one in self.blocks] if blocks is None else blocks
        found = [self.owned(block) for block in blocks]
        return {
            "model": str(self.model),
            "alt": self.alternative(blocks),
            "blocks": [
                {
                    "block": one.block,
                    "tokens": one.tokens,
                    "merged_tokens": words.merged_tokens(one),
                    "pruned_patches": int((~one.living).sum()),
                    "token_map": one.places.tolist(),
                }
                for one in found
            ],
        }

    def _place(self, block: int) -> int:
        return [one.block for one in self.blocks].index(block)


def follow(
    exported: ExportedModel, owners: Owners, image: str, pixels: NDArray[np.float32]
) -> Course:
    """Run an image [channels, H, W].

    Raises:
        CheckFailedError: The file's decisions are none.
        ExportError: The runtime fails on the image.
        InputError: It has no channels that can be shown.
    """
    shown = seen.pixels(pixels, exported.preprocessing)
    blocks = owners.of(pixels)
    return Course(image, exported.path, shown, blocks, tuple(colours.of(blocks)))
