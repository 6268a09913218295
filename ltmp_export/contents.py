"""What a checkpoint file holds, taken apart but not yet understood (SPEC §2)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ltmp_export import dialects, files, limits, vit_pytorch
from ltmp_export.errors import InputError
from ltmp_export.reading.stored import DamagedError, StoredTensor
from ltmp_export.reading.weights import WHAT, open_weights

KINDS = ("merge", "prune")

_THRESHOLD = re.compile(r"blocks\.(0|[1-9][0-9]{0,5})\.(merge|prune)_masker\.threshold")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Contents:
    """A file taken apart: weights and thresholds under timm's names, and what else it says.

    Attributes:
        path: The file.
        arch: The name it gives the model.
        arch_in: Where that name stands in the file.
        others: Other names that it gives in other places.
        args: The training script's arguments, or what stands for them.
        weights: float32, by timm's names.
        thresholds: By kind, then by block.
        trained: Parameters that its optimizer trained; None where it has no optimizer.
        found: What the file is and what was taken of it, for a person.
    """

    path: Path
    arch: str | None
    arch_in: str
    others: tuple[str, ...]
    args: Mapping[str, Any]
    weights: dict[str, torch.Tensor]
    thresholds: dict[str, dict[int, float]]
    trained: int | None
    found: tuple[str, ...]


def locate(path: Path) -> Path:
    """The checkpoint file: `path` itself, or the one in a Hugging Face folder.

    Raises:
        InputError: A folder without one, or there is nothing.
    """
    if not os.path.isdir(path):  # False for a name that is too long
        files.require_file(path, WHAT)
        return path
    for name in dialects.HUGGING_FACE:
        if (path / name).is_file():
            return path / name
    expected = " or ".join(dialects.HUGGING_FACE)
    sharded = sorted(path.glob("*.index.json"))
    if sharded:
        raise InputError(f"{path} holds a model in pieces ({sharded[0].name}); expected {expected}")
    raise InputError(f"{path} is a directory without {expected}; expected {WHAT}")


def take_apart(path: Path, use_ema: bool | None = False) -> Contents:
    """Read a file without deciding yet what model it is.

    Args:
        path: The file, or a Hugging Face folder.
        use_ema: See `dialects.understand`.

    Raises:
        InputError: It cannot be read, holds something that is no weight, or more than the memory
            limit.
    """
    path = locate(path)
    dialect = dialects.understand(path, open_weights(path), use_ema)
    for key, value in dialect.state.items():
        _require_float(path, key, value)
    stored: Mapping[str, StoredTensor] = dialect.state
    _require_memory(path, stored)
    weights: dict[str, torch.Tensor] = {}
    thresholds: dict[str, dict[int, float]] = {kind: {} for kind in KINDS}
    for key, value in stored.items():
        tensor = _read(path, key, value)
        if match := _THRESHOLD.fullmatch(key):
            thresholds[match[2]][int(match[1])] = _threshold(path, key, tensor)
        else:
            weights[key] = tensor
    if not stored:
        raise InputError(f"{path} holds no weights: its state_dict is empty")
    found = [*dialect.found, *_described(stored, weights, thresholds)]
    args = dialect.args
    if vit_pytorch.is_vit_pytorch(weights):
        if vit_pytorch.has_one_head(weights):
            args = {**args, "num_heads": 1}
        weights = vit_pytorch.as_timm(weights, str(path))
        found.append("names of vit-pytorch: taken as timm's")
    return Contents(
        path=path,
        arch=dialect.arch,
        arch_in=dialect.arch_in,
        others=dialect.others,
        args=args,
        weights=weights,
        thresholds=thresholds,
        trained=dialect.trained,
        found=tuple(found),
    )


def _require_float(path: Path, key: str, value: Any) -> None:
    """A dense float tensor that takes the memory it claims."""
    if not isinstance(value, StoredTensor):
        raise InputError(f"{path}: {key} is a {type(value).__name__}; expected a tensor")
    if value.dtype not in _FLOATS:
        raise InputError(f"{path}: {key} is {value.dtype}; expected a tensor of floats")
    if value.numel * value.dtype.itemsize > value.storage_bytes:
        raise InputError(f"{path}: {key} claims the shape {value.shape} but holds fewer numbers")


def _require_memory(path: Path, state: Mapping[str, StoredTensor]) -> None:
    """Both what is read and what it becomes."""
    read = sum(value.storage_bytes for value in state.values())
    made = sum(value.numel * 4 for value in state.values())
    limits.require_memory(max(read, made), f"{path}: its {len(state)} tensors")


def _read(path: Path, key: str, value: StoredTensor) -> torch.Tensor:
    """float32, every number finite.

    Raises:
        InputError: The file does not hold what it claims, or a number is NaN or infinite.
    """
    try:
        tensor = value.read().to(torch.float32)
    except DamagedError as err:
        raise InputError(f"{path} is damaged: {key}: {err}") from err
    if _THRESHOLD.fullmatch(key) is None and not tensor.isfinite().all():
        bad = int((~tensor.isfinite()).sum())
        raise InputError(
            f"{path}: {key} holds NaN or infinite values ({bad} of {tensor.numel()}); the "
            "checkpoint is broken: take an earlier epoch"
        )
    return tensor


def _threshold(path: Path, key: str, value: torch.Tensor) -> float:
    if value.numel() != 1:
        raise InputError(f"{path}: {key} has shape {tuple(value.shape)}; expected one float")
    number = float(value.reshape(()))
    if not (math.isfinite(number) and 0.0 <= number <= 1.0):
        raise InputError(f"{path}: {key} is {number}; a threshold lies in [0, 1]")
    return number


def _described(
    stored: Mapping[str, StoredTensor],
    weights: Mapping[str, torch.Tensor],
    thresholds: Mapping[str, Mapping[int, float]],
) -> list[str]:
    """What was taken."""
    kinds = sorted({str(stored[key].dtype).removeprefix("torch.") for key in weights})
    counts = [f"{len(values)} {kind} thresholds" for kind, values in thresholds.items() if values]
    parts = [f"{len(weights)} tensors of {' and '.join(kinds)}"] if weights else ["no weights"]
    words = [", ".join([*parts, *(counts or ["no thresholds"])])]
    if any(kind != "float32" for kind in kinds):
        words.append("computed with as float32")
    return words
