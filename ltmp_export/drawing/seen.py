"""What a model saw of a picture: its input as pixels again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltmp_export.errors import InputError

if TYPE_CHECKING:
    from ltmp_export.images.preprocessing import Preprocessing

_CHANNELS = (1, 3, 4)
_CRISP = 3.0  # times larger: each pixel of the input is shown as a square


def pixels(given: NDArray[np.float32], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """A model input [channels, H, W], no longer normalised, as RGB [H, W, 3]; alpha on white.

    What lies beyond black and white is cut.

    Raises:
        InputError: It has another number of channels than pictures have.
    """
    channels = len(given)
    if channels not in _CHANNELS:
        raise InputError(f"inputs of {channels} channels cannot be shown; expected 1, 3 or 4")
    mean, std = (
        np.array(values, np.float64).reshape(-1, 1, 1)
        for values in (preprocessing.mean, preprocessing.std)
    )
    scaled = np.clip(given * std + mean, 0.0, 1.0)
    if channels == 1:
        scaled = scaled.repeat(3, axis=0)
    elif channels == 4:
        scaled = scaled[:3] * scaled[3:] + 1.0 - scaled[3:]
    return np.ascontiguousarray((scaled * 255).round().astype(np.uint8).transpose(1, 2, 0))


def enlarged(seen: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """[H, W, 3] with the longer side so many pixels."""
    height, width = seen.shape[:2]
    scale = side / max(height, width)
    filtered = Image.Resampling.NEAREST if scale >= _CRISP else Image.Resampling.LANCZOS
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(seen).resize(size, filtered))


def words(size: tuple[int, int], preprocessing: Preprocessing, *, pictures: bool) -> str:
    """How it was prepared, for a person.

    Args:
        size: Height and width of the input.
        preprocessing: How pictures become inputs.
        pictures: Whether they were pictures, not arrays.
    """
    height, width = size
    if not pictures:
        return f"{width}x{height} pixels, with mean and deviation undone"
    crop = "" if preprocessing.crop_mode == "center" else f" ({preprocessing.crop_mode})"
    return (
        f"resized ({preprocessing.interpolation}) and cropped{crop} to {width}x{height} pixels, "
        f"crop {preprocessing.crop_pct:g}, as its metadata says"
    )
