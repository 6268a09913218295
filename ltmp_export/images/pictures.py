"""How a picture file becomes a model input: first as a person sees it, then by timm's transform.

- Turned as EXIF says. (timm itself does not.)
- What is transparent lies on white; a model of 4 channels gets RGBA as it is. (timm itself drops
  the alpha, so that colours show that nobody sees.)
- Grey of 16 bits is scaled to 8 (v / 257, rounded); of 16 bits of colour Pillow takes the upper 8.
  Values of a range that the format does not fix (floating-point, 32-bit integers) are refused.
- Palettes, CMYK and others are converted by Pillow; colour profiles are not applied.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ltmp_export.errors import InputError
from ltmp_export.files import remote
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.plan.geometry import Geometry

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_ORIENTATION = 0x0112  # of EXIF
_SIXTEEN = 65535  # the most a sample of 16 bits can be
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


def mode(vit: Geometry) -> str:
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
        UnavailableError: It is elsewhere, and a package that reads it is missing.
    """
    if remote.is_remote(path):
        return decode(io.BytesIO(remote.whole(path)), remote.shown(path), mode, transform)
    return decode(path, str(path), mode, transform)


def decode(
    source: Path | BinaryIO, name: str, mode: str, transform: Callable[[Any], Tensor]
) -> Tensor:
    """The same of a file or what it holds, called so in messages.

    Raises:
        InputError: It cannot be read as a picture, or not be transformed.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow minds beside the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source) as picture:
                decoded = _as_seen(picture, mode)
    except (*_ERRORS, Image.DecompressionBombError) as err:
        raise InputError(f"{name} is not a readable picture: {err}") from err
    try:
        return transform(decoded)
    except _ERRORS as err:
        size = f"{decoded.width}x{decoded.height}"
        raise InputError(f"{name} ({size}) cannot be made a model input: {err}") from err


def _as_seen(picture: Image, mode: str) -> Image:
    """A picture as a person sees it, in 8 bits.

    Raises:
        ValueError: Its values have no range that the format fixes.
    """
    picture.load()
    upright = _upright(picture)
    grey = upright.mode.startswith(("I", "F"))
    shown = _eight_bits(upright, str(picture.format)) if grey else upright
    if not shown.has_transparency_data:
        return shown.convert(mode)
    shown = shown.convert("RGBA")
    return shown if mode == "RGBA" else _on_white(shown).convert(mode)


def _upright(picture: Image) -> Image:
    """Turned and mirrored as EXIF says; damaged EXIF says nothing."""
    from PIL import ImageOps

    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except _ERRORS:
        return picture
    return picture if orientation == 1 else ImageOps.exif_transpose(picture)


def _eight_bits(picture: Image, form: str) -> Image:
    """16 bits as 8, in mode L or, where one value is transparent, LA."""
    from PIL import Image

    if form != "PNG":  # its grey has no more than 16 bits, also where Pillow holds them in 32
        kind = "floating-point" if picture.mode == "F" else "integer"
        raise ValueError(
            f"a {form} of {kind} values ({picture.mode}), whose range nothing tells; save it "
            "with 8 bits, or as PNG with 16"
        )
    values = np.asarray(picture).astype(np.uint32)
    grey = Image.fromarray(((values * 255 + _SIXTEEN // 2) // _SIXTEEN).astype(np.uint8))
    if (hidden := picture.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    return grey


def _on_white(picture: Image) -> Image:
    """RGBA → RGB."""
    from PIL import Image

    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def evaluation_transform(vit: Geometry, preprocessing: Preprocessing) -> Callable[[Any], Tensor]:
    """Timm's own: resize, crop, normalise."""
    crop = {"crop_pct": preprocessing.crop_pct, "crop_mode": preprocessing.crop_mode}
    return _create(vit, preprocessing, **crop)


def training_transform(
    vit: Geometry, preprocessing: Preprocessing, augment: str
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


def _create(vit: Geometry, preprocessing: Preprocessing, **options: Any) -> Callable[[Any], Tensor]:
    from timm.data import create_transform

    made: Callable[[Any], Tensor] = create_transform(
        input_size=vit.input_size,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        **options,
    )
    return made
