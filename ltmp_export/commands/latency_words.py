"""What a person is told of a time that was asked for, and why it is not met."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ltmp_export.plan.times import TimeModel
from ltmp_export.timing import fitted
from ltmp_export.timing.goal import INCONCLUSIVE, MISSED, WITHIN, Latency, Reached
from ltmp_export.timing.tables import TWINS

if TYPE_CHECKING:
    from ltmp_export.commands.searched import Search


def unreachable(nearest: Reached, model: TimeModel, search: Search) -> str:
    """Why a target cannot be met: the least, or the most, that can be."""
    asked = f"--latency-target {nearest.target:g}"
    found = f"{nearest.predicted:.3f} of the dense model's time"
    if nearest.milliseconds is not None:
        asked = f"--milliseconds {nearest.milliseconds:g}"
        found = f"{nearest.predicted * model.dense:.3g} ms an image, {found}"
    side = "least" if nearest.predicted > nearest.target else "most"
    more = "more" if side == "least" else "less"
    return (
        f"{asked} cannot be reached: {search.family} leaves {found} at the {side} (dense "
        f"{model.dense:.3g} ms, of which {model.fixed:.3g} whatever the tokens); ask for {more}"
    )


def doubts(latency: Latency) -> Iterator[str]:
    """A line for each target that is not met, or not known to be."""
    if latency.elsewhere is not None:
        yield (
            f"not verified: the times are those of {latency.elsewhere} ({latency.table.where}); "
            "export the file and time it there with 'ltmp bench'"
        )
        yield from fitted.far(latency.elsewhere, latency.model)
    for row in latency.rows:
        if row.verified is None:
            if abs(row.predicted / row.target - 1) > WITHIN:
                yield f"target {row.target:g} cannot be reached: the nearest is {row.predicted:.3f}"
            continue
        seen = row.verified
        measured = f"target {row.target:.3g} of the dense time: measured {seen.share:.3f}"
        if row.verdict == INCONCLUSIVE:
            yield (
                f"{measured}, inconclusive: two identical files differ by {seen.twins:.1%}, more "
                f"than {TWINS:.0%}; time again on a quieter machine"
            )
        elif row.verdict == MISSED:
            yield (
                f"{measured}, {row.off or 0.0:+.1%} off after {row.trials} files (identical files "
                f"differ by {seen.twins:.1%}, predicted {row.predicted:.3f}): more images "
                "(--samples) tell time and tokens better"
            )
