"""Merging by a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.scores import METRIC
from ltmp_export.plan.step import Learned


@dataclass(frozen=True)
class Merge(Learned):
    """Merge each source whose best similarity is above `threshold` (METHOD §1, steps 3-4)."""

    on_disk: ClassVar[str] = "Merge"
    action: ClassVar[str] = "merge"
    demands: ClassVar[frozenset[str]] = frozenset((METRIC,))
    resizes: ClassVar[bool] = True
