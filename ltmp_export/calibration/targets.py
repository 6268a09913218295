"""A target met: thresholds made and measured until the work executed is what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ltmp_export import families
from ltmp_export.calibration import neighbours, quantiles
from ltmp_export.calibration.crew import Crew
from ltmp_export.calibration.measure import Measured
from ltmp_export.calibration.quantiles import Shares
from ltmp_export.calibration.search import Trial, search
from ltmp_export.calibration.shift import shifted
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.files import memory
from ltmp_export.plan.plan import DENSE
from ltmp_export.progress import Progress

TOLERANCE = 0.005  # of the target
DEFAULT_MERGE, DEFAULT_SCHEDULE = 0.7, "late"
SAMPLES = 256
QUANTILES, SHIFT = "quantiles", "shift"
_MOST_REMOVED = 0.995  # of a block's tokens
_FARTHEST = 12.0  # of a shift, on the scale of log-odds
_NUDGE = 0.7  # likewise, where quantiles jump over the target

Thresholds = dict[str, list[float]]


@dataclass(frozen=True)
class Spread:
    """How a calibration goes about it.

    Attributes:
        merge: Part of the removed tokens that merging takes, where a family also prunes; 0.7 by
            default. Not for a shift.
        schedule: One of `quantiles.SCHEDULES`, "late" by default. Not for a shift.
        method: "quantiles" or "shift"; by default a shift where the checkpoint has thresholds.
        samples: Images to take at most; one half gives scores, the other is measured on.
        seed: Which half is which.
    """

    merge: float | None = None
    schedule: str | None = None
    method: str | None = None
    samples: int = SAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        if self.merge is not None and not 0.0 <= self.merge <= 1.0:
            raise InputError(f"split merge={self.merge:g}; expected a share from 0 to 1")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}; expected 0 or more")
        if self.schedule not in (None, *quantiles.SCHEDULES):
            known = ", ".join(quantiles.SCHEDULES)
            raise InputError(f"no schedule {self.schedule!r}; choose from {known}")
        if self.method not in (None, QUANTILES, SHIFT):
            raise InputError(f"no method {self.method!r}; choose from {QUANTILES}, {SHIFT}")

    def by_shift(self, source: Checkpoint) -> bool:
        """Whether a checkpoint's own thresholds are moved.

        Raises:
            InputError: It has none, or how to make others is stated.
        """
        if self.method == SHIFT and source.plan.family == DENSE:
            raise InputError(
                f"{source.path} has no thresholds to shift; take --method {QUANTILES} for a dense "
                "model"
            )
        shift = self.method == SHIFT or (self.method is None and source.plan.family != DENSE)
        if shift and (self.merge is not None or self.schedule is not None):
            raise InputError(
                f"{source.path} has thresholds, which are moved together: --split and --schedule "
                f"are for --method {QUANTILES}, which makes new ones"
            )
        return shift

    @property
    def shares(self) -> Shares:
        """What a block and its steps remove."""
        return Shares(
            DEFAULT_MERGE if self.merge is None else self.merge, self.schedule or DEFAULT_SCHEDULE
        )


@dataclass(frozen=True)
class Calibrated:
    """One target.

    Attributes:
        target: Share of the dense multiply-accumulates asked for, or of the dense model's time.
        mac_ratio: Share executed on the images held out.
        tokens: Mean tokens after each block there.
        agreement: Share of the images there with the dense model's top-1; of a model without
            classifier the mean cosine of its features with the dense model's.
        accuracy: Top-1 there, where there are labels, see `Bench.accuracy`.
        thresholds: Per kind, one for each block.
        time_share: Predicted share of the dense model's time, where the target is one.
    """

    target: float
    mac_ratio: float
    tokens: tuple[float, ...]
    agreement: float
    accuracy: float | None
    thresholds: Thresholds
    time_share: float | None = None

    @property
    def met(self) -> bool:
        """Whether the work executed, or its time, is the target's within 0.5 % of it."""
        reached = self.mac_ratio if self.time_share is None else self.time_share
        return abs(reached - self.target) <= TOLERANCE * self.target


class Cost(NamedTuple):
    """What a target is a share of, where it is not the multiply-accumulates.

    Attributes:
        share: Of what was measured.
        macs: About which share of the multiply-accumulates such a share is.
    """

    share: Callable[[Measured], float]
    macs: Callable[[float], float]


class Maker(NamedTuple):
    """Thresholds as a function of one number.

    Attributes:
        make: The function; the greater the number, the more is removed.
        low: Least number.
        high: Greatest number.
        start: About where a target is met.
    """

    make: Callable[[float], Thresholds]
    low: float
    high: float
    start: Callable[[float], float]


class Bench:
    """Measures thresholds on the images held out.

    Args:
        crew: Where they run.
        progress: Called with a few words after each measurement.
        knn: Of a model without classifier, how many neighbours vote for the class of an image.
    """

    def __init__(self, crew: Crew, progress: Progress, knn: int = neighbours.DEFAULT) -> None:
        self.crew, self.progress, self.knn = crew, progress, knn
        self.held_out = crew.subject.held_out
        progress("measuring the dense model")
        self.dense = crew.dense()

    def measure(self, thresholds: Thresholds) -> Measured:
        """What it does to the images held out."""
        return self.crew.measure(thresholds)

    def accuracy(self, answers: NDArray[Any]) -> float | None:
        """Share of them that is right, where there are labels.

        Of features: by the nearest neighbours of each among the others held out.
        """
        labels = self.held_out.labels
        if labels is None or (answers.ndim == 2 and len(answers) < 2):
            return None
        if answers.ndim == 2:
            return neighbours.top1(answers, labels, self.knn)
        return float((answers == labels).mean())

    def meet(self, target: float, maker: Maker, cost: Cost | None = None) -> Calibrated:
        """Turn the number until the target is met, or as near as it comes.

        Quantiles jump where a block's scores leave a gap; the last bit is then a small shift.
        """
        seen: list[float] = []

        def attempt(make: Callable[[float], Thresholds], at: float) -> Trial[_Result]:
            thresholds = make(at)
            measured = self.measure(thresholds)
            left = measured.mac_ratio if cost is None else cost.share(measured)
            seen.append(left)
            self.progress(f"target {target:g}: {left:.4f} after {len(seen)} trials")
            return Trial(at, left, _Result(thresholds, measured))

        within = TOLERANCE * target
        first = partial(attempt, maker.make)
        start = maker.start(target if cost is None else cost.macs(target))
        best = search(first, maker.low, maker.high, target, within, start)
        if abs(best.ratio - target) > within and min(seen) < target < max(seen):
            nudge = partial(attempt, partial(shifted, best.result.thresholds))
            near = search(nudge, -_NUDGE, _NUDGE, target, within, 0.0)
            best = min(best, near, key=lambda trial: abs(trial.ratio - target))
        thresholds, measured = best.result
        return Calibrated(
            target=target,
            mac_ratio=measured.mac_ratio,
            tokens=measured.tokens,
            agreement=measured.agreement(self.dense),
            accuracy=self.accuracy(measured.answers),
            thresholds=thresholds,
            time_share=None if cost is None else best.ratio,
        )


class _Result(NamedTuple):
    """Thresholds and what they do."""

    thresholds: Thresholds
    measured: Measured


def by_quantiles(crew: Crew, shares: Shares) -> Maker:
    """Thresholds from the scores of images, by how much of its tokens a block removes.

    Raises:
        InputError: The tokens of all these images take more than the memory limit.
    """
    subject, vit = crew.subject, crew.subject.source.vit
    count = len(subject.scored)
    held = 3 * 4 * count * vit.tokens * vit.width  # before, in and after a block
    memory.require_memory(held // crew.processes, f"the tokens of {count} images (--samples)")
    kinds = families.load(subject.family).order()
    make = partial(quantiles.thresholds, crew.look, vit.depth, kinds, shares)
    return Maker(make, 0.0, _MOST_REMOVED, partial(quantiles.expected, vit, shares))


def by_shift(source: Checkpoint) -> Maker:
    """The thresholds of the checkpoint, moved together."""
    own = source.plan.thresholds()
    return Maker(partial(shifted, own), -_FARTHEST, _FARTHEST, lambda target: 0.0)
