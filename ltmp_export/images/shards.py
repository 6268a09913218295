"""WebDataset's tar shards: `key.jpg` beside `key.cls` or `key.json`, many of them to a tar.

A key is a member's path up to the first dot of its name. `key.cls` holds a class's number or name,
`key.json` an object with `label` (or `cls`). Other members (`key.txt`, …) are left out. A shard is
looked through once, header by header, and a picture is read when it is needed; so it must not be
compressed, which WebDataset's need not be: pictures are.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ltmp_export.errors import InputError
from ltmp_export.files import memory, remote
from ltmp_export.images import records
from ltmp_export.images.folders import SUFFIXES
from ltmp_export.images.records import Label

SUFFIX = ".tar"
_LABELS = ("cls", "json")
_KEYS = ("label", "cls")  # of a JSON object
_LONGEST = 2**20  # bytes of a label
_BLOCK = tarfile.BLOCKSIZE
_DAMAGED = (tarfile.TarError, OSError, ValueError, EOFError, OverflowError)


@dataclass(frozen=True)
class Members:
    """Where the pictures of a tar stand in it."""

    path: Path
    starts: tuple[int, ...] = field(repr=False)
    sizes: tuple[int, ...] = field(repr=False)

    def __getitem__(self, number: int) -> bytes:
        return remote.part(self.path, self.starts[number], self.sizes[number])


@dataclass
class _Sample:
    """What is known of a key."""

    picture: tarfile.TarInfo | None = None
    label: Label = None


def read(path: Path) -> tuple[Members, list[str], list[Label]]:
    """The pictures of a shard in their order: where they stand, names and labels.

    Raises:
        InputError: It is no tar, damaged, or its pictures and labels are not in pairs.
        UnavailableError: A package that reads it is missing.
    """
    shown = remote.shown(path)
    samples: dict[str, _Sample] = {}
    with remote.opened(path) as file:
        try:
            for member in _members(file, shown):
                _take(samples, member, file, shown)
        except _DAMAGED as err:
            raise InputError(f"{shown} is no readable tar (not compressed): {err}") from err
    lonely = [key for key, sample in samples.items() if sample.picture is None]
    if lonely:
        raise InputError(f"{shown}: {lonely[0]} has a label and no picture ({', '.join(SUFFIXES)})")
    found = [sample.picture for sample in samples.values() if sample.picture is not None]
    starts, sizes = (
        zip(*((one.offset_data, one.size) for one in found), strict=True) if found else ((), ())
    )
    names = [f"{path.name}/{one.name.removeprefix('./')}" for one in found]
    return Members(path, starts, sizes), names, [sample.label for sample in samples.values()]


def _members(file: BinaryIO, shown: str) -> Iterator[tarfile.TarInfo]:
    """The files of a tar; `tarfile` itself takes a damaged header for the end."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.isfile() and not member.sparse:
                yield member
        end = tar.offset
    file.seek(max(0, end - _BLOCK))
    if file.read(_BLOCK).strip(b"\0") and file.read(_BLOCK).strip(b"\0"):
        raise ValueError(f"a damaged header at {end}")


def _take(samples: dict[str, _Sample], member: tarfile.TarInfo, file: BinaryIO, shown: str) -> None:
    """Note a member under its key.

    Raises:
        InputError: There is one of its kind already, or it is no label.
    """
    folder, slash, name = member.name.removeprefix("./").rpartition("/")
    stem, _, ending = name.partition(".")
    if not stem or "__MACOSX" in folder:
        return
    key, kind = f"{folder}{slash}{stem}", ending.lower()
    if f".{kind}" in SUFFIXES:
        sample = samples.setdefault(key, _Sample())
        if sample.picture is not None:
            raise InputError(f"{shown}: {key} has two pictures; give each a key of its own")
        memory.require_memory(member.size, f"{shown}: {member.name}")
        sample.picture = member
    elif kind in _LABELS:
        label = _label(member, kind, file, shown)
        sample = samples.setdefault(key, _Sample()) if label is not None else _Sample()
        if sample.label is not None and sample.label != label:
            raise InputError(f"{shown}: {key} has two labels, {sample.label!r} and {label!r}")
        sample.label = label


def _label(member: tarfile.TarInfo, kind: str, file: BinaryIO, shown: str) -> Label:
    """What a member says; None of an object that states no label."""
    name = f"{shown}: {member.name}"
    if member.size > _LONGEST:
        raise InputError(f"{name} has {member.size} bytes; expected a label")
    file.seek(member.offset_data)
    try:
        text = file.read(member.size).decode("utf-8")
        if kind == "cls":
            return records.label_of(text, name)
        stated = json.loads(text)
    except (UnicodeDecodeError, ValueError, RecursionError) as err:
        raise InputError(f"{name} is no label: {err}") from err
    if not isinstance(stated, dict):
        raise InputError(f"{name} is no JSON object with 'label'")
    given = [stated[key] for key in _KEYS if key in stated]
    return records.label_of(given[0], name) if given else None
