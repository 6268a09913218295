"""From times at several token counts to time as a function of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ltmp_export.errors import InputError
from ltmp_export.plan.plan import dense_plan
from ltmp_export.plan.times import TimeModel, linear_work, loads
from ltmp_export.plan.vit import Vit
from ltmp_export.timing.tables import LEAST, TWINS, Batch, Point

FAR = 0.1  # of a prediction from what was measured: worth a warning


def fit(vit: Vit, batch: Batch) -> TimeModel:
    """Numbers of 0 or more whose relative distance from the points is least, in squares.

    Attention and MLP of a block take their time in proportion to their multiply-accumulates, so
    that there are three numbers to be found: a fixed time, one for linear layers, and one for pairs
    of tokens.

    Args:
        vit: The geometry of the points.
        batch: Their times.
    """
    attention, mlp = linear_work(vit)
    rows = [_features(point, attention, mlp) for point in batch.points]
    times = np.array([point.milliseconds for point in batch.points])
    fixed, linear, squared = _least(np.array(rows) / times[:, None])
    model = TimeModel(
        fixed=fixed,
        received=linear * attention,
        squared=squared,
        kept=linear * mlp,
        dense=batch.dense,
    )
    told = np.array([model.milliseconds(point.loads) for point in batch.points])
    whole = loads(vit, dense_plan(vit.depth), [[vit.tokens] * vit.depth], 1)
    return replace(
        model,
        overhead=model.milliseconds(whole) - batch.dense,
        residual=float(abs(told / times - 1).max()),
    )


def fit_all(batches: Sequence[Batch], vit: Vit, name: str) -> list[TimeModel]:
    """What is fitted to each batch size.

    Raises:
        InputError: There are too few token counts.
    """
    counts = {point.loads for batch in batches for point in batch.points}
    if len(counts) < LEAST:
        raise InputError(
            f"{name} keeps the same tokens on these images whatever its thresholds or its r; give "
            "other images (--images), or a model with more tokens"
        )
    return [fit(vit, batch) for batch in batches]


def doubts(batches: Sequence[Batch]) -> list[str]:
    """A line for each batch size at which identical files differ too much."""
    return [
        f"batch {one.size}: two identical files differ by {one.twins:.1%}, more than "
        f"{TWINS:.0%}: the machine has other work, and the times tell little"
        for one in batches
        if one.twins > TWINS
    ]


def far(table: str, model: TimeModel) -> list[str]:
    """A line where times of another machine, which nothing verifies, are not told well."""
    if model.residual <= FAR:
        return []
    return [
        f"what is predicted by {table} is up to {model.residual:.0%} from its own times: time the "
        "file again, in more rounds, on a machine without other work"
    ]


def _features(point: Point, attention: int, mlp: int) -> tuple[float, float, float]:
    """What the three numbers are multiplied by."""
    linear = sum(attention * load.received + mlp * load.kept for load in point.loads)
    return 1.0, linear, sum(load.squared for load in point.loads)


def _least(rows: NDArray[np.float64]) -> tuple[float, ...]:
    """Numbers x of 0 or more with the least squares of rows · x - 1.

    With three there are seven choices of those that are not 0, and one of them is the best.
    """
    best, least = np.zeros(rows.shape[1]), float("inf")
    scale = rows.max(axis=0)
    for chosen in _choices(rows.shape[1]):
        some = rows[:, chosen] / scale[chosen]
        x = np.linalg.lstsq(some, np.ones(len(rows)), rcond=None)[0]
        error = float(np.square(some @ x - 1).sum())
        if (x >= 0).all() and error < least:
            whole = np.zeros(rows.shape[1])
            whole[chosen] = x / scale[chosen]
            best, least = whole, error
    return tuple(float(x) for x in best)


def _choices(count: int) -> list[list[int]]:
    every: Sequence[int] = range(count)
    sizes = range(1, count + 1)
    return [list(some) for size in sizes for some in itertools.combinations(every, size)]
