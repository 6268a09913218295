"""A time that is asked for, and what came of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ltmp_export.errors import InputError
from ltmp_export.files.plain import plain
from ltmp_export.plan.times import TimeModel
from ltmp_export.precision.formats import FP32, KINDS
from ltmp_export.timing import tables
from ltmp_export.timing.settings import Settings
from ltmp_export.timing.tables import TimeTable
from ltmp_export.timing.verify import Verified

ROUNDS, WARMUP = 5, 2
WITHIN = 0.05  # of the target
MET, MISSED, INCONCLUSIVE, PREDICTED = "met", "missed", "inconclusive", "predicted"


@dataclass(frozen=True)
class Wanted:
    """What a reduced model's time is to be, and how it runs.

    Attributes:
        shares: Of the dense model's time, each in (0, 1]; several to compare.
        milliseconds: Per image instead.
        batch_size: Images in one run; 1 by default, or the table's.
        threads: Threads of an operator; all processors by default.
        precision: In which numbers the file will compute; fp32 by default, or the table's.
        single: Whether it will take single images only, as `export(batch_size=1)` writes it; for
            any batch by default, or as the table's.
        providers: onnxruntime's execution providers, the CPU's by default.
        table: Times of another machine, see `timing.tables`; nothing is then measured here.
    """

    shares: tuple[float, ...] = ()
    milliseconds: float | None = None
    batch_size: int | None = None
    threads: int | None = None
    precision: str | None = None
    providers: tuple[str, ...] | None = None
    table: Path | None = None
    single: bool | None = None

    def __post_init__(self) -> None:
        if bool(self.shares) == (self.milliseconds is not None):
            raise InputError("a latency target is a share of the dense time or milliseconds: one")
        for share in self.shares:
            if not 0.0 < share <= 1.0:
                raise InputError(
                    f"a latency target of {share:g}; expected the share of the dense model's time "
                    "to be left, above 0 and at most 1"
                )
        most = self.milliseconds
        if most is not None and not 0.0 < most < math.inf:
            raise InputError(f"--milliseconds {most:g}: expected a time above 0, for an image")
        if self.precision not in (None, *KINDS):
            raise InputError(f"precision {self.precision!r}: expected {', '.join(KINDS)}")
        if self.single and self.batch_size not in (None, 1):
            raise InputError(
                f"--single-images: a file that takes one image at a time; drop --batch-size "
                f"{self.batch_size}"
            )
        given = {"--threads": self.threads, "--providers": self.providers}
        told = [flag for flag, value in given.items() if value is not None]
        if self.table is not None and told:
            raise InputError(f"{told[0]} is told by the timing table {self.table}; drop it")
        if self.table is None:
            self.settings()

    def settings(self) -> Settings:
        """How to measure here."""
        return Settings(
            batch_sizes=(1 if self.batch_size is None else self.batch_size,),
            threads=self.threads,
            warmup=WARMUP,
            iterations=ROUNDS,
            providers=self.providers or ("cpu",),
        )

    @property
    def kind(self) -> str:
        """In which numbers the file is to compute where no table tells it."""
        return self.precision or FP32

    def targets(self, model: TimeModel) -> tuple[float, ...]:
        """Shares of the dense model's time."""
        if self.milliseconds is None:
            return self.shares
        return (self.milliseconds / model.dense,)


@dataclass(frozen=True)
class Reached:
    """What came of one target.

    Attributes:
        target: Share of the dense model's time asked for.
        milliseconds: Per image, where that was asked for.
        predicted: The share by the model of time.
        verified: What was measured of the file, if it was.
        trials: Files that were measured.
    """

    target: float
    milliseconds: float | None
    predicted: float
    verified: Verified | None
    trials: int

    @property
    def share(self) -> float:
        """Of the dense model's time: measured, or else predicted."""
        return self.predicted if self.verified is None else self.verified.share

    @property
    def off(self) -> float | None:
        """How far the file is from the target, as a share of it, if it was measured."""
        if self.verified is None:
            return None
        if self.milliseconds is not None:
            return self.verified.milliseconds / self.milliseconds - 1
        return self.verified.share / self.target - 1

    @property
    def verdict(self) -> str:
        """Whether it is met within 5 %, or why that is not known."""
        if self.verified is None or self.off is None:
            return PREDICTED
        if not self.verified.conclusive:
            return INCONCLUSIVE
        return MET if abs(self.off) <= WITHIN else MISSED

    @property
    def rank(self) -> tuple[int, float]:
        """Of several that were measured: what is known to be met is best, then the nearest."""
        return [MET, INCONCLUSIVE, MISSED, PREDICTED].index(self.verdict), abs(self.off or 0.0)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        seen = self.verified
        measured = None if seen is None else asdict(seen) | {"share": seen.share}
        return {
            "target": self.target,
            "milliseconds": self.milliseconds,
            "predicted": self.predicted,
            "measured": measured,
            "off": self.off,
            "trials": self.trials,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Latency:
    """Times of a calibration.

    Attributes:
        table: What was measured, here or elsewhere.
        batch_size: Images in one run.
        model: What was fitted to it.
        rows: One for each target.
        elsewhere: The file of the table, where the times are of another machine.
        stated: What the export of each model is told of its family, where no checkpoint holds it.
    """

    table: TimeTable
    batch_size: int
    model: TimeModel
    rows: tuple[Reached, ...]
    elsewhere: str | None
    stated: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """Of the export of each model: what is stated, and the numbers and form of the file."""
        return tuple(f"{one} {self.table.options}".strip() for one in self.stated)

    @property
    def failed(self) -> bool:
        """Whether a file was measured and does not, or may not, meet its target."""
        return any(row.verdict in (MISSED, INCONCLUSIVE) for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        document = {
            "unit": tables.UNIT,
            "batch_size": self.batch_size,
            "elsewhere": self.elsewhere,
            "stated": self.options,
            "model": asdict(self.model),
            "rows": [row.to_json() for row in self.rows],
            "table": self.table.to_json(),
        }
        return dict(plain(document))
