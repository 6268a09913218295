"""Picture files: which there are, and how one becomes a model input."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltmp_export.errors import InputError
from ltmp_export.preprocessing import Preprocessing
from ltmp_export.vit import Vit

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_NUMBER = r"\d+(\.\d+)?"
_POLICY = re.compile(  # timm itself passes over what it does not know
    rf"rand(-(m|n|p|w|mstd|mmax|inc){_NUMBER})*|augmix(-(m|w|d|a|mstd){_NUMBER})*"
    rf"|(original|originalr|v0|v0r|3a)(-mstd{_NUMBER})?"
)
PLAIN, CROP = "none", "crop"  # of `training_transform`

# What Pillow and its decoders raise on damaged pictures.
_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
    MemoryError,
    Warning,
)


def find(folder: Path) -> list[Path]:
    """All pictures in a folder and its folders, sorted.

    Raises:
        InputError: There are none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise InputError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    return found


def mode(vit: Vit) -> str:
    """Pillow's mode for a model's channels.

    Raises:
        InputError: Pictures have no such number of channels.
    """
    known = {1: "L", 3: "RGB", 4: "RGBA"}.get(vit.in_chans)
    if known is None:
        raise InputError(f"pictures cannot be read into {vit.in_chans} channels; give an .npz")
    return known


def read(path: Path, mode: str, transform: Callable[[Any], Tensor]) -> Tensor:
    """Open a picture and transform it.

    Raises:
        InputError: It cannot be read as a picture, or not be transformed.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow minds beside the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                decoded = _opaque(picture).convert(mode)
    except (*_ERRORS, Image.DecompressionBombError) as err:
        raise InputError(f"{path} is not a readable picture: {err}") from err
    try:
        return transform(decoded)
    except _ERRORS as err:
        size = f"{decoded.width}x{decoded.height}"
        raise InputError(f"{path} ({size}) cannot be made a model input: {err}") from err


def _opaque(picture: Image) -> Image:
    """Palettes with transparency keep it only by way of RGBA."""
    return picture.convert("RGBA") if "transparency" in picture.info else picture


def evaluation_transform(vit: Vit, preprocessing: Preprocessing) -> Callable[[Any], Tensor]:
    """Timm's own: resize, crop, normalise."""
    crop = {"crop_pct": preprocessing.crop_pct, "crop_mode": preprocessing.crop_mode}
    return _create(vit, preprocessing, **crop)


def training_transform(
    vit: Vit, preprocessing: Preprocessing, augment: str
) -> Callable[[Any], Tensor]:
    """Timm's own for training.

    Args:
        vit: Geometry of the input.
        preprocessing: Normalisation and resize.
        augment: "none" for that of evaluation; "crop" for random resized crops and flips; anything
            else is a policy of timm on top of these, for example "rand-m9-mstd0.5-inc1".

    Raises:
        InputError: timm does not know the policy.
    """
    if augment == PLAIN:
        return evaluation_transform(vit, preprocessing)
    policy = None if augment == CROP else augment
    _keep_at_least_a_bit()
    try:
        return _create(vit, preprocessing, is_training=True, color_jitter=None, auto_augment=policy)
    except (AssertionError, ValueError, KeyError, IndexError) as err:
        raise InputError(
            f"--augment {augment}: expected none, crop, or a policy of timm like "
            "rand-m9-mstd0.5-inc1, augmix-m3-w3 or original"
        ) from err


def _posterize(picture: Image, bits_to_keep: int, **_: Any) -> Image:
    from PIL import ImageOps

    return ImageOps.posterize(picture, min(max(bits_to_keep, 1), 8))


def _keep_at_least_a_bit() -> None:
    """Timm's strongest posterisation keeps no bit, which Pillow 13 refuses in mid-epoch."""
    from timm.data import auto_augment

    for name, operation in auto_augment.NAME_TO_OP.items():
        if operation is auto_augment.posterize:
            auto_augment.NAME_TO_OP[name] = _posterize


def _create(vit: Vit, preprocessing: Preprocessing, **options: Any) -> Callable[[Any], Tensor]:
    from timm.data import create_transform

    made: Callable[[Any], Tensor] = create_transform(
        input_size=vit.input_size,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        **options,
    )
    return made
