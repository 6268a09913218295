"""Merging by a threshold that learns, under a mask."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def gate(form: Any, tokens: Any, threshold: Tensor, tau: float) -> Any:
    """The step as a masked form takes it.

    Args:
        form: A `training.forms.Form`.
        tokens: Its `training.masked.Masked` tokens.
        threshold: A scalar.
        tau: Temperature of the gradient.
    """
    return form.merge(tokens, threshold, tau)
