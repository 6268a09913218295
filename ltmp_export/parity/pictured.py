"""Whether a file prepares pictures as timm does, in levels of 255."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

from ltmp_export.images import pictures
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.plan.geometry import Geometry
from ltmp_export.runtimes.session import Session

MOST, MEAN = 4.0, 0.5  # levels that may be between them
SIDES = ((1.0, 1.0), (2.3, 1.6), (1.2, 3.1), (3.1, 0.9), (0.4, 0.7), (5.0, 4.0))  # of the input


@dataclass(frozen=True)
class PicturesDistance:
    """How far what a file makes of pictures is from timm's transform.

    Attributes:
        pictures: How many were compared.
        most: The largest distance of a value, in levels of 255.
        mean: The largest mean distance of a picture.
    """

    pictures: int
    most: float
    mean: float

    @property
    def right(self) -> bool:
        """Whether that is rounding; False for NaN."""
        return self.most <= MOST and self.mean <= MEAN

    def describe(self) -> str:
        """For a person."""
        return (
            f"pictures: at most {self.most:.2g} of 255 levels from timm's, {self.mean:.2g} on "
            f"average (allowed {MOST:g} and {MEAN:g}), {self.pictures} compared"
        )


def distance(front: onnx.ModelProto, geometry: Geometry, rule: Preprocessing) -> PicturesDistance:
    """Run pictures of several sizes through a file's front and through timm's transform.

    Args:
        front: From pictures to model inputs, see `model_file.pictured`.
        geometry: Of the model.
        rule: How pictures are prepared.

    Raises:
        ExportError: onnxruntime does not run it.
    """
    session, transform = Session(front), pictures.evaluation_transform(geometry, rule)
    std = np.array(rule.std, np.float32).reshape(-1, 1, 1)
    apart = []
    for number, sides in enumerate(SIDES):
        shape = [max(2, round(n * k)) for n, k in zip(geometry.input_size[1:], sides, strict=True)]
        pixels = _picture(shape[0], shape[1], geometry.in_chans, number)
        shown = Image.fromarray(pixels[..., 0] if geometry.in_chans == 1 else pixels)
        (given,) = session.run(cast("NDArray[np.float32]", pixels[None]))  # which go in as they are
        apart.append(abs(given[0].astype(np.float32) - transform(shown).numpy()) * std * 255)
    return PicturesDistance(
        len(apart), max(float(one.max()) for one in apart), max(float(one.mean()) for one in apart)
    )


def _picture(height: int, width: int, channels: int, seed: int) -> NDArray[np.uint8]:
    """Waves and noise, with all levels in them."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (5 + c)) * np.cos(columns / (7 - c)) for c in range(channels)]
    noise = np.random.default_rng(seed).normal(0, 20, (height, width, channels))
    levels: NDArray[np.uint8] = (127 + 120 * np.stack(waves, -1) + noise).clip(0, 255).astype("u1")
    return levels
