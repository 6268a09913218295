"""Files in and out: reading weights without running code, writing whole or not at all."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import re
import stat
import struct
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ltmp_export.errors import InputError

# What torch's restricted unpickler and zip reader raise on damaged or foreign files.
_DAMAGED = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    OSError,
    struct.error,
)


def require_file(path: Path, what: str) -> None:
    """Check that `path` is a readable, non-empty file.

    Raises:
        InputError: It is missing, not a regular file, empty or unreadable; `what` names its role.
    """
    try:
        status = path.stat()
    except FileNotFoundError as err:
        raise InputError(f"{path} does not exist; expected {what}") from err
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


def read_weights(path: Path) -> Mapping[str, Any]:
    """Read a PyTorch or safetensors file into its top-level mapping, running no code from it.

    PyTorch files go through the restricted unpickler (`weights_only=True`) with one class added:
    `argparse.Namespace`, which timm's `CheckpointSaver` writes (SPEC §2).

    Raises:
        InputError: The file is missing, damaged, of another kind, or asks for any other class.
    """
    require_file(path, "a PyTorch checkpoint or a safetensors file")
    if _is_safetensors(path):
        return _read_safetensors(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on foreign pickles; they fail below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as err:
        raise InputError(_unreadable(path, err)) from err
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path} holds a {type(content).__name__}; expected a dictionary of tensors "
            "or a checkpoint with 'state_dict' or 'model'"
        )
    return content


def _unreadable(path: Path, err: BaseException) -> str:
    """One line on why a file could not be read; names the class a pickle asked for, if any."""
    text = str(err)
    if isinstance(err, pickle.UnpicklingError):
        wanted = re.search(r"(?:GLOBAL|class|function) ([\w.]+\.[\w.]+)", text)
        what = f"it asks to load {wanted[1]}" if wanted else "it holds pickled objects"
        return (
            f"{path} is refused: {what}, and only tensors, plain containers and "
            "argparse.Namespace are read; save the model's state_dict instead"
        )
    reason = f" ({text.split('. ')[0].splitlines()[0][:100]})" if " " in text else ""
    return f"{path} is damaged or not a PyTorch or safetensors checkpoint{reason}"


def _is_safetensors(path: Path) -> bool:
    """By content: an 8-byte little-endian header length, then a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    if len(start) < 9 or start[8:9] != b"{":
        return False
    return int(struct.unpack("<Q", start[:8])[0]) <= path.stat().st_size


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            content: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            written = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as err:
        raise InputError(f"{path} is not a readable safetensors file: {err}") from err
    if arch := written.get("arch") or written.get("architecture"):
        return {"state_dict": content, "arch": arch}
    return content


def require_outputs(outputs: Sequence[Path], inputs: Sequence[Path] = ()) -> None:
    """Check early that files can be written, before minutes of work are lost.

    Args:
        outputs: Files to be written; they must differ from each other.
        inputs: Files that must not be overwritten.

    Raises:
        InputError: An output is a directory or a device, its folder is missing or not writable, or
            it is the same file as another one.
    """
    taken = {path.resolve(): f"the input {path}" for path in inputs}
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
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(content)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as err:
        raise InputError(f"cannot write {path}: {err.strerror}; choose another output") from err
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def looks_like_onnx(path: Path) -> bool:
    """Whether a file is no checkpoint, but named `.onnx` or begun as a serialised ONNX model."""
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith((b"PK\x03\x04", b"\x80")) or _is_safetensors(path):
        return False
    return path.suffix == ".onnx" or start.startswith(b"\x08")
