"""Files elsewhere: s3://, gs://, http:// and whatever else fsspec opens.

A path that begins with a scheme and a colon is an address. `Path` makes one slash of two, so an
address that was handed on as a path is told all the same: `Path("s3://b/x")` is `s3:/b/x`.

Nobody is waited for without end: a web server that says nothing for `SILENCE` seconds, however much
it has sent before, is given up; a slow one is not. s3fs and gcsfs have limits of their own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ltmp_export.errors import InputError, UnavailableError
from ltmp_export.files import memory
from ltmp_export.files.workplace import workplace

_ADDRESS = re.compile(r"([a-z][a-z0-9+]+):/+(.*)", re.DOTALL)
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "data", "https": "data"}
_WEB = ("http", "https")
SILENCE = 30.0  # seconds
_ROOTED = ("file", "local")  # whose paths begin with a slash of their own
_GONE = (404, 410)  # what web servers say of what is not there
_Tree = Any  # an fsspec file system; the package is optional


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
        tree, place = _tree(path)
        return int(tree.info(place)["size"])


def is_folder(path: Path) -> bool:
    """Whether there is a folder.

    Raises:
        InputError: It cannot be asked.
        UnavailableError: A package that reads it is missing.
    """
    if not is_remote(path):
        return path.is_dir()
    with _telling(path):
        tree, place = _tree(path)
        return bool(tree.isdir(place))


def exists(path: Path) -> bool:
    """Whether there is a file or a folder, see `is_folder`."""
    if not is_remote(path):
        return path.exists()
    with _telling(path):
        tree, place = _tree(path)
        if _scheme(path) not in _WEB:
            return bool(tree.exists(place))
        try:  # fsspec's `exists` takes servers that nobody can reach for empty ones
            tree.info(place)
        except FileNotFoundError as err:
            if _refusal(err) is not None:
                raise
            return False
        return True


def _refusal(err: FileNotFoundError) -> BaseException | None:
    """Why a web server gave no file, which fsspec calls not found whatever it was.

    Returns:
        None where the server says that there is none.
    """
    why = err.__cause__
    gone = isinstance(why, FileNotFoundError) or getattr(why, "status", None) in _GONE
    return None if gone else why


def entries(folder: Path) -> list[tuple[str, bool]]:
    """Names of what stands in a folder, sorted, each with whether it is a folder.

    Raises:
        InputError: It cannot be read.
        UnavailableError: A package that reads it is missing.
    """
    with _telling(folder):
        if not is_remote(folder):
            return sorted((entry.name, entry.is_dir()) for entry in folder.iterdir())
        tree, place = _tree(folder)
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
        tree, place = _tree(folder)
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
                tree, place = _tree(path)
                file = _Told(stack.enter_context(tree.open(place, "rb")), path)
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
            tree, place = _tree(path)
            content = bytes(tree.cat_file(place, start=start, end=start + count))
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


def _tree(path: Path) -> tuple[_Tree, str]:
    """The file system of an address, and the place in it."""
    if importlib.util.find_spec("fsspec") is None:
        raise UnavailableError(
            f"{shown(path)} is read by fsspec, which is not installed; install it, or ltmp's extra "
            "'data'"
        )
    import fsspec

    found: tuple[_Tree, str] = fsspec.core.url_to_fs(shown(path), **_patience(_scheme(path)))
    return found


def _scheme(path: Path) -> str:
    return shown(path).partition(":")[0]


def _patience(scheme: str) -> dict[str, Any]:
    """How long to wait for web servers, unless fsspec's own configuration says that.

    aiohttp by itself gives up what takes five minutes, be it silence or a large file.
    """
    if scheme not in _WEB:
        return {}
    import aiohttp
    from fsspec.config import conf

    waits = {"connect": SILENCE, "sock_connect": SILENCE, "sock_read": SILENCE}
    limits = {"timeout": aiohttp.ClientTimeout(total=None, **waits)}
    return {"client_kwargs": limits | conf.get(scheme, {}).get("client_kwargs", {})}


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
        scheme = _scheme(path)
        extra = f", or ltmp's extra '{_EXTRAS[scheme]}'" if scheme in _EXTRAS else ""
        raise UnavailableError(f"{shown(path)} needs a package: {_line(err)}{extra}") from err
    except Exception as err:  # file systems have errors of their own
        raise InputError(f"{shown(path)} cannot be read: {_said(err, path)}") from err


def _said(err: BaseException, path: Path) -> str:
    """What an error says of a file, in one line."""
    import asyncio

    web = _scheme(path) in _WEB
    if isinstance(err, FileNotFoundError):
        why = _refusal(err) if web else None
        return "it does not exist" if why is None else _said(why, path)
    if isinstance(err, (TimeoutError, asyncio.TimeoutError)):  # one and the same from Python 3.11
        limit = f"for {SILENCE:g} s" if web else "in time"
        return f"its server does not answer {limit}; try again, or copy it here"
    if type(err).__name__ == "ClientPayloadError":  # of aiohttp
        return "its server broke off in the middle of an answer; try again, or copy it here"
    return _line(err)


def _line(err: BaseException) -> str:
    """What an error says, in one line."""
    text = (getattr(err, "strerror", None) or str(err)).strip()
    return " ".join(text.split()) or type(err).__name__
