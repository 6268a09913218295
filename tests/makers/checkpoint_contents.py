"""Changes of a checkpoint's content, and content that no checkpoint should have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Content = dict[str, Any]


def drop(*parts: str) -> Callable[[Content], None]:
    """Leave out the weights whose names have one of these parts."""

    def change(content: Content) -> None:
        state = content["state_dict"]
        for key in [k for k in state if any(part in k for part in parts)]:
            del state[key]

    return change


def put(key: str, value: torch.Tensor) -> Callable[[Content], None]:
    """Write a weight."""
    return lambda content: content["state_dict"].__setitem__(key, value)


def rename(arch: str) -> Callable[[Content], None]:
    """Call the model otherwise, with nothing else stated of it."""
    return lambda content: content.update(arch=arch, args={})


class Hostile:
    """Unpickling this runs a command that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)
