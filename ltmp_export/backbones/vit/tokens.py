"""Tokens between the blocks of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ltmp_export.graph.builder import Name
from ltmp_export.graph.owners import Owners
from ltmp_export.graph.positions import Positions
from ltmp_export.graph.ragged import Layout


@dataclass(frozen=True)
class Packed:
    """Tokens between blocks.

    Attributes:
        x: Rows [T, C]; [B, N, C] where the plan is static.
        size: [T] or [B, N] likewise, or None while all are 1.
        layout: Where they are.
        owned: As of `Slots`, or None.
        dropped: [B] tokens that a budget had no room for in the block before, or None.
        handed: As of `Slots`.
        positions: Where they lie, where attention knows of it; None while each lies where it began.
        owners: Who owns the patches, or None where nobody asks.
        scores: [B, N] each, of the block behind which they stand, that a step before the next one
            demands.
    """

    x: Name
    size: Name | None
    layout: Layout
    owned: Name | None = None
    dropped: Name | None = None
    handed: Mapping[str, Name] = field(default_factory=dict)
    positions: Positions | None = None
    owners: Owners | None = None
    scores: Mapping[str, Name] = field(default_factory=dict)
