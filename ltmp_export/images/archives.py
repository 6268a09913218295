"""Labelled sets from tar shards and tables, see `images.places`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ltmp_export.errors import InputError
from ltmp_export.images import numbering, pictures, places
from ltmp_export.images.labelled import Labelled
from ltmp_export.images.numbering import Numbers
from ltmp_export.images.records import Recorded, Records

if TYPE_CHECKING:
    from ltmp_export.images.sets import Kind


def labelled(
    files: Sequence[Path],
    source: Path,
    kind: Kind,
    augment: str,
    numbers: Numbers | None = None,
    *,
    strict: bool = True,
) -> Labelled:
    """All pictures of some files.

    Args:
        files: The shards or tables.
        source: What they were found by.
        kind: What the images must be.
        augment: See `images.pictures.training_transform`.
        numbers: The class of each name, where another set has told.
        strict: Whether labels must be classes of the model.

    Raises:
        InputError: A file cannot be read, or labels are no classes of the model.
        UnavailableError: A package that reads them is missing.
    """
    found, remarks = places.read(files, source), []
    transform = pictures.training_transform(kind.geometry, kind.preprocessing, augment)
    reader = Recorded(found.content, found.names, pictures.mode(kind.geometry), transform)
    try:
        labels, numbers = _numbered(found, kind, numbers)
    except InputError as err:
        if strict or kind.class_map is not None:
            raise
        if isinstance(err, numbering.OpenOrderError) or not kind.geometry.classes:
            remarks.append(f"no top-1: {err}")
        labels, numbers = None, None
    return Labelled(
        reader, np.arange(len(found)), labels, found.names, found.origin,
        remarks=tuple(remarks), numbers=numbers, files=found.files,
    )  # fmt: skip


def _numbered(
    records: Records, kind: Kind, numbers: Numbers | None = None
) -> tuple[NDArray[np.int64] | None, Numbers | None]:
    """The class of each picture, and the number of each class where labels are names.

    Labels that are numbers are the model's own.

    Raises:
        InputError: They are not classes of the model, or what tells of folders is given.
        OpenOrderError: They are names, and their order has to be stated.
    """
    if records.labels[0] is None:
        return None, None
    if all(isinstance(label, str) for label in records.labels):
        names = {str(label) for label in records.labels}
        if numbers is None:
            numbers = numbering.of_names(records.origin, "label", names, kind)
        assert numbers is not None  # there are names
        if strangers := sorted(names - numbers.keys()):
            raise InputError(
                f"{records.origin} has a label {strangers[0]!r}, which is none of the "
                f"{len(numbers)} classes ({numbering.some(numbers)})"
            )
        return np.array([numbers[str(label)] for label in records.labels], np.int64), numbers
    given = {"--class-map": kind.class_map, "--class-order": kind.class_order}
    if flags := [flag for flag, value in given.items() if value is not None]:
        raise InputError(
            f"{records.origin} has labels that are numbers; drop {' and '.join(flags)}"
        )
    classes = kind.geometry.classes
    for name, label in zip(records.names, records.labels, strict=True):
        if not isinstance(label, int) or label < 0 or (classes and label >= classes):
            most = f"0 to {classes - 1}" if classes else "0 or more"
            raise InputError(f"{name} has the label {label!r}; expected {most}")
    return np.array(records.labels, np.int64), None
