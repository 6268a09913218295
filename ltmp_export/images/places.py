"""Where pictures stand: in a folder, an `.npz`, tar shards or tables; here or elsewhere.

Shards and tables are a file, a folder that holds them (or, as `datasets` has it, its folder `data`)
and no pictures, or a pattern like `shard-{000..009}.tar`. Which of them are for training and which
to measure on, their names tell as they do of folders: `train`, `val`, `validation`, `test`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ltmp_export.errors import InputError
from ltmp_export.files import patterns, remote
from ltmp_export.images import folders, records, shards, tables
from ltmp_export.images.records import Part, Records

VALIDATION = ("val", "validation", "test")
_TRAINING = ("train", "training")
_READERS: Mapping[str, Callable[[Path], Part]] = {
    shards.SUFFIX: shards.read,
    tables.SUFFIX: tables.read,
}


def are_pictures(source: Path | None) -> bool:
    """Whether `inputs.load_images` reads pictures there, not arrays."""
    return source is not None and (remote.is_folder(source) or _suffix(source) in _READERS)


def exists(source: Path) -> bool:
    """Whether there is something: a folder, a file, or a file of a pattern."""
    return any(map(remote.exists, patterns.expanded(source)))


def files(source: Path) -> tuple[Path, ...]:
    """The shards or tables of a source, in order; none where it is something else.

    Raises:
        InputError: A file of a pattern is missing, or both kinds stand in a folder.
        UnavailableError: A package that reads them is missing.
    """
    if _suffix(source) not in _READERS:
        return _of_folder(source) if remote.is_folder(source) else ()
    if remote.is_folder(source):  # called like one
        return _of_folder(source)
    found = tuple(patterns.expanded(source))
    if missing := [path for path in found if not remote.exists(path)]:
        raise InputError(
            f"{remote.shown(missing[0])} does not exist; expected the {len(found)} files of "
            f"{remote.shown(source)}"
        )
    return found


def held_out(found: Sequence[Path], origin: str) -> tuple[Path, ...]:
    """The files to measure on: those called `val`, if there are any, else all.

    Raises:
        InputError: All are called `train`.
    """
    for word in VALIDATION:
        if chosen := tuple(path for path in found if word in _words(path)):
            return chosen
    rest = tuple(path for path in found if not _for_training(path))
    if not rest and len(found) > 1:
        raise InputError(
            f"{origin}: all {len(found)} files are called train and none {', '.join(VALIDATION)}; "
            "name the files to measure on"
        )
    return rest or tuple(found)


def parted(found: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The files to train on, and those to measure on where their names tell; else all, and none."""
    training = tuple(path for path in found if _for_training(path))
    return (training, held_out(found, "")) if 0 < len(training) < len(found) else (tuple(found), ())


def read(found: Sequence[Path], source: Path) -> Records:
    """The pictures of shards or tables.

    Raises:
        InputError: A file cannot be read.
        UnavailableError: A package that reads them is missing.
    """
    parts = [_READERS[path.suffix.lower()](path) for path in found]
    return records.several(parts, remote.shown(source))


def _suffix(source: Path) -> str:
    return source.suffix.lower()


def _words(path: Path) -> list[str]:
    return re.split(r"[^a-z]+", path.stem.lower())


def _for_training(path: Path) -> bool:
    return not set(_TRAINING).isdisjoint(_words(path))


def _of_folder(folder: Path) -> tuple[Path, ...]:
    """The shards or tables of a folder that holds no pictures itself."""
    listed = [one for one in remote.entries(folder) if not one[0].startswith(".")]
    if any(Path(name).suffix.lower() in folders.SUFFIXES for name, _ in listed):
        return ()
    names = [name for name, inside in listed if not inside and _suffix(Path(name)) in _READERS]
    if not names:
        below = folder / "data"
        holds = ("data", True) in listed and len([one for one in listed if one[1]]) == 1
        return _of_folder(below) if holds and folder.name != "data" else ()
    if any(inside for _, inside in listed):
        return ()  # folders of classes, and an archive beside them
    if len(kinds := {_suffix(Path(name)) for name in names}) > 1:
        raise InputError(
            f"{remote.shown(folder)} holds {' and '.join(sorted(kinds))} files; name those to read"
        )
    return tuple(folder / name for name in names)
