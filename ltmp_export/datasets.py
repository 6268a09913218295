"""Where labelled images come from: folders of classes, or an `.npz`.

    DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg    (also `validation` or `test` for `val`)
    DIR/CLASS/*.jpg                                  split by a seed where two sets are needed
    FILE.npz                                         arrays `images` and `labels`, likewise

Classes are numbered as timm does: the names of their folders in natural order. Where the model's
class names are known and the folders are called so, these decide; a class map does in any case.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from timm.utils import natural_key

from ltmp_export import files, inputs, pictures
from ltmp_export.errors import InputError
from ltmp_export.labelled import Arrays, Labelled, Pictures
from ltmp_export.preprocessing import Preprocessing
from ltmp_export.suggestions import nearby_file
from ltmp_export.vit import Vit

if TYPE_CHECKING:
    from ltmp_export.checkpoint import Checkpoint
    from ltmp_export.onnx_export import ExportedModel

_VALIDATION = ("val", "validation", "test")
Numbers = Mapping[str, int]  # the class of each folder


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
    def of(cls, model: Checkpoint | ExportedModel, class_map: str | Path | None = None) -> Kind:
        """What a model's images must be."""
        path = None if class_map is None else Path(class_map)
        return cls(model.vit, model.preprocessing, model.label_names, path)


def held_out(source: Path, kind: Kind, *, classes: bool = True) -> Labelled:
    """The images to measure on: `val` of a folder that has one, else all.

    Args:
        source: Folder or `.npz`.
        kind: What the images must be.
        classes: Whether labels are needed; else folders that are no classes are none.

    Raises:
        InputError: There are none, or they are not of this kind.
    """
    _require_source(source, kind)
    if not os.path.isdir(source):
        return _from_npz(source, kind)
    folder = _validation(source)
    if folder is None and (source / "train").is_dir():
        raise InputError(
            f"{source} has train/ but no {', '.join(f'{name}/' for name in _VALIDATION)}; name the "
            "folder to measure on"
        )
    return _from_folder(folder or source, kind, pictures.PLAIN, strict=classes)


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
        augment: See `pictures.training_transform`; an `.npz` is taken as it is.
        share: Part to hold out where nothing else tells the two apart, in (0, 1).
        seed: Of that split.
        validation: Where the others are, else in `source`.

    Raises:
        InputError: There are none, they are not of this kind, or have no labels.
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"a share of {share:g} to hold out; expected one between 0 and 1")
    _require_source(source, kind)
    numbers = None
    if os.path.isdir(source):
        folder = source / "train" if (source / "train").is_dir() else source
        numbers = _numbers(folder, kind)
        train = _from_folder(folder, kind, augment, numbers)
        validation = validation or (_validation(source) if folder != source else None)
        plain = train if validation else _from_folder(folder, kind, pictures.PLAIN, numbers)
    else:
        train = plain = _from_npz(source, kind)
    if validation is None:
        train, others = _parted(train, plain, share, seed)
    elif numbers is not None and validation.is_dir():
        others = _from_folder(_validation(validation) or validation, kind, pictures.PLAIN, numbers)
    else:
        others = held_out(validation, kind)
    for images in (train, others):
        images.require_labels()
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


def _require_source(source: Path, kind: Kind) -> None:
    if not source.exists():
        raise InputError(
            f"{source} does not exist; expected a folder of class folders, or an .npz with "
            f"'images' and 'labels'{nearby_file(source)}"
        )
    inputs.require_normalisation(source, kind.preprocessing)


def _validation(folder: Path) -> Path | None:
    return next((folder / name for name in _VALIDATION if (folder / name).is_dir()), None)


def _from_npz(source: Path, kind: Kind) -> Labelled:
    if kind.class_map is not None:
        raise InputError(f"{source} has labels, not folders; drop --class-map {kind.class_map}")
    images = inputs.from_npz(source, kind.vit, kind.preprocessing)
    index = np.arange(len(images))
    origin, digest = str(source), files.sha256(source)
    return Labelled(Arrays(images.pixels), index, images.labels, images.names, origin, digest)


def _from_folder(
    folder: Path,
    kind: Kind,
    augment: str,
    numbers: Numbers | None = None,
    *,
    strict: bool = True,
) -> Labelled:
    """All pictures of a folder, with the classes of its folders if they are classes.

    Args:
        folder: The folder.
        kind: What the images must be.
        augment: See `pictures.training_transform`.
        numbers: The class of each of its folders, where another set has told.
        strict: Whether folders must be classes.
    """
    paths = pictures.find(folder)
    inside = [path.relative_to(folder) for path in paths]
    transform = pictures.training_transform(kind.vit, kind.preprocessing, augment)
    reader = Pictures(paths, pictures.mode(kind.vit), transform)
    try:
        numbers = _numbers(folder, kind) if numbers is None else numbers
        labels = _labels(folder, inside, numbers)
    except InputError:
        if strict or kind.class_map is not None:
            raise
        labels = None
    names = tuple(path.as_posix() for path in inside)
    return Labelled(reader, np.arange(len(paths)), labels, names, str(folder))


def _labels(
    folder: Path, inside: Sequence[Path], numbers: Numbers | None
) -> NDArray[np.int64] | None:
    """The class of each picture; None where no picture is in a folder of its own."""
    if numbers is None:
        return None
    for path in inside:
        if len(path.parts) == 1:
            raise InputError(f"{folder / path} stands beside the class folders; put it into one")
        if path.parts[0] not in numbers:
            raise InputError(
                f"{folder} has a folder {path.parts[0]!r}, which is none of the "
                f"{len(numbers)} classes ({_some(numbers)})"
            )
    return np.array([numbers[path.parts[0]] for path in inside], dtype=np.int64)


def _numbers(folder: Path, kind: Kind) -> Numbers | None:
    """The class of each folder in a folder; None where all pictures stand in it directly.

    Raises:
        InputError: They are not the model's classes.
    """
    if kind.class_map is not None:
        return _ordered(_read_class_map(kind.class_map, kind.vit.classes))
    inside = [path.relative_to(folder).parts for path in pictures.find(folder)]
    found = {parts[0] for parts in inside if len(parts) > 1}
    if not found:
        return None
    if known := found & set(kind.label_names or ()):
        return _by_label_names(folder, found, known, kind.label_names or ())
    if len(found) != kind.vit.classes:
        raise InputError(
            f"{folder} has {len(found)} class folders ({_some(found)}), the model "
            f"{kind.vit.classes} classes; state which is which with --class-map FILE, a folder's "
            "name on each line"
        )
    return _ordered(sorted(found, key=lambda name: (natural_key(name), name)))


def _by_label_names(
    folder: Path, found: Set[str], known: Set[str], names: Sequence[str]
) -> Numbers:
    """The model's own numbers, where folders are called as its classes."""
    strangers = sorted(found - known)
    if strangers:
        raise InputError(
            f"{folder} has {len(known)} folders called as the model's classes ({_some(known)}), "
            f"but also {_some(strangers)}; state which is which with --class-map FILE"
        )
    if twice := sorted(name for name in known if names.count(name) > 1):
        raise InputError(
            f"{folder}: the model has several classes called {twice[0]!r}; state which is which "
            "with --class-map FILE, a folder's name on each line"
        )
    return _ordered(names)


def _ordered(names: Sequence[str]) -> Numbers:
    return {name: number for number, name in enumerate(names)}


def _some(names: Collection[str]) -> str:
    """The first few."""
    return ", ".join([*sorted(names)[:3], *(["…"] if len(names) > 3 else [])])


def _read_class_map(path: Path, classes: int) -> list[str]:
    files.require_file(path, "a text file with a class folder's name on each line")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as err:
        raise InputError(f"{path} is not a text file: {err}") from err
    if len(lines) != classes or len(set(lines)) != classes:
        raise InputError(
            f"{path} has {len(lines)} lines, {len(set(lines))} of them different; the model has "
            f"{classes} classes"
        )
    return lines
