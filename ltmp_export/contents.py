"""What a checkpoint file holds, taken apart but not yet understood (SPEC §2)."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ltmp_export import files
from ltmp_export.errors import InputError

KINDS = ("merge", "prune")

_THRESHOLD = re.compile(r"blocks\.(\d+)\.(merge|prune)_masker\.threshold")
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Contents:
    """A file taken apart: weights and thresholds under timm's names, and what else it says."""

    arch: str | None
    args: Mapping[str, Any]
    weights: dict[str, torch.Tensor]
    thresholds: dict[str, dict[int, float]]


def take_apart(path: Path, use_ema: bool = False) -> Contents:
    """Read a file without deciding yet what model it is.

    Raises:
        InputError: It cannot be read, or holds something that is no weight.
    """
    top = files.read_weights(path)
    args = top.get("args")
    if isinstance(args, argparse.Namespace):
        args = vars(args)
    args = {k: v for k, v in args.items() if v is not None} if isinstance(args, Mapping) else {}
    names = [name for name in (top.get("arch"), args.get("model")) if isinstance(name, str)]
    weights: dict[str, torch.Tensor] = {}
    thresholds: dict[str, dict[int, float]] = {kind: {} for kind in KINDS}
    for key, value in _state_dict(path, top, use_ema).items():
        plain = _strip_prefixes(str(key))
        _require_plain(path, key, value)
        if plain in weights:
            raise InputError(f"{path}: {plain} is there twice, with different prefixes")
        if match := _THRESHOLD.fullmatch(plain):
            thresholds[match[2]][int(match[1])] = _threshold(path, plain, value)
        else:
            weights[plain] = value.to(torch.float32)
    if not weights and not any(thresholds.values()):
        raise InputError(f"{path} holds no weights: its state_dict is empty")
    return Contents(names[0] if names else None, args, weights, thresholds)


def _require_plain(path: Path, key: str, value: Any) -> None:
    """A dense float tensor that takes the memory it claims."""
    if not isinstance(value, torch.Tensor):
        raise InputError(f"{path}: {key} is a {type(value).__name__}; expected a tensor")
    dense = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    if not dense or not value.is_floating_point():
        kind = f"{value.dtype} {value.layout} on {value.device}"
        raise InputError(f"{path}: {key} is {kind}; expected a dense float tensor")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        shape = tuple(value.shape)
        raise InputError(f"{path}: {key} claims the shape {shape} but holds fewer numbers")


def _state_dict(path: Path, top: Mapping[str, Any], use_ema: bool) -> Mapping[str, Any]:
    """The mapping of tensors inside the file's top level."""
    plain, averaged = ("state_dict", "model"), ("state_dict_ema", "model_ema")
    for key in averaged if use_ema else plain:
        if isinstance(top.get(key), Mapping):
            return dict(top[key])
    if use_ema:
        raise InputError(f"{path} holds no EMA weights (state_dict_ema); drop --use-ema")
    if any(isinstance(top.get(key), Mapping) for key in averaged):
        raise InputError(f"{path} holds EMA weights only; take them with --use-ema")
    if any(isinstance(value, torch.Tensor) for value in top.values()):
        return top
    keys = ", ".join(map(str, list(top)[:6])) or "nothing"
    raise InputError(f"{path} holds no weights: found {keys}; expected 'state_dict' or 'model'")


def _strip_prefixes(key: str) -> str:
    while key.startswith(_PREFIXES):
        key = key.split(".", 1)[1]
    return key


def _threshold(path: Path, key: str, value: torch.Tensor) -> float:
    if value.numel() != 1 or not value.is_floating_point():
        raise InputError(f"{path}: {key} has shape {tuple(value.shape)}; expected one float")
    number = float(value.to(torch.float32).reshape(()))
    if not 0.0 <= number <= 1.0:
        raise InputError(f"{path}: {key} is {number}; a threshold lies in [0, 1]")
    return number
