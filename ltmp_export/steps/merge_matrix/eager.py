"""Merging by a constant matrix and recovering, in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ltmp_export.steps.merge_matrix.step import MergeMatrix
from ltmp_export.steps.tokens import Choice, Tokens


def take(
    step: MergeMatrix, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, None]:
    """M·X; every row then stands for itself."""
    x = weights[f"{step.name}.merge_matrix"].to(tokens.x.dtype) @ tokens.x
    return replace(tokens, x=x, size=x.new_ones(len(x)), scores={}, members=None), None


def restore(
    step: MergeMatrix, given: Tokens, made: Tokens, left: Tokens, weights: Mapping[str, Tensor]
) -> Tokens:
    """R·Z + (1 - m) ⊙ X: all tokens again, as many as before."""
    recover, mask = (
        weights[f"{step.name}.{part}"].to(left.x.dtype) for part in ("recover_matrix", "token_mask")
    )  # [N, n], [N]
    return replace(given, x=recover @ left.x + (1 - mask)[:, None] * given.x)
