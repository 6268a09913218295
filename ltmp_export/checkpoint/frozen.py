"""What becomes of a checkpoint's reduction."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ltmp_export.plan.plan import Plan


class Frozen(NamedTuple):
    """A plan, what it comes to, what was assumed for it, and what looks wrong."""

    plan: Plan
    found: tuple[str, ...] = ()
    assumed: Mapping[str, Any] = MappingProxyType({})
    warnings: tuple[str, ...] = ()
