"""The decisions a file took, read from its named tensors, and where the reference disagrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from ltmp_export.plan import Merge, Plan
from ltmp_export.reference import Trace
from ltmp_export.tokens import Choice, Decision, MergeDecision, scale

Choices = tuple[tuple[Choice, ...], ...]


@dataclass(frozen=True)
class Disagreement:
    """One decision of one image that the reference, on the same tokens, takes otherwise.

    Attributes:
        block: Index of the block.
        what: "merges", "stays" or "partner".
        token: Position among the step's sources ("merges", "partner") or tokens ("stays").
        score: The reference's score.
        threshold: What the score is compared with; for a partner, the other partner's score.
        distance: |score - threshold|, relative to the largest score of the step.
    """

    block: int
    what: str
    token: int
    score: float
    threshold: float
    distance: float


def taps(plan: Plan) -> dict[str, int]:
    """Names and element types of the tensors that hold a file's decisions under a plan."""
    found: dict[str, int] = {}
    for block, steps in enumerate(plan.blocks):
        for step in steps:
            if isinstance(step, Merge):
                found[f"block_{block:02d}/merged"] = int(TensorProto.BOOL)
                found[f"block_{block:02d}/partner"] = int(TensorProto.INT64)
            else:
                found[f"block_{block:02d}/kept"] = int(TensorProto.BOOL)
    return found


def choices(plan: Plan, tensors: Mapping[str, NDArray[Any]], image: int, tokens: int) -> Choices:
    """The decisions about one image of a batch, freed of the batch's padding.

    Args:
        plan: The steps of each block.
        tensors: The tapped tensors of the batch, [B, slots].
        image: Row of the batch.
        tokens: Tokens before the first block.

    Raises:
        ValueError: The decisions are no decisions about so many tokens.
    """
    found = []
    for block, steps in enumerate(plan.blocks):
        slot = np.arange(tokens)  # padded slot of each token
        taken = []
        for step in steps:
            names = ("merged", "partner") if isinstance(step, Merge) else ("kept",)
            rows = [tensors[f"block_{block:02d}/{name}"][image] for name in names]
            if isinstance(step, Merge):
                choice, slot = _merge_choice(rows[0], rows[1], len(slot))
            else:
                chosen = rows[0][slot]
                choice, slot = Choice(torch.from_numpy(chosen)), slot[chosen]
                if not chosen[0]:
                    raise ValueError(f"block {block} prunes the class token")
            taken.append(choice)
        tokens = len(slot)
        found.append(tuple(taken))
    return tuple(found)


def _merge_choice(
    merged: NDArray[Any], partner: NDArray[Any], tokens: int
) -> tuple[Choice, NDArray[Any]]:
    """A merge of so many tokens in slots 0, 1, …; and the slots of those that remain."""
    sources, destinations = (tokens + 1) // 2, tokens // 2
    if len(merged) < sources:
        raise ValueError(f"a merge of {tokens} tokens decides about {len(merged)} sources only")
    chosen, target = merged[:sources], partner[:sources]
    if chosen[0] or (target[chosen] >= destinations).any() or (target[chosen] < 0).any():
        raise ValueError(f"a merge of {tokens} tokens takes the class token or a row beyond them")
    slot = np.concatenate([np.flatnonzero(~chosen), len(merged) + np.arange(destinations)])
    return Choice(torch.from_numpy(chosen), torch.from_numpy(target)), slot


def disagreements(trace: Trace, forced: Choices) -> list[Disagreement]:
    """Where a replay's own decisions differ from those forced on it, in order."""
    found = []
    for block, (decisions, taken) in enumerate(zip(trace.decisions, forced, strict=True)):
        for decision, choice in zip(decisions, taken, strict=True):
            found += _compare(block, decision, choice)
    return found


def _compare(block: int, decision: Decision, choice: Choice) -> list[Disagreement]:
    what = "merges" if isinstance(decision, MergeDecision) else "stays"
    flipped = torch.nonzero(decision.chosen != choice.chosen)[:, 0].tolist()
    pairs: Sequence[tuple[str, int, float]]
    pairs = [(what, token, decision.threshold) for token in flipped]
    if isinstance(decision, MergeDecision) and choice.partner is not None:
        other = decision.chosen & choice.chosen & (decision.partner != choice.partner)
        for token in torch.nonzero(other)[:, 0].tolist():
            pairs.append(
                ("partner", token, float(decision.similarity[token, choice.partner[token]]))
            )
    largest = scale(decision)
    found = []
    for kind, token, threshold in pairs:
        score = float(decision.score[token])
        distance = abs(score - threshold) / largest
        found.append(Disagreement(block, kind, token, score, threshold, distance))
    return found
