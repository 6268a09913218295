"""Any checkpoint file as its top-level mapping, with tensors that are still in the file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ltmp_export.checkpoint.containers import torch_files
from ltmp_export.checkpoint.containers.elements import BY_NAME, UINT8
from ltmp_export.checkpoint.containers.known import ForbiddenGlobalError
from ltmp_export.checkpoint.containers.stored import DamagedError, StoredTensor
from ltmp_export.errors import InputError
from ltmp_export.files import disk

if TYPE_CHECKING:
    import torch

WHAT = "a PyTorch checkpoint or a safetensors file"

_SAFETENSORS_DTYPES = {
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "BOOL": "bool",
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}


def open_weights(path: Path) -> Mapping[Any, Any]:
    """Read the top-level mapping of a PyTorch or safetensors file, running no code from it.

    Tensors are `StoredTensor`s. What kind of file it is tells its content, not its name.

    Raises:
        InputError: The file is missing, damaged, of another kind, or asks for a class that is not
            read (see `known`); the message names it.
    """
    disk.require_file(path, WHAT)
    with path.open("rb") as file:
        start = file.read(4)
    try:
        if disk.is_safetensors(path):
            return _open_safetensors(path)
        content = (
            torch_files.read_zip(path)
            if start == b"PK\x03\x04"
            else torch_files.read_sequence(path)
        )
    except ForbiddenGlobalError as err:
        raise InputError(
            f"{path} is refused: it asks to load {err.name}, and only tensors, plain containers, "
            "argparse.Namespace, paths and NumPy scalars are read; save the model's state_dict "
            "instead"
        ) from err
    except DamagedError as err:
        raise InputError(
            f"{path} is damaged or not {WHAT} ({' '.join(str(err).split())[:160]})"
        ) from err
    except OSError as err:
        raise InputError(f"{path} cannot be read ({err.strerror}); expected {WHAT}") from err
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path} holds a {type(content).__name__}; expected a dictionary of tensors "
            "or a checkpoint with 'state_dict' or 'model'"
        )
    return content


def _open_safetensors(path: Path) -> Mapping[Any, Any]:
    content: dict[str, Any] = {}
    try:
        with safe_open(path, framework="np") as file:  # which checks the header
            written = file.metadata() or {}
        for name, entry in _safetensors_header(path).items():
            shape = tuple(entry["shape"])
            dtype = BY_NAME.get(_SAFETENSORS_DTYPES.get(entry["dtype"], ""), UINT8)
            read = partial(_read_safetensors, path, name)
            first = partial(_first_of_safetensors, path, entry["begin"], dtype.itemsize)
            size = math.prod(shape) * dtype.itemsize
            content[name] = StoredTensor(shape, dtype, size, read, first)
    except (SafetensorError, OSError, ValueError) as err:
        raise DamagedError(f"no readable safetensors file: {err}") from err
    if arch := written.get("arch") or written.get("architecture"):
        return {"state_dict": content, "arch": arch}
    return content


def _safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """Each tensor's `dtype`, `shape` and the byte of the file where it begins."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return {
        name: {**entry, "begin": 8 + size + entry["data_offsets"][0]}
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    }


def _first_of_safetensors(path: Path, begin: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(begin)
        return file.read(size)


def _read_safetensors(path: Path, name: str) -> torch.Tensor:
    try:
        with safe_open(path, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
    except (SafetensorError, OSError, ValueError) as err:
        raise DamagedError(str(err)) from err
    return tensor
