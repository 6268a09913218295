"""Where labelled images come from: folders of classes, or an `.npz`.

    DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg    (also `validation` or `test` for `val`)
    DIR/CLASS/*.jpg                                  split by a seed where two sets are needed
    FILE.npz                                         arrays `images` and `labels`, likewise
    DIR/*.tar, DIR/*.parquet                         shards and tables, see `images.places`

How the folders are numbered stands in `images.numbering`, which files are pictures in `folders`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ltmp_export.errors import InputError
from ltmp_export.files import disk, remote
from ltmp_export.files.near_misses import nearby_file
from ltmp_export.images import archives, folders, inputs, numbering, pictures, places
from ltmp_export.images.folders import Found
from ltmp_export.images.labelled import Arrays, Labelled, Pictures
from ltmp_export.images.numbering import Numbers
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.plan.geometry import Geometry
from ltmp_export.statements.choices import Choices


class Model(Protocol):
    """What is asked of a checkpoint or an exported file."""

    @property
    def geometry(self) -> Geometry:
        """Of the model."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become inputs."""

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Class names, where it knows them."""

    @property
    def choices(self) -> Choices:
        """What the user stated when it was read or exported."""


@dataclass(frozen=True)
class Kind:
    """What the images are for.

    Attributes:
        geometry: What they must have.
        preprocessing: Normalisation and resize.
        label_names: The model's class names, where known.
        class_map: A file with a folder's name on each line, in the order of the classes.
        class_order: One of `images.numbering.ORDERS`, where the user states it.
        assume_defaults: Take natural order where it differs from the other and nothing tells.
    """

    geometry: Geometry
    preprocessing: Preprocessing
    label_names: tuple[str, ...] | None = None
    class_map: Path | None = None
    class_order: str | None = None
    assume_defaults: bool = False

    @classmethod
    def of(
        cls,
        model: Model,
        class_map: str | Path | None = None,
        class_order: str | None = None,
        choices: Choices | None = None,
    ) -> Kind:
        """What a model's images must be; choices by default as when it was read or exported."""
        path = None if class_map is None else Path(class_map)
        assume = bool((choices or model.choices).assume_defaults)
        prepared = replace(model.preprocessing, assumed=()) if assume else model.preprocessing
        return cls(model.geometry, prepared, model.label_names, path, class_order, assume)


def held_out(source: Path, kind: Kind, *, classes: bool = True) -> Labelled:
    """The images to measure on: `val` of a folder that has one, else all.

    Args:
        source: Folder or `.npz`.
        kind: What the images must be.
        classes: Whether labels are needed; else folders that are no classes are none, and those
            whose order is open are left without labels.

    Raises:
        InputError: There are none, or they are not of this kind.
    """
    _require_source(source, kind)
    if files := places.files(source):
        chosen = places.held_out(files, remote.shown(source))
        return archives.labelled(chosen, source, kind, pictures.PLAIN, strict=classes)
    if not places.are_pictures(source):
        return _from_npz(source, kind)
    folder = _validation(source)
    if folder is None and remote.is_folder(source / "train"):
        raise InputError(
            f"{remote.shown(source)} has train/ but no "
            f"{', '.join(f'{name}/' for name in places.VALIDATION)}; name the folder to measure on"
        )
    place = folder or source
    if files := places.files(place):
        return archives.labelled(files, place, kind, pictures.PLAIN, strict=classes)
    return _from_folder(folders.find(place), kind, pictures.PLAIN, strict=classes)


def halves(images: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """Two sets of the same size or nearly, drawn by a seed.

    Raises:
        InputError: There are fewer than two images.
    """
    if len(images) < 2:
        raise InputError(f"{images.origin}: {len(images)} image, expected at least 2")
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
        augment: See `images.pictures.training_transform`; an `.npz` is taken as it is.
        share: Part to hold out where nothing else tells the two apart, in (0, 1).
        seed: Of that split.
        validation: Where the others are, else in `source`.

    Raises:
        InputError: There are none, they are not of this kind, or have no labels.
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"a share of {share:g} to hold out; expected one between 0 and 1")
    _require_source(source, kind)
    inside = remote.is_folder(source) and remote.is_folder(source / "train")
    folder = source / "train" if inside else source
    validation = validation or (_validation(source) if inside else None)
    if files := places.files(folder):
        files, measured = places.parted(files)
        train = archives.labelled(files, folder, kind, augment)
        plain = archives.labelled(files, folder, kind, pictures.PLAIN, train.numbers)
    elif remote.is_folder(folder):
        found, measured = folders.find(folder), ()
        numbers = numbering.numbers(found, kind)
        train = _from_folder(found, kind, augment, numbers)
        plain = train if validation else _from_folder(found, kind, pictures.PLAIN, numbers)
    else:
        train = plain = _from_npz(source, kind)
        measured = ()
    if validation is not None:
        others = _beside(validation, train, kind)
    elif measured:
        others = archives.labelled(measured, folder, kind, pictures.PLAIN, train.numbers)
    else:
        train, others = _parted(train, plain, share, seed)
    for images in (train, others):
        images.require_labels()
    return train, others


def _beside(validation: Path, train: Labelled, kind: Kind) -> Labelled:
    """Images to measure on that stand apart; folders have the classes of those to train on."""
    place = validation
    if remote.is_folder(validation):
        place = _validation(validation) or validation
        if train.numbers is not None and not places.files(place):
            return _from_folder(folders.find(place), kind, pictures.PLAIN, train.numbers)
    return held_out(validation, kind)


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


def _require_source(source: Path, kind: Kind) -> None:
    if not places.exists(source):
        near = "" if remote.is_remote(source) else nearby_file(source)
        raise InputError(
            f"{remote.shown(source)} does not exist; expected a folder of class folders, tar "
            f"shards or parquet, or an .npz with 'images' and 'labels'{near}"
        )
    inputs.require_normalisation(source, kind.preprocessing)


def _validation(folder: Path) -> Path | None:
    there = (folder / name for name in places.VALIDATION)
    return next((path for path in there if remote.is_folder(path)), None)


def _from_npz(source: Path, kind: Kind) -> Labelled:
    if kind.class_map is not None:
        raise InputError(f"{source} has labels, not folders; drop --class-map {kind.class_map}")
    if kind.class_order is not None:
        raise InputError(f"{source} has labels, not folders; drop --class-order")
    images = inputs.from_npz(source, kind.geometry, kind.preprocessing)
    index = np.arange(len(images))
    with remote.at_hand(source) as file:
        origin, digest = remote.shown(source), disk.sha256(file)
    return Labelled(Arrays(images.pixels), index, images.labels, images.names, origin, digest)


def _from_folder(
    found: Found,
    kind: Kind,
    augment: str,
    numbers: Numbers | None = None,
    *,
    strict: bool = True,
) -> Labelled:
    """All pictures of a folder, with the classes of its folders if they are classes.

    Args:
        found: The pictures.
        kind: What the images must be.
        augment: See `images.pictures.training_transform`.
        numbers: The class of each of its folders, where another set has told.
        strict: Whether folders must be classes.
    """
    transform = pictures.training_transform(kind.geometry, kind.preprocessing, augment)
    reader = Pictures(found.paths, pictures.mode(kind.geometry), transform)
    remarks = list(found.remarks)
    labels = None
    try:
        numbers = numbering.numbers(found, kind) if numbers is None else numbers
        labels = None if numbers is None else _labels(found, numbers)
    except InputError as err:
        if strict or kind.class_map is not None:
            raise
        if isinstance(err, numbering.OpenOrderError) or not kind.geometry.classes:
            remarks.append(f"no top-1: {err}")
        numbers = None
    if numbers is not None and labels is not None:
        remarks += _missing(found, numbers, labels)
    names = tuple(path.as_posix() for path in found.inside)
    index, origin = np.arange(len(names)), found.origin
    return Labelled(reader, index, labels, names, origin, remarks=tuple(remarks), numbers=numbers)


def _labels(found: Found, numbers: Numbers) -> NDArray[np.int64]:
    """The class of each picture.

    Raises:
        InputError: One is in none.
    """
    for path in found.inside:
        if len(path.parts) == 1:
            raise InputError(
                f"{remote.shown(found.folder / path)} stands beside the class folders; put it "
                "into one"
            )
        if path.parts[0] not in numbers:
            raise InputError(
                f"{found.origin} has a folder {path.parts[0]!r}, which is none of the "
                f"{len(numbers)} classes ({numbering.some(numbers)})"
            )
    return np.array([numbers[path.parts[0]] for path in found.inside], dtype=np.int64)


def _missing(found: Found, numbers: Numbers, labels: NDArray[np.int64]) -> list[str]:
    """A line on the classes that there are no pictures of."""
    there = set(labels.tolist())
    missing = [name for name, number in numbers.items() if number not in there]
    if not missing:
        return []
    return [
        f"{found.origin} has no pictures of {len(missing)} of the {len(numbers)} classes "
        f"({numbering.some(missing)})"
    ]
