"""Tokens in plain numbers, for tables worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ltmp_export.plan.scores import IMPORTANCE, METRIC
from ltmp_export.steps.tokens import Tokens
from tests import tolerances

Column = Sequence[float]


def tokens(
    metric: Sequence[Column],
    *,
    x: Sequence[Column] | None = None,
    size: Column | None = None,
    importance: Column | None = None,
) -> Tokens:
    """Tokens with the given columns; x counts from 0, sizes are 1, importances 0.1 by default."""
    n = len(metric)
    return Tokens(
        x=torch.tensor(x or [[float(i)] for i in range(n)]),
        size=torch.tensor(size or [1.0] * n),
        scores={
            IMPORTANCE: torch.tensor(importance or [math.inf, *[0.1] * (n - 1)]),
            METRIC: torch.tensor(metric),
        },
    )


def close(got: Tensor, expected: Column | Sequence[Column]) -> bool:
    """Whether these numbers are meant."""
    wanted = torch.tensor(expected)
    return got.shape == wanted.shape and torch.allclose(got, wanted, rtol=0, atol=tolerances.TOKENS)
