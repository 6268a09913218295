"""Labelled images, read when they are needed: folders of classes, or an `.npz`.

    DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg    (also `validation` or `test` for `val`)
    DIR/CLASS/*.jpg                                  split by a seed where two sets are needed
    FILE.npz                                         arrays `images` and `labels`, likewise

Classes are numbered as timm does: the names of their folders in natural order. Where the model's
class names are known and the folders are called so, these decide; a class map does in any case.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils import natural_key
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ltmp_export import files, inputs, pictures
from ltmp_export.checkpoint import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.preprocessing import Preprocessing
from ltmp_export.suggestions import nearby_file
from ltmp_export.vit import Vit

_VALIDATION = ("val", "validation", "test")


class Reader(Protocol):
    """Gives the input of an image [channels, H, W] by its number."""

    def __getitem__(self, number: int) -> Tensor: ...


@dataclass(frozen=True)
class Arrays:
    """Inputs in memory [n, channels, H, W]."""

    pixels: NDArray[np.float32]

    def __getitem__(self, number: int) -> Tensor:
        return torch.from_numpy(self.pixels[number])


@dataclass(frozen=True)
class Pictures:
    """Picture files, opened and transformed one at a time."""

    paths: Sequence[Path]
    mode: str
    transform: Callable[[Any], Tensor]

    def __getitem__(self, number: int) -> Tensor:
        return pictures.read(self.paths[number], self.mode, self.transform)


@dataclass(frozen=True)
class Labelled:
    """A set of images with their classes.

    Attributes:
        reader: Gives the inputs; its numbers are those in `index`.
        index: [n] which of the reader's images belong to the set.
        labels: [n] int64 class indices, where they are known.
        names: One for each image.
        origin: Where they come from, for a person.
        sha256: Digest of the `.npz`; None for a folder.
    """

    reader: Reader = field(repr=False)
    index: NDArray[np.int64] = field(repr=False)
    labels: NDArray[np.int64] | None = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    origin: str
    sha256: str | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Tensor:
        return self.reader[int(self.index[number])]

    def take(self, chosen: NDArray[np.int64]) -> Labelled:
        """Those of these numbers."""
        return replace(
            self,
            index=self.index[chosen],
            labels=None if self.labels is None else self.labels[chosen],
            names=tuple(self.names[number] for number in chosen),
        )

    def select(self, count: int | None) -> Labelled:
        """At most `count` images, evenly spread; all for None.

        Raises:
            InputError: The count is below 1.
        """
        if count is not None and count < 1:
            raise InputError(f"{count} samples asked for; expected at least 1")
        if count is None or count >= len(self):
            return self
        return self.take(np.linspace(0, len(self) - 1, count).round().astype(np.int64))

    def require_labels(self) -> NDArray[np.int64]:
        """The labels.

        Raises:
            InputError: There are none.
        """
        if self.labels is None:
            raise InputError(
                f"{self.origin} has no labels; expected a folder for each class, or an .npz with "
                "'images' and 'labels'"
            )
        return self.labels

    def batches(self, size: int, workers: int = 0) -> Iterator[Tensor]:
        """All images in order, in batches [at most size, channels, H, W]."""
        keys = [range(at, min(at + size, len(self))) for at in range(0, len(self), size)]
        yield from load(self, keys, workers)


def load(source: Any, keys: Sequence[Sequence[Any]], workers: int) -> Iterator[Tensor]:
    """Batches of what `source[key]` gives, in order, read by as many processes beside this one."""
    dataset: Dataset[Tensor] = _Keyed(source)
    stream: DataLoader[Tensor] = DataLoader(
        dataset,
        batch_sampler=keys,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=torch.stack,
        generator=torch.Generator(),  # its draws must not move the global one
    )
    yield from stream


class _Keyed(Dataset[Tensor]):
    """Anything with keys as torch's loader takes it."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __getitem__(self, key: Any) -> Tensor:
        item: Tensor = self.source[key]
        return item


@dataclass(frozen=True)
class Kind:
    """What the images are for.

    Attributes:
        vit: Geometry they must have.
        preprocessing: Normalisation and resize.
        label_names: The model's class names, where known.
        class_map: A file with a folder's name on each line, in the order of the classes.
    """

    vit: Vit
    preprocessing: Preprocessing
    label_names: tuple[str, ...] | None = None
    class_map: Path | None = None

    @classmethod
    def of(cls, model: Checkpoint, class_map: str | Path | None = None) -> Kind:
        """What a checkpoint's images must be."""
        path = None if class_map is None else Path(class_map)
        return cls(model.vit, model.preprocessing, model.label_names, path)


def held_out(source: Path, kind: Kind, *, classes: bool = True) -> Labelled:
    """The images to measure on: `val` of a folder that has one, else all.

    Args:
        source: Folder or `.npz`.
        kind: What the images must be.
        classes: Whether folders must be the model's classes; else others are no labels.

    Raises:
        InputError: There are none, or they are not of this kind.
    """
    _require_source(source)
    if not os.path.isdir(source):
        return _from_npz(source, kind)
    return _from_folder(_validation(source) or source, kind, pictures.PLAIN, classes)


def halves(images: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """Two sets of the same size or nearly, drawn by a seed.

    Raises:
        InputError: There are fewer than two images.
    """
    return _parted(images, images, 0.5, seed)


def split(
    source: Path,
    kind: Kind,
    *,
    augment: str,
    share: float,
    seed: int,
    validation: Path | None = None,
) -> tuple[Labelled, Labelled]:
    """Images to train on, and others to measure on.

    Args:
        source: Folder or `.npz`.
        kind: What the images must be.
        augment: See `pictures.training_transform`; an `.npz` is taken as it is.
        share: Part to hold out where nothing else tells the two apart, in (0, 1).
        seed: Of that split.
        validation: Where the others are, else in `source`.

    Raises:
        InputError: There are none, they are not of this kind, or have no labels.
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"a share of {share:g} to hold out; expected one between 0 and 1")
    _require_source(source)
    folder = source / "train" if (source / "train").is_dir() else source
    apart = validation or (_validation(source) if folder != source else None)
    if os.path.isdir(source):
        train = _from_folder(folder, kind, augment)
        plain = _from_folder(folder, kind, pictures.PLAIN) if apart is None else None
    else:
        train = plain = _from_npz(source, kind)
    if apart is not None or plain is None:
        others = held_out(apart or source, kind)
    else:
        train, others = _parted(train, plain, share, seed)
    train.require_labels(), others.require_labels()
    return train, others


def _parted(train: Labelled, plain: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """One set of images in two, drawn by a seed."""
    order = np.random.default_rng(seed).permutation(len(train))
    held = round(share * len(train))
    if not 0 < held < len(train):
        raise InputError(
            f"{train.origin} has {len(train)} images, of which {held} would be held out; give "
            "more images, another share, or the others apart"
        )
    return train.take(np.sort(order[held:])), plain.take(np.sort(order[:held]))


def _require_source(source: Path) -> None:
    if not source.exists():
        raise InputError(
            f"{source} does not exist; expected a folder of class folders, or an .npz with "
            f"'images' and 'labels'{nearby_file(source)}"
        )


def _validation(folder: Path) -> Path | None:
    return next((folder / name for name in _VALIDATION if (folder / name).is_dir()), None)


def _from_npz(source: Path, kind: Kind) -> Labelled:
    images = inputs.from_npz(source, kind.vit, kind.preprocessing)
    index = np.arange(len(images))
    origin, digest = str(source), files.sha256(source)
    return Labelled(Arrays(images.pixels), index, images.labels, images.names, origin, digest)


def _from_folder(folder: Path, kind: Kind, augment: str, classes: bool = True) -> Labelled:
    paths = pictures.find(folder)
    inside = [path.relative_to(folder) for path in paths]
    reader = Pictures(
        paths,
        pictures.mode(kind.vit),
        pictures.training_transform(kind.vit, kind.preprocessing, augment),
    )
    labels, numbers = None, None
    if all(len(path.parts) > 1 for path in inside):
        try:
            numbers = _classes(folder, {path.parts[0] for path in inside}, kind)
        except InputError:
            if classes or kind.class_map is not None:
                raise
    if numbers is not None:
        labels = np.array([numbers[path.parts[0]] for path in inside], dtype=np.int64)
    names = tuple(path.as_posix() for path in inside)
    return Labelled(reader, np.arange(len(paths)), labels, names, str(folder))


def _classes(folder: Path, found: set[str], kind: Kind) -> dict[str, int]:
    """The class of each folder.

    Raises:
        InputError: They are not the model's classes.
    """
    if kind.class_map is not None:
        known = _read_class_map(kind.class_map, kind.vit.classes)
        if missing := sorted(found - set(known)):
            raise InputError(f"{kind.class_map} has no line {missing[0]!r}, a folder in {folder}")
        return {name: number for number, name in enumerate(known)}
    names = kind.label_names or ()
    if found <= set(names):
        return {name: number for number, name in enumerate(names)}
    if len(found) != kind.vit.classes:
        raise InputError(
            f"{folder} has {len(found)} class folders ({', '.join(sorted(found)[:3])}, …), the "
            f"model {kind.vit.classes} classes; state which is which with --class-map FILE, a "
            "folder's name on each line"
        )
    return {name: number for number, name in enumerate(sorted(found, key=natural_key))}


def _read_class_map(path: Path, classes: int) -> list[str]:
    files.require_file(path, "a text file with a class folder's name on each line")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as err:
        raise InputError(f"{path} is not a text file: {err}") from err
    if len(lines) != classes or len(set(lines)) != classes:
        raise InputError(
            f"{path} has {len(lines)} lines, {len(set(lines))} of them different; the model has "
            f"{classes} classes"
        )
    return lines
