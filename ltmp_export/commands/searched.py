"""How a model is reduced until it takes a given time: by thresholds, or by r or keep rate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from ltmp_export import families
from ltmp_export.calibration.crew import Crew
from ltmp_export.calibration.measure import Measured
from ltmp_export.calibration.targets import (
    QUANTILES,
    SHIFT,
    Bench,
    Calibrated,
    Cost,
    Maker,
    Spread,
    by_quantiles,
    by_shift,
)
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.commands import halved
from ltmp_export.commands.halved import Halves
from ltmp_export.commands.stages import family_of
from ltmp_export.errors import InputError
from ltmp_export.plan import times, work
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.times import TimeModel
from ltmp_export.progress import Progress
from ltmp_export.statements.choices import Choices
from ltmp_export.timing import variants

RATE = "fixed rate"
SHARES = (0.95, 0.8, 0.65, 0.5, 0.35, 0.22)  # of the multiply-accumulates, about, to be timed at
_SHIFTS = (-4.0, -2.0, 0.0, 2.0)  # of thresholds, on the scale of log-odds
_HALVINGS = 9  # of the range of targets of a fixed rate


class Made(NamedTuple):
    """A model that is predicted to take a time.

    Attributes:
        row: What it does to the images held out; of a fixed rate nothing is measured yet.
        checkpoint: It.
        stated: What to export it with, where the checkpoint alone does not tell.
    """

    row: Calibrated
    checkpoint: Checkpoint
    stated: str


class Search(ABC):
    """A way to reduce a model.

    Attributes:
        family: Its name.
        method: What is turned, for a person.
        source: The model; its weights.
        bench: The images held out, and what the dense model makes of them.
    """

    family: str
    method: str
    source: Checkpoint
    bench: Bench

    @abstractmethod
    def plans(self) -> Iterator[tuple[str, Plan]]:
        """The model at token counts that lie far apart, each with a label."""

    @abstractmethod
    def meet(self, target: float, model: TimeModel, size: int, timed: int, scale: float) -> Made:
        """The model nearest to a share of the dense model's time.

        Args:
            target: The share.
            model: Of time.
            size: Images in one run.
            timed: How many of the images held out, from the first on, the time is one of.
            scale: What predictions are multiplied by, from what was measured before.
        """


class Thresholds(Search):
    """By thresholds, as for a share of the multiply-accumulates."""

    def __init__(self, halves: Halves, spread: Spread, workers: int, progress: Progress) -> None:
        self.source = halves.source
        self.kind, shift = family_of(self.source), spread.by_shift(self.source)
        halved.require_splittable(self.kind, spread)
        self.family, self.method = self.kind.name, SHIFT if shift else QUANTILES
        crew = Crew(halves.subject(self.family), workers)
        self.bench = Bench(crew, progress, halves.voters)
        self.maker: Maker = by_shift(self.source) if shift else by_quantiles(crew, spread.shares)

    def _plan(self, thresholds: dict[str, list[float]]) -> Plan:
        own = self.source.plan
        frozen = self.kind.freeze(thresholds, self.source.vit.prefix)
        return replace(
            frozen, merged_position=own.merged_position, metric_position=own.metric_position,
            pool_sizes=own.pool_sizes,
        )  # fmt: skip

    def plans(self) -> Iterator[tuple[str, Plan]]:
        """By the maker's number."""
        at = [self.maker.start(share) for share in SHARES]
        if self.method == SHIFT:
            at = variants.spread(variants.tried(self._share, _SHIFTS))
        for number in at:
            yield f"{self.family} at {number:.3g}", self._plan(self.maker.make(number))

    def _share(self, at: float) -> float:
        return self.bench.measure(self.maker.make(at)).mac_ratio

    def meet(self, target: float, model: TimeModel, size: int, timed: int, scale: float) -> Made:
        """By search."""
        vit, plan = self.source.vit, self._plan(self.maker.make(self.maker.high))

        def share(measured: Measured) -> float:
            counts = measured.counts[:timed].tolist()
            return float(model.share(times.loads(vit, plan, counts, size))) * scale

        def macs(wanted: float) -> float:  # of which the time beyond the fixed one is about a share
            fixed = model.fixed / model.dense
            whole = 1.0 + model.overhead / model.dense
            left = (wanted / scale - fixed) / max(whole - fixed, 1e-9)
            return min(max(left, 0.01), 1.0)

        row = self.bench.meet(target, self.maker, Cost(share, macs))
        made = replace(self.source, plan=self._plan(row.thresholds))
        return Made(row, made, "")


class FixedRate(Search):
    """By what `--reduction-target` picks: r, or a keep rate."""

    def __init__(
        self, halves: Halves, choices: Choices, family: str, workers: int, progress: Progress
    ) -> None:
        self.source, self.family, self.method = halves.source, family, RATE
        self.choices, self.progress = choices, progress
        self.bench = Bench(Crew(halves.subject(family), workers), progress, halves.voters)
        self._made: dict[float, Checkpoint | None] = {}

    def _at(self, share: float) -> Checkpoint | None:
        """The model at about a share of the multiply-accumulates; None where there is none."""
        if share not in self._made:
            stated = replace(self.choices, family=self.family, reduction_target=share)
            try:
                self._made[share] = load_checkpoint(self.source.path, stated)
            except InputError:
                if share >= 1.0:
                    raise
                self._made[share] = None
        return self._made[share]

    def plans(self) -> Iterator[tuple[str, Plan]]:
        """By shares of the multiply-accumulates."""
        self._at(1.0)
        for share in SHARES:
            made = self._at(share)
            if made is not None:
                yield f"{self.family} at {share:g}", made.plan

    def meet(self, target: float, model: TimeModel, size: int, timed: int, scale: float) -> Made:
        """By halving."""
        tried: list[tuple[float, Checkpoint]] = []
        low, high = 0.0, 1.0
        at = high
        for number in range(_HALVINGS):
            self.progress(f"target {target:g}: {number + 1} of {_HALVINGS} trials")
            made = self._at(at)
            left = 0.0 if made is None else self._share(made, model, size) * scale
            if made is not None:
                tried.append((left, made))
            low, high = (low, at) if left > target else (at, high)
            at = (low + high) / 2
        left, best = min(tried, key=lambda one: abs(one[0] - target))
        row = Calibrated(
            target=target,
            mac_ratio=work.share(best.geometry, best.plan),
            tokens=tuple(map(float, work.counts(best.geometry, best.plan))),
            agreement=0.0,
            accuracy=None,
            thresholds={},
            time_share=left,
        )
        return Made(row, best, self._stated(best))

    @staticmethod
    def _share(made: Checkpoint, model: TimeModel, size: int) -> float:
        counts = [work.counts(made.geometry, made.plan)] * size
        return float(model.share(times.loads(made.geometry, made.plan, counts, size)))

    def _stated(self, made: Checkpoint) -> str:
        """Options of the export."""
        told, at = f"--family {self.family}", self.choices.merge_at
        if at is not None:
            told += f" --merge-at {','.join(map(str, at))}"
        if families.load(self.family).counts:
            steps = [sum(step.number or 0 for step in block) for block in made.plan.blocks]
            return f"{told} --r {max(steps, default=0)}"
        return f"{told} --reduction-target {made.choices.reduction_target:g}"
