"""Keeping the patches that lie in a fixed pattern, in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ltmp_export.steps.pattern.step import Pattern
from ltmp_export.steps.tokens import Choice, Tokens


def take(
    step: Pattern, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, None]:
    """Keep them; no image has a say."""
    kept = tokens.protected + torch.tensor(step.kept)
    return tokens.take(torch.cat([torch.arange(tokens.protected), kept])), None
