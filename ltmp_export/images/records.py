"""Labelled pictures that stand many to a file: tar shards and tables, told alike.

A record is a picture as its file holds it (JPEG, PNG, …), with a name and perhaps a label. What
finds them stands in `images.shards` and `images.tables`, which files there are in `images.places`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ltmp_export.errors import InputError
from ltmp_export.images import pictures

if TYPE_CHECKING:
    from torch import Tensor


Label = int | str | None


class Content(Protocol):
    """Gives the bytes of a picture by its number."""

    def __getitem__(self, number: int) -> bytes: ...


@dataclass(frozen=True)
class Records:
    """The pictures of some files.

    Attributes:
        content: Their bytes.
        names: One for each: its file's name and its own.
        labels: One for each: a class's number, a class's name, or None.
        files: [n] which of the files each stands in, not falling.
        origin: Where they come from, for a person.
    """

    content: Content = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    labels: tuple[Label, ...] = field(repr=False)
    files: NDArray[np.int64] = field(repr=False)
    origin: str

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Recorded:
    """Pictures of records, opened and transformed one at a time."""

    content: Content
    names: Sequence[str]
    mode: str
    transform: Callable[[Any], Any]

    def __getitem__(self, number: int) -> Tensor:
        stream = io.BytesIO(self.content[number])
        return pictures.decode(stream, self.names[number], self.mode, self.transform)


Part = tuple[Content, Sequence[str], Sequence[Label]]  # of a file: its contents, names, labels


def several(parts: Sequence[Part], origin: str) -> Records:
    """The records of several files as one set.

    Raises:
        InputError: There are none, or some have labels and others none.
    """
    names = tuple(name for _, each, _ in parts for name in each)
    labels = tuple(label for _, _, each in parts for label in each)
    if not names:
        raise InputError(f"{origin} holds no pictures")
    missing = [name for name, label in zip(names, labels, strict=True) if label is None]
    if 0 < len(missing) < len(names):
        raise InputError(
            f"{missing[0]} has no label, as {len(names) - len(missing)} others of {origin} have; "
            "give every picture one, or none"
        )
    files = np.repeat(np.arange(len(parts)), [len(each) for _, each, _ in parts])
    return Records(_Joined(tuple(part[0] for part in parts), files), names, labels, files, origin)


@dataclass(frozen=True)
class _Joined:
    """The contents of several files, one after the other."""

    parts: tuple[Content, ...]
    files: NDArray[np.int64]

    def __getitem__(self, number: int) -> bytes:
        file = int(self.files[number])
        return self.parts[file][number - int(np.searchsorted(self.files, file))]


def label_of(value: object, name: str) -> int | str:
    """A label as a file states it.

    Raises:
        InputError: It is neither a whole number nor a name.
    """
    if isinstance(value, str) and value.strip():
        text = value.strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31:
        return value
    raise InputError(
        f"{name} has the label {str(value)[:40]!r}; expected the number or the name of a class"
    )
