"""Golden sets of public reducers: files as their scripts write them, and what the originals gave.

They are too large for the repository and lie beside it, in `shared/fixtures/reducers` and `others`
of a folder above; where they are missing, tests of them are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ltmp_export.backbones.trace import Trace
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.images.inputs import Images
from ltmp_export.plan.plan import dense_plan
from ltmp_export.reference import Reference
from ltmp_export.statements.choices import Choices

_PLACES = [Path("shared") / "fixtures" / kind for kind in ("reducers", "others")]
HEADS = Choices(num_heads=3)  # no file says it


def folder(name: str) -> Path:
    """Of one set; without it the test is skipped."""
    for above in Path(__file__).resolve().parents:
        for place in _PLACES:
            if (found := above / place / name).is_dir():
                return found
    pytest.skip(f"no golden set {name} beside the checkout ({_PLACES[0]})")


@dataclass(frozen=True)
class Golden:
    """One set.

    Attributes:
        checkpoint: Its file, read.
        arrays: What the original gave.
    """

    checkpoint: Checkpoint
    arrays: Mapping[str, NDArray[Any]]

    @property
    def pixels(self) -> NDArray[np.float32]:
        """[6, 3, 224, 224] images."""
        return self.arrays["images"].astype(np.float32)

    def images(self, number: int) -> Images:
        """The first of them."""
        return Images(self.pixels[:number], None, tuple(map(str, range(number))), "golden")

    def traces(self, number: int = 6, outputs: tuple[str, ...] = ()) -> tuple[Trace, ...]:
        """The reference in float64 on the first of them; `outputs` it tells beside logits."""
        model, plan = self.checkpoint.model, self.checkpoint.plan
        reference = Reference(model, plan, torch.float64, outputs)
        return tuple(reference.run(image) for image in torch.from_numpy(self.pixels[:number]))

    def holds(self, token_map: NDArray[np.int64]) -> bool:
        """Whether patches are part of the tokens that they are in the original at the end.

        Those that are kept stand in its order; what it drops is part of none, or of a fused token.

        Args:
            token_map: Of all images of a file, [6, patches].
        """
        last = max(int(name[5]) for name in self.arrays if name.startswith("stage"))
        if "stage0_kept_patch" in self.arrays:
            return all(map(_are_kept, token_map, self.arrays[f"stage{last}_kept_patch"]))
        merged = "stage0_to" in self.arrays  # rows with the class row, else clusters without
        stages = [self.arrays[f"stage{s}_{'to' if merged else 'cluster'}"] for s in range(last + 1)]
        went = stages[0][:, 1:] if merged else stages[0]
        for stage in stages[1:]:
            went = np.take_along_axis(stage, went, axis=1)
        return np.array_equal(token_map, went if merged else went + 1)

    def dense(self) -> NDArray[np.float64]:
        """Logits [1, classes] of the first image without any reduction."""
        plan = dense_plan(len(self.checkpoint.plan.blocks))
        reference = Reference(self.checkpoint.model, plan, torch.float64)
        image = torch.from_numpy(self.pixels[0])
        return reference.run(image).logits.numpy()[None]


def _are_kept(rows: NDArray[np.int64], kept: NDArray[np.int64]) -> bool:
    """Of one image: the patch that stands in each patch's row is itself, if it is kept."""
    patches = np.arange(len(rows))
    standing = np.append(kept, -1)[np.where(rows < 0, len(kept), rows - 1)]
    return np.array_equal(standing, np.where(np.isin(patches, kept), patches, -1))


@cache
def golden(name: str, choices: Choices = HEADS) -> Golden:
    """A set, read once."""
    place = folder(name)
    with np.load(place / "golden.npz") as arrays:
        return Golden(load_checkpoint(place / "checkpoint.pth", choices), dict(arrays))
