"""From weights to their timm `Beit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models.beit import Beit
from torch import Tensor

from ltmp_export.backbones.beit.geometry import NAME
from ltmp_export.backbones.positioned.build import made_of


def _more(weights: Mapping[str, Tensor], named: Any, depth: int, heads: int) -> Mapping[str, Any]:
    """Nothing that others do not have."""
    return {}


build = made_of(NAME, Beit, _more)
