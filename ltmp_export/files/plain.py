"""Values as JSON has words for."""

from __future__ import annotations

import math
from typing import Any


def plain(value: Any) -> Any:
    """The same with None for NaN and infinity, lists for tuples, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value
