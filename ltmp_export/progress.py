"""Words on what is going on, for whoever waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str], None]


def silent(message: str) -> None:
    """Progress for nobody."""
