"""Keeping the patches of a fixed pattern, as a file recorded it: no image has a say."""

from __future__ import annotations

import numpy as np

from ltmp_export.steps.pattern.step import Pattern
from ltmp_export.steps.recorded import Places, selected

TENSORS: dict[str, int] = {}


def went(step: Pattern, tokens: int, protected: int) -> Places:
    """Where each of so many tokens goes, see `Read.went`."""
    kept = protected + np.array(step.kept)
    return selected(np.append(np.arange(protected), kept), tokens)
