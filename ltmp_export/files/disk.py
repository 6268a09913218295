"""Files in and out: what they are, and writing them whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ltmp_export.errors import InputError
from ltmp_export.files import undo
from ltmp_export.files.near_misses import nearby_file

_CHUNK = 2**24  # bytes written in one go


def require_file(path: Path, what: str) -> None:
    """Check that `path` is a readable, non-empty file.

    Raises:
        InputError: It is missing, not a regular file, empty or unreadable; `what` names its role.
    """
    try:
        status = path.stat()
    except FileNotFoundError as err:
        raise InputError(f"{path} does not exist; expected {what}{nearby_file(path)}") from err
    except OSError as err:
        raise InputError(f"{path} cannot be read ({err.strerror}); expected {what}") from err
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a directory; expected {what}")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file; expected {what}")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read (permissions); expected {what}")
    if status.st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); expected {what}")


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def is_safetensors(path: Path) -> bool:
    """By content: an 8-byte little-endian header length, then a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    if len(start) < 9 or start[8:9] != b"{":
        return False
    return int(struct.unpack("<Q", start[:8])[0]) <= path.stat().st_size


def require_outputs(outputs: Sequence[Path], inputs: Sequence[Path] = ()) -> None:
    """Check early that files can be written, before minutes of work are lost.

    Args:
        outputs: Files to be written; they must differ from each other.
        inputs: Files that must not be overwritten.

    Raises:
        InputError: An output is a directory or a device, its folder is missing or not writable, or
            it is the same file as another one.
    """
    taken = {Path(os.path.realpath(path)): f"the input {path}" for path in inputs}
    for path in outputs:
        _require_writable(path)
        if other := taken.get(path.resolve()):
            raise InputError(f"the output {path} is {other}; choose another output")
        taken[path.resolve()] = f"also the output {path}"


def _require_writable(path: Path) -> None:
    try:
        folder = path.resolve().parent
        if path.is_dir():
            raise InputError(f"{path} is a directory; expected a file name for the output")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a regular file; choose another output")
        if not folder.is_dir():
            raise InputError(f"cannot write {path}: the folder {folder} does not exist; make it")
    except RuntimeError as err:  # how older versions of Python put it
        raise InputError(f"cannot write {path}: links in a circle; choose another output") from err
    except OSError as err:
        raise InputError(f"cannot write {path}: {err.strerror}; choose another output") from err
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}: the folder {folder} is not writable")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a temporary file beside it, then a rename.

    A symbolic link stays one: the file it points to is written.
    What stood at `path` stays untouched until the rename; nothing is left behind on failure.

    Raises:
        InputError: The file cannot be written there.
    """
    require_outputs([path])
    path = path.resolve()
    with telling(path), temporary_beside(path) as temporary:
        write_new(temporary, [content])
        os.replace(temporary, path)


@contextlib.contextmanager
def telling(path: Path, way_out: str = "choose another output") -> Iterator[None]:
    """Turn what the system says about writing `path` into one line.

    Raises:
        InputError: The system refused something.
    """
    try:
        yield
    except OSError as err:
        raise InputError(f"cannot write {path}: {err.strerror or err}; {way_out}") from err


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A new name in the folder of `path`, for what will be renamed to it.

    What has that name at the end is removed. It is known before there is a file, so that no
    interrupt finds a file whose name nobody knows.
    """
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.tmp")
    with undo.undone(partial(remove, temporary)):
        yield temporary


def write_new(path: Path, parts: Iterable[bytes | memoryview]) -> int:
    """Write a file that is not there yet, part by part; how many bytes.

    Its permissions are those of any new file.

    Raises:
        OSError: The system refuses; the file may be there in part.
    """
    size = 0
    with path.open("xb") as file:
        for part in parts:
            for start in range(0, len(part), _CHUNK):  # an interrupt waits for one of them at most
                size += file.write(memoryview(part)[start : start + _CHUNK])
    return size


def remove(path: Path) -> None:
    """Remove a file if it is there and can be removed."""
    # One call of C, the first thing done: no signal handler runs before the file is gone.
    try:  # noqa: SIM105
        os.unlink(path)
    except OSError:
        pass


def looks_like_onnx(path: Path) -> bool:
    """Whether a file is no checkpoint, but named `.onnx` or begun as an ONNX or ORT model is."""
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith((b"PK\x03\x04", b"\x80")) or is_safetensors(path):
        return False
    return path.suffix == ".onnx" or start.startswith(b"\x08") or start[4:] == b"ORTM"
