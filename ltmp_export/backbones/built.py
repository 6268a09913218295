"""A timm model that holds a checkpoint's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ltmp_export.plan.geometry import Geometry
from ltmp_export.statements.gather import Answer


@dataclass(frozen=True)
class Built:
    """What the `build` of each network gives.

    Attributes:
        model: Of timm, which is untyped; in eval mode.
        geometry: Of it.
        answers: What the weights do not tell, by timm's word, and where it is from.
        warnings: What was changed to build it, and how it is not what its name says.
    """

    model: Any
    geometry: Geometry
    answers: Mapping[str, Answer]
    warnings: tuple[str, ...]
