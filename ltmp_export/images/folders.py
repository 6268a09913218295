"""Which pictures are in a folder, and what else is there and is left out.

Links are followed as timm does, to folders and to files. A folder that several ways lead to is
read once, told by its real path: so a link to a folder above itself ends, too. Left out are hidden
files and folders (a name that begins with a dot, as macOS's `._*`), `__MACOSX`, and whatever has
none of the suffixes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ltmp_export.errors import InputError
from ltmp_export.files import remote

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

# What is left out, as (of one, of several).
_HIDDEN = ("hidden file", "hidden files")
_HIDDEN_FOLDER = ("hidden folder", "hidden folders")
_OTHER = ("file that is no picture", "files that are no pictures")
_BROKEN = ("broken link", "broken links")
_AGAIN = ("folder read by another path", "folders read by another path")
_CLOSED = ("folder that cannot be read", "folders that cannot be read")
_KINDS = (_HIDDEN, _HIDDEN_FOLDER, _OTHER, _BROKEN, _AGAIN, _CLOSED)


@dataclass(frozen=True)
class Found:
    """The pictures of a folder.

    Attributes:
        folder: The folder.
        paths: Its pictures, sorted; each begins with the folder.
        left_out: What else is there, in words; empty if nothing is.
    """

    folder: Path
    paths: tuple[Path, ...]
    left_out: str

    @property
    def origin(self) -> str:
        """The folder, for a person."""
        return remote.shown(self.folder)

    @property
    def inside(self) -> tuple[Path, ...]:
        """The pictures' paths in the folder."""
        return tuple(path.relative_to(self.folder) for path in self.paths)

    @property
    def remarks(self) -> tuple[str, ...]:
        """A line on what was left out, if anything was."""
        return (f"{self.origin}: left out {self.left_out}",) if self.left_out else ()


def find(folder: Path) -> Found:
    """All pictures in a folder and its folders.

    Raises:
        InputError: There are none.
        UnavailableError: It is elsewhere, and a package that reads it is missing.
    """
    pictures: list[Path] = []
    others: dict[tuple[str, str], list[str]] = {kind: [] for kind in _KINDS}
    for path, kind in _listed(folder) if remote.is_remote(folder) else _walk(folder):
        if kind is None:
            pictures.append(path)
        else:
            others[kind].append(path.name)
    left_out = ", ".join(_counted(*kind, names) for kind, names in others.items() if names)
    if not pictures:
        more = f"; left out: {left_out}" if left_out else ""
        raise InputError(f"{remote.shown(folder)} holds no pictures ({', '.join(SUFFIXES)}){more}")
    return Found(folder, tuple(sorted(pictures)), left_out)


def _counted(one: str, several: str, names: list[str]) -> str:
    """How many, and the first of them."""
    first = min(names)
    if len(names) == 1:
        return f"1 {one} ({first})"
    return f"{len(names)} {several} ({first}, …)"


def _walk(folder: Path) -> Iterator[tuple[Path, tuple[str, str] | None]]:
    """Whatever is in a folder, with why it is left out; folders of its own before linked ones."""
    closed: list[Path] = []
    seen: set[str] = set()
    starts = [folder]
    for start in starts:  # grows by the links that are found on the way
        for root, folders, names in os.walk(start, onerror=lambda err: closed.append(_of(err))):
            here, real = Path(root), os.path.realpath(root)
            if real in seen:
                folders.clear()
                yield here, _AGAIN
                continue
            seen.add(real)
            yield from ((here / name, _HIDDEN_FOLDER) for name in folders if _hidden(name))
            folders[:] = sorted(name for name in folders if not _hidden(name))
            starts += [here / name for name in folders if (here / name).is_symlink()]
            yield from ((here / name, _reason(here / name)) for name in names)
    yield from ((path, _CLOSED) for path in closed)


def _listed(folder: Path) -> Iterator[tuple[Path, tuple[str, str] | None]]:
    """The same of a folder elsewhere, which has no links."""
    for name in remote.below(folder):
        path = folder / name
        if any(map(_hidden, Path(name).parts)):
            yield path, _HIDDEN
        else:
            yield path, None if path.suffix.lower() in SUFFIXES else _OTHER


def _of(err: OSError) -> Path:
    return Path(str(err.filename))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _reason(path: Path) -> tuple[str, str] | None:
    """Why a file is left out; None for a picture."""
    if _hidden(path.name):
        return _HIDDEN
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return None
    return _OTHER if os.path.exists(path) else _BROKEN
