"""Keeping the patch tokens in the middle of clusters, as a file recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from ltmp_export.steps.medoids.step import Medoids
from ltmp_export.steps.recorded import (
    INT64,
    SELECTS,
    Decided,
    Places,
    Read,
    require_ranking,
    require_within,
    selected,
)

TENSORS = {
    "ranking": INT64, "assigned": INT64, "medoid": INT64, "cost": int(TensorProto.FLOAT),
}  # fmt: skip
WORDS = SELECTS._replace(score="lead over others")
_FARTHEST = 1.0  # as in the reference
_LOSES = -float(np.finfo(np.float32).tiny)


def score_name(step: Medoids, resized: bool) -> str:
    """The attention that tokens got."""
    return "score"


def read(
    step: Medoids, own: Mapping[str, NDArray[Any]], slot: Places, count: int, protected: int
) -> Read:
    """What a file decided about one image, see `steps.recorded.Recorded`."""
    patches, shapes = len(slot) - protected, {"assigned": (step.rounds, len(slot) - protected)}
    shapes["medoid"] = (step.rounds, step.tokens)
    for name, (rounds, number) in shapes.items():
        if len(own[name]) != rounds * number:
            raise ValueError(f"{len(own[name])} of {rounds * number} {name}")
    assigned, medoids = (own[name].reshape(shapes[name]) for name in ("assigned", "medoid"))
    require_ranking(own["ranking"], patches)
    require_within(assigned, step.tokens, len(slot))
    require_within(medoids, patches, len(slot))
    begins = own["ranking"][: step.tokens]
    received, cost = (own[n].astype(np.float64) for n in ("score", "cost"))
    received = received[protected : protected + patches]
    leads, chosen = [np.full(protected, np.inf)], [np.ones(protected, bool)]
    leads.append(_above(received, step.tokens))
    chosen.append(_marked(begins, patches))
    for into, middle in zip(assigned, medoids, strict=True):
        leads.append(_leads(cost, into))
        chosen.append(_members(into, middle))
    front = np.zeros(protected + patches, np.int64)
    partner = np.concatenate([front, assigned.ravel()])
    merges = np.arange(len(partner)) >= len(front)
    order = np.append(np.arange(protected), protected + begins)
    stay = np.append(np.arange(protected), protected + medoids[-1])
    choice = Decided(np.concatenate(chosen), partner, order, merges)
    score = np.concatenate(leads)
    return Read(choice, score, np.arange(len(stay)), selected(stay, len(slot)))


def _marked(rows: NDArray[Any], number: int) -> NDArray[np.bool_]:
    found = np.zeros(number, bool)
    found[rows] = True
    return found


def _members(into: NDArray[Any], middle: NDArray[Any]) -> NDArray[np.bool_]:
    """[n] who is in the middle of a cluster.

    Raises:
        ValueError: It is one of another cluster, or an empty cluster has none but row 0.
    """
    numbers = np.arange(len(middle))
    own = into[middle] == numbers
    empty = ~np.isin(numbers, into)
    if not (own | empty & (middle == 0)).all():
        raise ValueError("a medoid is no token of its cluster")
    return _marked(middle[own], len(into))


def _above(received: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """[n] by how much each is above the middle between the last chosen and the next."""
    ranking = np.argsort(-received, kind="stable")
    middle = received[ranking[number - 1 : number + 1]].mean()
    lead = received / max(middle, -_LOSES) - 1
    return _signed(lead, _marked(ranking[:number], len(received)))


def _leads(cost: NDArray[np.float64], into: NDArray[Any]) -> NDArray[np.float64]:
    """[n] by how much each is cheaper than the cheapest other of its cluster."""
    lead, chosen = np.full(len(cost), _FARTHEST), np.zeros(len(cost), bool)
    for cluster in np.unique(into):
        rows = np.flatnonzero(into == cluster)
        rows = rows[np.argsort(cost[rows], kind="stable")]
        chosen[rows[0]] = True
        own = np.maximum(cost[rows], -_LOSES)
        if len(rows) > 1:
            lead[rows] = cost[rows[0]] / own - 1
            lead[rows[0]] = cost[rows[1]] / own[0] - 1
    return _signed(lead, chosen)


def _signed(lead: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Leads of those chosen at least 0, of the others below it, all within bounds."""
    lead = lead.clip(-_FARTHEST, _FARTHEST)
    return np.where(chosen, np.maximum(lead, 0.0), np.minimum(lead, _LOSES))
