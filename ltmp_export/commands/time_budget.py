"""A time as the budget of fine-tuning, from a timing table; and whether a budget was met."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ltmp_export.calibration.measure import Measured
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.timing import fitted, tables
from ltmp_export.training.goal import Goal
from ltmp_export.training.settings import Running, Settings

FAR = 0.02  # from the target: worth a warning


def timed(
    settings: Running, source: Checkpoint, family: str, timing: str | Path | None
) -> tuple[Running, str, list[str]]:
    """Settings with the times of a table, see `timing.tables`, as the budget.

    Also with which options `ltmp export` writes the files that were timed, and warnings.

    Raises:
        InputError: The table is of another model or of several batch sizes, or no threshold learns.
    """
    if timing is None:
        return settings, "", []
    if not isinstance(settings, Settings):
        raise InputError(f"family {family} has no thresholds that a time could be the budget of")
    path = Path(timing)
    table = tables.read(path)
    tables.require_fitting(table, path, source.vit, family, None)
    if len(table.batches) > 1:
        sizes = ", ".join(str(one.size) for one in table.batches)
        raise InputError(
            f"{timing} has times of batches of {sizes}, and one is the budget; write it with one "
            "--batch-size"
        )
    (time,) = fitted.fit_all(table.batches, source.vit, str(timing))
    said = [*fitted.doubts(table.batches), *fitted.far(str(timing), time)]
    return replace(settings, time=time), table.options, said


def far(reached: Measured, tokens: int, goal: Goal) -> tuple[float | None, list[str]]:
    """What the target is a share of, as it is on images held out; a warning where it was missed."""
    if goal.target is None:
        return None, []
    kept = torch.tensor(reached.tokens) / tokens
    share, timed = float(goal.share(kept.to(torch.float64))), bool(goal.terms)
    told = share if timed else None
    if abs(share - goal.target) <= FAR:
        return told, []
    what = "of the blocks' multiply-accumulates are executed"
    other = "'ltmp calibrate'"
    if timed:
        what = "of the dense model's time is predicted"
        other += " (--latency-target)"
    return told, [
        f"{share:.3f} {what}, the target is {goal.target:g}: train longer (--epochs), raise the "
        f"learning rates (--lr-merge, --lr-prune), or start from the output of {other}"
    ]
