"""What was typed about a time that a model is to take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ltmp_export.errors import InputError

from . import parsing

if TYPE_CHECKING:
    from ltmp_export.timing.goal import Wanted


@dataclass(frozen=True)
class Timed:
    """What was typed about a time."""

    share: float | None
    milliseconds: float | None
    sweep: str | None
    batch_size: int | None
    threads: int | None
    precision: str | None
    providers: str | None
    table: Path | None
    single: bool | None

    def asked(self, sweep: str | None) -> bool:
        """Whether a time is to be met.

        Raises:
            InputError: It is not, and something was said of it; or it was said in several ways.
        """
        ways = {
            "--latency-target": self.share,
            "--milliseconds": self.milliseconds,
            "--sweep with --latency": self.sweep,
        }
        given = [flag for flag, value in ways.items() if value is not None]
        if len(given) > 1 or (given and self.sweep is None and sweep is not None):
            raise InputError(f"{given[0]} and {(given[1:] or ['--sweep'])[0]}: give one")
        about = {
            "--batch-size": self.batch_size,
            "--threads": self.threads,
            "--precision": self.precision,
            "--providers": self.providers,
            "--timing": self.table,
            "--single-images" if self.single else "--any-batch": self.single,
        }
        told = [flag for flag, value in about.items() if value is not None]
        if told and not given:
            raise InputError(
                f"{told[0]} is about a time; give --latency-target 0.6, --milliseconds 12, or "
                "--sweep 0.9,0.8 --latency, too"
            )
        return bool(given)

    def wanted(self) -> Wanted:
        """As the library takes it.

        Raises:
            InputError: A value is out of range.
        """
        from ltmp_export.timing.goal import Wanted

        shares: tuple[float, ...] = () if self.share is None else (self.share,)
        if self.sweep is not None:
            shares = parsing.numbers("--sweep", self.sweep, "0.9,0.8,0.7")
        return Wanted(
            shares=shares,
            milliseconds=self.milliseconds,
            batch_size=self.batch_size,
            threads=self.threads,
            precision=self.precision,
            providers=None if self.providers is None else tuple(self.providers.split(",")),
            table=self.table,
            single=self.single,
        )
