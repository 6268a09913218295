"""Any checkpoint file as its top-level mapping, with tensors that are still in the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ltmp_export import files
from ltmp_export.errors import InputError
from ltmp_export.reading import torch_files
from ltmp_export.reading.known import ForbiddenGlobalError
from ltmp_export.reading.stored import DamagedError, StoredTensor

WHAT = "a PyTorch checkpoint or a safetensors file"

_SAFETENSORS_DTYPES = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "BOOL": torch.bool,
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def open_weights(path: Path) -> Mapping[Any, Any]:
    """Read the top-level mapping of a PyTorch or safetensors file, running no code from it.

    Tensors are `StoredTensor`s. What kind of file it is tells its content, not its name.

    Raises:
        InputError: The file is missing, damaged, of another kind, or asks for a class that is not
            read (see `known`); the message names it.
    """
    files.require_file(path, WHAT)
    with path.open("rb") as file:
        start = file.read(4)
    try:
        if files.is_safetensors(path):
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
        with safe_open(path, framework="pt") as file:
            written = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 (no mapping)
                piece = file.get_slice(name)
                shape, kind = tuple(piece.get_shape()), piece.get_dtype()
                dtype = _SAFETENSORS_DTYPES.get(kind, torch.uint8)
                read = partial(_read_safetensors, path, name)
                size = math.prod(shape) * dtype.itemsize
                content[name] = StoredTensor(shape, dtype, size, read)
    except (SafetensorError, OSError, ValueError) as err:
        raise DamagedError(f"no readable safetensors file: {err}") from err
    if arch := written.get("arch") or written.get("architecture"):
        return {"state_dict": content, "arch": arch}
    return content


def _read_safetensors(path: Path, name: str) -> torch.Tensor:
    try:
        with safe_open(path, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
    except (SafetensorError, OSError, ValueError) as err:
        raise DamagedError(str(err)) from err
    return tensor
