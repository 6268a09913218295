"""Does an image in a batch come out as it does by itself? Judged by the file alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ltmp_export.parity import outputs, taps
from ltmp_export.parity.judge import differ
from ltmp_export.parity.limits import Limits
from ltmp_export.parity.replay import Observation
from ltmp_export.parity.report import Comparison, Invariance
from ltmp_export.parity.runs import ALONE


def invariance(
    seen: Sequence[Observation], comparisons: Sequence[Comparison], allowed: Limits
) -> Iterator[Invariance]:
    """Each image in each batch against the same image alone.

    Of one image there is nothing to say: a batch of its copies mixes it with nothing else.
    """
    if len({one.number for one in seen}) < 2:
        return
    alone: dict[int, tuple[Observation, Comparison]] = {}
    for one, comparison in zip(seen, comparisons, strict=True):
        if one.run == ALONE:
            alone[one.number] = one, comparison
            continue
        single, judged = alone[one.number]
        block = _first_other_block(single, one)
        errors = outputs.differences(one.given, single.given)
        verdicts = {judged.verdict, comparison.verdict}
        verdict, reason = "equal", ""
        if "inconclusive" in verdicts:
            verdict, reason = "inconclusive", comparison.reason or judged.reason
        elif block is not None:
            verdict = "fail" if "fail" in verdicts else "borderline"
            reason = f"block {block}: other decisions in the batch than alone"
        elif wrong := [n for n, error in errors.items() if not error <= allowed.given[n]]:
            off = differ(errors[wrong[0]], allowed.given[wrong[0]])
            rerounded = all(errors[name] <= allowed.rerounded for name in wrong)
            verdict, reason = "borderline" if rerounded else "fail", f"the {wrong[0]} {off}"
        yield Invariance(
            image=comparison.image,
            group=comparison.group,
            batch_size=one.run.size,
            order=one.run.order,
            verdict=verdict,
            block=block,
            reason=reason,
            errors=errors,
        )


def _first_other_block(a: Observation, b: Observation) -> int | None:
    """First block in which two observations of an image hold different decisions."""
    for block, (ours, theirs) in enumerate(zip(a.choices, b.choices, strict=False)):
        if taps.digest((ours,)) != taps.digest((theirs,)):
            return block
    shorter = min(len(a.choices), len(b.choices))
    return None if len(a.choices) == len(b.choices) else shorter
