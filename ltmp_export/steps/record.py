"""A step's decisions as a file took them, from its tensors of one image (see `parity.taps`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from ltmp_export.plan.plan import Fit, Merge, MergeMost, Prune, PruneLeast, Step
from ltmp_export.steps.eager import Choice

BOOL, INT64 = int(TensorProto.BOOL), int(TensorProto.INT64)

# Names and element types of the tensors that hold each step's decisions.
TENSORS: dict[type[Step], dict[str, int]] = {
    Merge: {"merged": BOOL, "partner": INT64},
    MergeMost: {"ranking": INT64, "partner": INT64},
    Prune: {"kept": BOOL},
    PruneLeast: {"order": INT64},
    Fit: {"fitted": INT64},
}

Places = NDArray[np.int64]
Read = tuple[Choice, Places]


def read(step: Step, own: Mapping[str, NDArray[Any]], slot: Places, count: int) -> Read:
    """What a file decided in one step about one image.

    Args:
        step: The step.
        own: Its `TENSORS` of this image.
        slot: The slot of each token before it.
        count: Tokens counted after the block.

    Returns:
        The choice, and the slots of the tokens that remain.

    Raises:
        ValueError: The decisions are no decisions about so many tokens.
    """
    if isinstance(step, Merge):
        return _merged(own["merged"], own["partner"], len(slot))
    if isinstance(step, MergeMost):
        return _merged_most(step, own["ranking"], own["partner"], len(slot))
    if isinstance(step, Prune):
        return _kept(own["kept"][slot], slot)
    if isinstance(step, PruneLeast):
        return _pruned_least(step, own["order"], len(slot))
    return _fitted(step, own["fitted"], slot, count)


def _merged(merged: NDArray[Any], partner: NDArray[Any], tokens: int) -> Read:
    """A merge by threshold.

    A file decides about the sources behind the class token, slots 2, 4, …; after the merge its
    slots are the class token, these, and slots 1, 3, ….
    """
    sources, destinations = (tokens - 1) // 2, tokens // 2
    if min(len(merged), len(partner)) < sources:
        found = min(len(merged), len(partner))
        raise ValueError(f"a merge of {tokens} tokens decides about {found} sources only")
    chosen, target = merged[:sources], partner[:sources]
    _require_within(target[chosen], destinations, tokens)
    left = np.concatenate(
        [[0], 1 + np.flatnonzero(~chosen), 1 + len(merged) + np.arange(destinations)]
    )
    chosen, target = np.append(False, chosen), np.append(0, target)  # the class token stays
    return Choice(torch.from_numpy(chosen), torch.from_numpy(target)), left


def _merged_most(
    step: MergeMost, ranking: NDArray[Any], partner: NDArray[Any], tokens: int
) -> Read:
    """A merge of a fixed number; all tokens are then in the first slots."""
    sources, destinations = (tokens - 1) // 2, tokens // 2 - step.prefix + 1
    if sorted(ranking) != list(range(sources)):
        raise ValueError(f"a merge of {tokens} tokens ranks a source twice, or one beyond them")
    if len(partner) != sources:
        raise ValueError(f"a merge of {tokens} tokens decides about {len(partner)} sources")
    _require_within(partner, destinations, tokens)
    chosen = np.zeros(1 + sources, bool)
    chosen[1 + ranking[: step.count]] = True
    target = np.append(0, partner + step.prefix - 1)  # destinations count a distillation token
    others = np.append(0, 1 + ranking[step.count :])  # the class token first
    order = torch.from_numpy(others) if step.ranked else None
    choice = Choice(torch.from_numpy(chosen), torch.from_numpy(target), order)
    return choice, np.arange(tokens - step.count)


def _kept(chosen: NDArray[Any], slot: Places) -> Read:
    """A pruning by threshold."""
    if not chosen[0]:
        raise ValueError("the class token is pruned")
    return Choice(torch.from_numpy(chosen)), slot[chosen]


def _pruned_least(step: PruneLeast, order: NDArray[Any], tokens: int) -> Read:
    """A pruning of a fixed number, which sorts."""
    if len(order) != tokens - step.count:
        raise ValueError(f"{len(order)} of {tokens} tokens are kept; {step.count} are to go")
    if len(set(order.tolist())) != len(order) or order[0] != 0:
        raise ValueError("a token is kept twice, or the class token is not the first")
    _require_within(order, tokens, tokens)
    chosen = np.zeros(tokens, bool)
    chosen[order] = True
    return Choice(torch.from_numpy(chosen), order=torch.from_numpy(order)), np.arange(len(order))


def _fitted(step: Fit, fitted: NDArray[Any], slot: Places, count: int) -> Read:
    """A budget: those that stay are in the first slots, in their order."""
    if len(fitted) != step.keep:
        raise ValueError(f"there is room for {len(fitted)} tokens, not for {step.keep}")
    places = fitted[:count]
    chosen = np.isin(slot, places)
    if slot[chosen].tolist() != places.tolist():
        raise ValueError("a budget keeps a slot that holds no token, or changes the order")
    if not chosen[0]:
        raise ValueError("a budget drops the class token")
    return Choice(torch.from_numpy(chosen)), np.arange(len(places))


def _require_within(rows: NDArray[Any], most: int, tokens: int) -> None:
    """Check that rows are those of tokens.

    Raises:
        ValueError: One is not.
    """
    if (rows >= most).any() or (rows < 0).any():
        raise ValueError(f"a decision about {tokens} tokens takes a row beyond them")
