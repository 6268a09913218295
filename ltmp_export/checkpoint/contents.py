"""What a checkpoint file holds, taken apart but not yet understood (METHOD §2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ltmp_export.backbones.vit import vit_pytorch
from ltmp_export.backbones.vit.libraries import parts
from ltmp_export.checkpoint import outline
from ltmp_export.checkpoint.containers.stored import DamagedError, StoredTensor
from ltmp_export.checkpoint.outline import KINDS, Outline, locate
from ltmp_export.errors import InputError

__all__ = ["KINDS", "Contents", "locate", "take_apart"]


@dataclass(frozen=True)
class Contents(Outline):
    """A file taken apart: weights and thresholds under timm's names, and what else it says.

    Attributes:
        weights: float32, by timm's names.
    """

    weights: dict[str, torch.Tensor]


def take_apart(path: Path, use_ema: bool | None = False, head_name: str | None = None) -> Contents:
    """Read a file without deciding yet what model it is.

    Args:
        path: The file, or a Hugging Face folder.
        use_ema: See `checkpoint.dialects.understand`.
        head_name: See `checkpoint.heads.classifier`.

    Raises:
        InputError: It cannot be read, holds something that is no weight, or more than the memory
            limit.
    """
    own = outline.outline(path, use_ema, head_name)
    outline.require_floats(own)
    weights = {key: _read(own.path, key, value) for key, value in own.stored.items()}
    if own.parts:
        weights = parts.made(own.parts, weights.__getitem__)
    elif vit_pytorch.is_vit_pytorch(weights):
        weights = vit_pytorch.as_timm(weights, str(own.path))
    return Contents(**{**vars(own), "weights": weights})


def _read(path: Path, key: str, value: StoredTensor) -> torch.Tensor:
    """float32, every number finite.

    Raises:
        InputError: The file does not hold what it claims, or a number is NaN or infinite.
    """
    try:
        tensor = value.read().to(torch.float32)
    except DamagedError as err:
        raise InputError(f"{path} is damaged: {key}: {err}") from err
    if not tensor.isfinite().all():
        bad = int((~tensor.isfinite()).sum())
        raise InputError(
            f"{path}: {key} holds NaN or infinite values ({bad} of {tensor.numel()}); the "
            "checkpoint is broken: take an earlier epoch"
        )
    return tensor
