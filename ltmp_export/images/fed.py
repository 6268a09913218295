"""What a file is fed where it is deployed: the same images there and here, told by their digest."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.errors import InputError
from ltmp_export.files import memory
from ltmp_export.files.arrays import UNREADABLE, reason
from ltmp_export.images import inputs
from ltmp_export.images.inputs import Images
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.plan.geometry import Geometry

SAMPLES = 14  # twice the largest batch, which is checked with its neighbours
IMAGES, DIGEST = "images", "digest"  # arrays of what is fed, and of what is recorded


def images(
    source: str | Path | Images | None,
    geometry: Geometry,
    preprocessing: Preprocessing,
    samples: int | None,
    batch_sizes: Sequence[int],
    half: bool = False,
) -> Images:
    """So many images that every batch is full.

    Args:
        source: As for `inputs.load_images`; or a folder that holds `images.npy`.
        geometry: Of the model.
        preprocessing: Of the model.
        samples: At most so many different ones; 14 by default, but all of what was fed before.
        batch_sizes: Images in a batch; the first images are there again until all are full.
        half: Whether the model takes float16.

    Raises:
        InputError: There are none, or of another shape.
    """
    folder = None if source is None or isinstance(source, Images) else Path(source)
    if folder is not None and (folder / f"{IMAGES}.npy").is_file():
        chosen = _from_npy(folder / f"{IMAGES}.npy", geometry, preprocessing).select(samples)
    else:
        count = SAMPLES if samples is None and not _fed(folder) else samples
        chosen = inputs.load_images(source, geometry, preprocessing, count)
    whole = math.lcm(*batch_sizes)
    index = np.arange(-(-len(chosen) // whole) * whole) % len(chosen)
    pixels = chosen.pixels[index]
    if half:
        with np.errstate(over="ignore"):
            pixels = pixels.astype(np.float16).astype(np.float32)
    names = tuple(chosen.names[number] for number in index)
    return replace(chosen, pixels=pixels, labels=None, names=names)


def _fed(source: Path | None) -> bool:
    """Whether images come from a file that `arrays` was written to."""
    if source is None or source.suffix != ".npz":
        return False
    try:
        with np.load(source, allow_pickle=False) as archive:
            return DIGEST in archive
    except UNREADABLE:
        return False  # told when it is read


def _from_npy(path: Path, geometry: Geometry, preprocessing: Preprocessing) -> Images:
    """All images of an array in a file of its own.

    Raises:
        InputError: It cannot be read, or is of another shape.
    """
    memory.require_memory(path.stat().st_size, str(path))
    try:
        array = np.load(path, allow_pickle=False)
    except UNREADABLE as err:
        raise InputError(f"{path} is no readable .npy: {reason(err)}") from err
    pixels = inputs.to_inputs(path, array, geometry, preprocessing)
    names = tuple(f"{path.name}[{number}]" for number in range(len(pixels)))
    return Images(pixels, None, names, str(path))


def digest(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[32] SHA-256 of images [n, channels, H, W] in float32, row by row, low bytes first."""
    content = np.ascontiguousarray(pixels, dtype="<f4").tobytes()
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)


def arrays(fed: Images, half: bool) -> dict[str, NDArray[Any]]:
    """What is written of them: the images in the numbers the model takes, and their digest."""
    pixels: NDArray[Any] = fed.pixels.astype(np.float16) if half else fed.pixels
    return {IMAGES: pixels, DIGEST: digest(fed.pixels)}


def archive(named: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as an `.npz`."""
    buffer = io.BytesIO()
    np.savez(buffer, **named)  # type: ignore[arg-type]
    return buffer.getvalue()


def files(named: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, bytes]]:
    """Arrays as `.npy` files, a name and a content each."""
    for name, array in named.items():
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array))
        yield f"{name}.npy", buffer.getvalue()


def require_same(pixels: NDArray[np.float32], fed: NDArray[Any], what: str) -> None:
    """Check that a recording is of these images.

    Raises:
        InputError: It is of others.
    """
    if fed.dtype != np.uint8 or fed.shape != (32,):
        raise InputError(
            f"{what}: {DIGEST} is {fed.dtype}{list(fed.shape)}; expected the uint8[32] that 'ltmp "
            "inputs' wrote beside the images"
        )
    if not np.array_equal(digest(pixels), fed):
        raise InputError(
            f"{what} is of other images (digest {fed.tobytes().hex()[:12]}…, of these "
            f"{digest(pixels).tobytes().hex()[:12]}…); give what 'ltmp inputs' wrote with --images"
        )
