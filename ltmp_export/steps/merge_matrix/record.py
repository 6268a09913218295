"""Merging by a constant matrix, as a file recorded it: it decides nothing."""

from __future__ import annotations

TENSORS: dict[str, int] = {}
