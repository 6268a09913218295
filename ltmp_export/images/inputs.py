"""Images to check and time with: given ones, the embedded digits, or structured synthetic ones."""

from __future__ import annotations

import math
import zipfile
import zlib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.errors import InputError
from ltmp_export.files import disk, memory, remote
from ltmp_export.files.arrays import UNREADABLE, reason
from ltmp_export.images import folders, pictures, places
from ltmp_export.images import synthetic as made_up
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.images.records import Recorded, Records
from ltmp_export.plan.geometry import Geometry

SYNTHETIC_SAMPLES = 16
DIGITS = "digits_ltmp.pth.tar"  # the embedded checkpoint


@dataclass(frozen=True)
class Images:
    """A set of model inputs.

    Attributes:
        pixels: [n, channels, H, W] float32, normalised.
        labels: [n] int64 class indices, where known.
        names: One for each image.
        origin: Where they come from, for a person.
        remarks: What that person should know of it.
    """

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    names: tuple[str, ...]
    origin: str
    remarks: tuple[str, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        """What each image belongs to: the folder in its name, else the whole set."""
        folders = (name.rpartition("/")[0] for name in self.names)
        return tuple(folder or self.origin for folder in folders)

    @property
    def described(self) -> str:
        """Where they come from, and how many."""
        return f"{self.origin}, {len(self)} images"

    def __len__(self) -> int:
        return len(self.pixels)

    def select(self, count: int | None) -> Images:
        """At most `count` images, evenly spread over the set; all for None."""
        if count is None or count >= len(self):
            return self
        index = np.linspace(0, len(self) - 1, count).round().astype(int)
        labels = None if self.labels is None else self.labels[index]
        names = tuple(self.names[i] for i in index)
        return replace(self, pixels=self.pixels[index], labels=labels, names=names)


def load_images(
    source: str | Path | Images | None, vit: Geometry, preprocessing: Preprocessing,
    samples: int | None = None,
) -> Images:  # fmt: skip
    """Images of the model's geometry.

    Args:
        source: A folder of pictures (resized, cropped and normalised as timm does), tar shards or
            tables (`images.places`), or an `.npz` with `images` and perhaps `labels`: floats are
            taken as model inputs as they are, uint8 is scaled to [0, 1] and normalised. None takes
            the embedded digits if the geometry is theirs, else synthetic pictures; or `Images`.
        vit: Geometry the images must have.
        preprocessing: Normalisation and resize.
        samples: Take at most so many, evenly spread; all by default.

    Raises:
        InputError: Nothing to read there, or images of another geometry.
    """
    if samples is not None and samples < 1:
        raise InputError(f"{samples} samples asked for; expected at least 1")
    if isinstance(source, Images):
        return source.select(samples)
    if source is None:
        digits = embedded_digits()
        if digits.pixels.shape[1:] == vit.input_size:
            return digits.select(samples)
        return synthetic(vit, samples or SYNTHETIC_SAMPLES)
    source = Path(source)
    if packed := places.files(source):
        return _from_records(places.read(packed, source), vit, preprocessing, samples)
    if places.are_pictures(source):
        return _from_folder(source, vit, preprocessing, samples)
    return from_npz(source, vit, preprocessing).select(samples)


def require_normalisation(source: Path, preprocessing: Preprocessing) -> None:
    """Check that pictures are prepared as the model was trained, where its answers are measured.

    Model inputs (floats of an `.npz`) need no preparation.

    Raises:
        InputError: There are pictures, and nothing tells their mean and deviation.
    """
    if preprocessing.normalises_by_guess and _holds_pictures(source):
        raise InputError(
            f"{remote.shown(source)} holds pictures, and nothing tells the mean and deviation that "
            "the model was trained with; state --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 "
            "(ImageNet's), --mean 0.5 --std 0.5, or what it was (of an exported model: at its "
            "export)"
        )


def _holds_pictures(source: Path) -> bool:
    """Whether there are pixels to be normalised: a folder, or an `.npz` of integers."""
    if places.are_pictures(source):
        return True
    try:
        with (
            remote.at_hand(source) as here,
            zipfile.ZipFile(here) as archive,
            archive.open("images.npy") as file,
        ):
            np.lib.format.read_magic(file)
            return bool(np.lib.format.read_array_header_1_0(file)[2].kind != "f")
    except (OSError, ValueError, LookupError, zipfile.BadZipFile, zlib.error, EOFError):
        return False  # told when it is read


def batches(count: int, size: int) -> list[NDArray[np.int64]]:
    """Indices of consecutive batches of exactly `size`; the last wraps around to the start."""
    return [np.arange(start, start + size) % count for start in range(0, count, size)]


def fixture(name: str) -> Path:
    """Path of a file that ships inside the package."""
    return Path(str(resources.files("ltmp_export") / "fixtures" / name))


def embedded_digits() -> Images:
    """48 handwritten digits (UCI, CC BY 4.0; scikit-learn's copy), 32x32, held out of training."""
    with np.load(fixture("digits_images.npz")) as archive:
        grey, labels = archive["images"], archive["labels"]
    pixels = np.repeat(grey, 3, axis=1)
    names = tuple(f"digit {i} (a {label})" for i, label in enumerate(labels))
    return Images(pixels, labels, names, "embedded digits")


def synthetic(vit: Geometry, count: int, seed: int = 0) -> Images:
    """Seeded pictures with structure: smooth colour fields, shapes with edges, fine texture.

    How much there is on a picture grows with its index, so that images differ in how many tokens
    a model keeps. Values are roughly those of a normalised photograph, mean 0 and deviation 1.
    """
    rng = np.random.default_rng(seed)
    pictures = [made_up.picture(rng, vit, (i + 1) / count) for i in range(count)]
    names = tuple(f"synthetic {i}" for i in range(count))
    return Images(np.stack(pictures), None, names, f"{count} synthetic pictures, seed {seed}")


def from_npz(path: Path, vit: Geometry, preprocessing: Preprocessing) -> Images:
    """All images of an `.npz`, see `load_images`.

    Raises:
        InputError: It cannot be read, or holds images of another geometry.
    """
    shown = remote.shown(path)
    try:
        with remote.at_hand(path) as file:
            disk.require_file(file, "a folder of pictures or an .npz with 'images'")
            _require_array_memory(file)
            with np.load(file, allow_pickle=False) as archive:
                if "images" not in archive:
                    found = ", ".join(archive.files[:6])
                    raise InputError(f"{shown} has no array 'images' (found: {found})")
                images, labels = archive["images"], archive.get("labels")
    except UNREADABLE as err:
        raise InputError(
            f"{shown} is not a folder of pictures or a readable .npz: {reason(err)}"
        ) from err
    if not all(isinstance(array, np.ndarray) for array in (images, labels) if array is not None):
        raise InputError(f"{shown}: 'images' or 'labels' is no array; save it with numpy.savez")
    pixels = to_inputs(path, images, vit, preprocessing)
    if labels is not None:
        _require_labels(path, labels, len(pixels), vit.classes)
    names = tuple(f"{path.name}[{i}]" for i in range(len(pixels)))
    return Images(pixels, None if labels is None else labels.astype(np.int64), names, shown)


def _require_array_memory(path: Path) -> None:
    """What the headers of an `.npz` say its arrays take, before any is read.

    Raises:
        InputError: More than the limit.
        ValueError: A header that NumPy does not write for numbers.
    """
    total = 0
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename not in ("images.npy", "labels.npy"):
                continue
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("packed in a way that NumPy does not write")
            with archive.open(entry) as file:
                if np.lib.format.read_magic(file) != (1, 0):  # its header has at most 64 kB
                    raise ValueError("a header that NumPy does not write for numbers")
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if not all(0 <= size < 2**40 for size in shape):
                raise ValueError(f"an array of shape {shape[:8]}")
            total += math.prod(shape) * max(dtype.itemsize, np.dtype(np.float32).itemsize)
    memory.require_memory(total, f"{path}: its arrays")


def _require_labels(path: Path, labels: NDArray[Any], count: int, classes: int) -> None:
    """Check that there is one for each image, of a model's classes where it has any.

    Raises:
        InputError: There is not.
    """
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: labels {labels.dtype}{labels.shape}; expected one integer each")
    if classes and (labels.min() < 0 or labels.max() >= classes):
        found = f"{labels.min()} to {labels.max()}"
        raise InputError(
            f"{path}: labels from {found}; the model has the classes 0 to {classes - 1}"
        )


def to_inputs(
    path: Path, images: NDArray[Any], vit: Geometry, preprocessing: Preprocessing
) -> NDArray[np.float32]:
    """[n, c, h, w], [n, h, w, c] or [n, h, w] → normalised [n, channels, H, W].

    Raises:
        InputError: They are of another shape, or no numbers.
    """
    channels = vit.in_chans
    found = f"{path}: images {images.dtype}{images.shape}"
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1:] == (*vit.image_size, channels):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim == 4 and images.shape[1] == 1:
        images = np.repeat(images, channels, axis=1)
    if images.ndim != 4 or images.shape[1:] != vit.input_size or not len(images):
        raise InputError(f"{found}; expected [n, {', '.join(map(str, vit.input_size))}], n > 0")
    if images.dtype == np.uint8:
        mean = np.array(preprocessing.mean).reshape(-1, 1, 1)
        std = np.array(preprocessing.std).reshape(-1, 1, 1)
        images = (images / 255.0 - mean) / std
    elif images.dtype.kind != "f":
        raise InputError(f"{found}; expected uint8 pixels or normalised floats")
    pixels = np.ascontiguousarray(images, dtype=np.float32)
    if not np.isfinite(pixels).all():
        first = int(np.flatnonzero(~np.isfinite(pixels).all(axis=(1, 2, 3)))[0])
        raise InputError(f"{path}: images[{first}] holds NaN or infinite values")
    return pixels


def _from_folder(
    folder: Path, vit: Geometry, preprocessing: Preprocessing, samples: int | None
) -> Images:
    found = folders.find(folder)
    transform, mode = pictures.evaluation_transform(vit, preprocessing), pictures.mode(vit)
    index = _chosen(len(found.paths), samples, vit, found.origin)
    pixels = [pictures.read(found.paths[i], mode, transform).numpy() for i in index]
    names = tuple(found.inside[i].as_posix() for i in index)
    return Images(np.stack(pixels), None, names, found.origin, found.remarks)


def _from_records(
    found: Records, vit: Geometry, preprocessing: Preprocessing, samples: int | None
) -> Images:
    transform, mode = pictures.evaluation_transform(vit, preprocessing), pictures.mode(vit)
    reader = Recorded(found.content, found.names, mode, transform)
    index = _chosen(len(found), samples, vit, found.origin)
    names = tuple(found.names[i] for i in index)
    return Images(np.stack([reader[i].numpy() for i in index]), None, names, found.origin)


def _chosen(count: int, samples: int | None, vit: Geometry, origin: str) -> list[int]:
    """Which of so many pictures are read, evenly spread.

    Raises:
        InputError: They would take more memory than the limit.
    """
    most = count if samples is None else min(samples, count)
    memory.require_memory(most * math.prod(vit.input_size) * 4, f"{origin}: {most} pictures")
    if most == count:
        return list(range(count))
    return [int(number) for number in np.linspace(0, count - 1, most).round()]
