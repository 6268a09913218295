"""What a user says of a ViT, as `build` takes it."""

from __future__ import annotations

from typing import Any

from ltmp_export.statements.gather import Said, Statements


def says(heads: int | None = None, **more: Any) -> Statements:
    """The number of heads, and whatever else of `Statements`."""
    return Statements(heads=None if heads is None else Said(heads, "--num-heads"), **more)
