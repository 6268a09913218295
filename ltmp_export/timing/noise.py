"""Do two models differ by more than runs of one do? And what to do where they do not.

The figures are those of a report: the `best` of both, from which the speed-up comes, the medians,
and how far a run usually is from the median of the same images (`Timing.noise`; the larger of
both). On a machine that is busy throughout, bests are chance and noise is small: so medians count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltmp_export.timing.contenders import DENSE, REDUCED

if TYPE_CHECKING:
    from ltmp_export.timing.report import BenchReport


@dataclass(frozen=True)
class Difference:
    """The file against its baseline at a batch size.

    Attributes:
        batch_size: Images in one run.
        change: The file's best time / the baseline's - 1; above 0 the file is slower.
        usual: The same of the medians.
        noise: How far runs of the same images are from each other, relative to them; None of a
            single round.
    """

    batch_size: int
    change: float
    usual: float
    noise: float | None

    @property
    def told(self) -> bool | None:
        """Whether both say so by more than the noise; None where that is not known."""
        if self.noise is None:
            return None
        return min(self.change, self.usual) > self.noise or self.faster

    @property
    def faster(self) -> bool:
        """Whether the file is faster by more than the noise."""
        return self.noise is not None and max(self.change, self.usual) < -self.noise


def differences(report: BenchReport) -> tuple[Difference, ...]:
    """One for each batch size at which both were timed; none without a baseline."""
    found = []
    for size in report.batch_sizes:
        own = report.timing(REDUCED, size)
        other = None if report.baseline is None else report.timing(report.baseline, size)
        if own is None or other is None:
            continue
        both = [one for one in (own.noise, other.noise) if one is not None]
        noise = max(both) if both else None
        change, usual = own.best / other.best - 1, own.median / other.median - 1
        found.append(Difference(size, change, usual, noise))
    return tuple(found)


def doubts(report: BenchReport) -> list[str]:
    """A line for each batch size at which the file is not faster than its baseline beyond noise."""
    lines = []
    for one in differences(report):
        if one.noise is None or one.faster:
            continue
        timings = (report.timing(name, one.batch_size) for name in (REDUCED, report.baseline or ""))
        times = " and ".join(f"{timing.best:.3g}" for timing in timings if timing is not None)
        what = (
            f"batch {one.batch_size}: {REDUCED} and {report.baseline} take {times} ms an image, "
            f"{abs(one.change):.1%} apart at best and {abs(one.usual):.1%} usually, and runs of "
            f"the same image differ by ±{one.noise:.1%}"
        )
        if one.told:
            lines.append(f"{what}: {REDUCED} is slower{_why(report)}; {_else(report)}")
        else:
            lines.append(
                f"{what}: too near to tell which is faster; time more rounds (--iterations) on a "
                f"quieter machine, or {_else(report)}"
            )
    return lines


def _why(report: BenchReport) -> str:
    """Why less work can take longer."""
    if report.baseline != DENSE:
        return ""
    nodes = sum(report.placement.values())
    if report.outgoing is not None:
        return ": it reduces what goes out, and nothing in front of that"
    return (
        f", since the fixed cost of its {nodes} operators is more than its "
        f"{report.dense_gmacs - report.gmacs:.2g} GMACs less save"
    )


def _else(report: BenchReport) -> str:
    """What else may help."""
    return "take larger batches" if report.threads_tried else "try --threads auto"
