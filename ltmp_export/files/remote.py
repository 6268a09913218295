"""Files elsewhere: s3://, gs://, http:// and whatever else fsspec opens.

A path that begins with a scheme and a colon is an address. `Path` makes one slash of two, so an
address that was handed on as a path is told all the same: `Path("s3://b/x")` is `s3:/b/x`.
How long servers are waited for stands in `filesystems`.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ltmp_export.errors import InputError, UnavailableError
from ltmp_export.files import filesystems, memory
from ltmp_export.files.workplace import workplace

_ADDRESS = re.compile(r"([a-z][a-z0-9+]+):/+(.*)", re.DOTALL)
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "data", "https": "data"}
_ROOTED = ("file", "local")  # whose paths begin with a slash of their own


def is_remote(path: str | Path) -> bool:
    """Whether a path is an address."""
    return _ADDRESS.match(str(path)) is not None


def shown(path: str | Path) -> str:
    """An address as it was typed; any other path as it is."""
    match = _ADDRESS.match(str(path))
    if match is None:
        return str(path)
    scheme, rest = match.groups()
    return f"{scheme}://{'/' if scheme in _ROOTED else ''}{rest}"


def size(path: Path) -> int:
    """Bytes of a file.

    Raises:
        InputError: It is not there, or does not say.
        UnavailableError: A package that reads it is missing.
    """
    if not is_remote(path):
        return path.stat().st_size
    with _telling(path):
        return filesystems.size(shown(path))


def is_folder(path: Path) -> bool:
    """Whether there is a folder.

    Raises:
        InputError: It cannot be asked.
        UnavailableError: A package that reads it is missing.
    """
    if not is_remote(path):
        return path.is_dir()
    with _telling(path):
        return filesystems.is_folder(shown(path))


def exists(path: Path) -> bool:
    """Whether there is a file or a folder, see `is_folder`."""
    if not is_remote(path):
        return path.exists()
    with _telling(path):
        return filesystems.exists(shown(path))


def entries(folder: Path) -> list[tuple[str, bool]]:
    """Names of what stands in a folder, sorted, each with whether it is a folder.

    Raises:
        InputError: It cannot be read.
        UnavailableError: A package that reads it is missing.
    """
    with _telling(folder):
        if not is_remote(folder):
            return sorted((entry.name, entry.is_dir()) for entry in folder.iterdir())
        tree, place = filesystems.tree(shown(folder))
        listed = tree.ls(place, detail=True)
    found = [(one["name"].rstrip("/").rpartition("/")[2], one) for one in listed]
    return sorted((name, one["type"] == "directory") for name, one in found if name)


def below(folder: Path) -> list[str]:
    """Paths of all files in a remote folder and its folders, relative to it, sorted.

    Raises:
        InputError: It cannot be read.
        UnavailableError: A package that reads it is missing.
    """
    with _telling(folder):
        tree, place = filesystems.tree(shown(folder))
        root = str(place).rstrip("/") + "/"
        return sorted(str(name)[len(root) :] for name in tree.find(place))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file, open to be read and sought in.

    Raises:
        InputError: It cannot be read.
        UnavailableError: A package that reads it is missing.
    """
    with contextlib.ExitStack() as stack:
        with _telling(path):
            file: Any
            if is_remote(path):
                file = _Told(stack.enter_context(filesystems.opened(shown(path))), path)
            else:
                file = stack.enter_context(path.open("rb"))
        yield cast("BinaryIO", file)


class _Told:
    """A remote file whose reads fail with one line, whoever reads it."""

    def __init__(self, file: Any, path: Path) -> None:
        self.file, self.path = file, path

    def read(self, size: int = -1) -> bytes:
        with _telling(self.path):
            return bytes(self.file.read(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def part(path: Path, start: int, count: int) -> bytes:
    """So many bytes of a file.

    Raises:
        InputError: It cannot be read, or is shorter.
        UnavailableError: A package that reads it is missing.
    """
    with _telling(path):
        if is_remote(path):
            content = filesystems.part(shown(path), start, start + count)
        else:
            with path.open("rb") as file:
                file.seek(start)
                content = file.read(count)
    if len(content) > count:
        raise InputError(
            f"{shown(path)} cannot be read: its server gives no parts of a file (range requests), "
            "as shards and tables need; copy it here, or take another server"
        )
    if len(content) != count:
        raise InputError(
            f"{shown(path)} has no {count} bytes at {start} (any more): it is shorter than when it "
            "was looked at"
        )
    return content


def whole(path: Path) -> bytes:
    """All of a file, within the limit of memory.

    Raises:
        InputError: It cannot be read, or is larger than the limit.
        UnavailableError: A package that reads it is missing.
    """
    memory.require_memory(size(path), shown(path))
    with opened(path) as file, _telling(path):
        return file.read()


@contextlib.contextmanager
def at_hand(path: Path) -> Iterator[Path]:
    """A file on this machine: the same, or a copy of a remote one for as long as it is needed.

    Raises:
        InputError: It cannot be read.
        UnavailableError: A package that reads it is missing.
    """
    if not is_remote(path):
        yield path
        return
    with workplace() as folder:
        copy = folder / path.name
        with opened(path) as file, copy.open("wb") as target, _telling(path):
            shutil.copyfileobj(file, target)
        yield copy


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    """What a file system says, in one line.

    Raises:
        InputError: It refused something.
        UnavailableError: A package that reads it is missing.
    """
    try:
        yield
    except (InputError, UnavailableError):
        raise
    except ImportError as err:
        scheme = filesystems.scheme(shown(path))
        extra = f", or ltmp's extra '{_EXTRAS[scheme]}'" if scheme in _EXTRAS else ""
        raise UnavailableError(
            f"{shown(path)} needs a package: {filesystems.line(err)}{extra}"
        ) from err
    except Exception as err:  # file systems have errors of their own
        raise InputError(
            f"{shown(path)} cannot be read: {filesystems.said(err, shown(path))}"
        ) from err
