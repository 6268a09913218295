"""Is a model slower than it was? Against an earlier report, beyond what noise explains.

A machine has slow phases, and the next machine is another one. So where both reports have the
dense baseline, which no change of the reduction touches, what is compared is the time of the model
divided by that of the dense model in the same round: the machine's speed cancels. Otherwise times
are compared, and then the machine must be the same.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.timing.contenders import DENSE, REDUCED
from ltmp_export.timing.report import SCHEMA_VERSION, BenchReport
from ltmp_export.timing.settings import AUTO, Settings

LEAST_ROUNDS = 10  # of fewer, the standard error is too uncertain to tell noise from a change
READABLE = (2, 3, SCHEMA_VERSION)  # what is compared is the same in all
SLOWER, FASTER, SAME, NOISY = "slower", "faster", "same", "within noise"


@dataclass(frozen=True)
class Change:
    """One batch size, then and now.

    Attributes:
        batch_size: Images in one run.
        measure: "time / dense time", or "ms per image".
        old: Median over the rounds of the earlier report.
        new: The same now.
        change: new / old - 1; above 0 is slower.
        noise: Change that the spread of the rounds explains: two standard errors.
        allowed: The largest change that is no regression.
    """

    batch_size: int
    measure: str
    old: float
    new: float
    change: float
    noise: float
    allowed: float

    @property
    def verdict(self) -> str:
        """A regression is "slower": beyond what is allowed, and beyond noise."""
        if abs(self.change) <= self.noise:
            return NOISY if abs(self.change) > self.allowed else SAME
        if abs(self.change) <= self.allowed:
            return SAME
        return SLOWER if self.change > 0 else FASTER


def percentage(flag: str, text: str) -> float:
    """A share given as a percentage with its sign, like 5%.

    Raises:
        InputError: Something else was given.
    """
    try:
        value = float(text.removesuffix("%")) / 100 if text.endswith("%") else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"{flag} {text}: expected a percentage with its sign, like 5%")
    return value


def read(path: Path, settings: Settings) -> dict[str, Any]:
    """An earlier report, fit for comparing with what these settings will measure.

    Raises:
        InputError: It is not a report of `bench` of a version that is known, or lacks a batch size;
            or there are too few rounds in it or to come, or the number of threads is to be found.
    """
    disk.require_file(path, "a report written by 'ltmp bench --json'")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path} is not JSON ({err}); expected a report of 'ltmp bench'") from err
    found = document.get("kind") if isinstance(document, dict) else None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if found != "bench" or version not in READABLE:
        expected = " or ".join(map(str, READABLE))
        raise InputError(
            f"{path} has kind {found}, schema_version {version}; expected bench, {expected}: "
            "write it again with 'ltmp bench --json'"
        )
    if settings.threads == AUTO:
        raise InputError(
            f"threads {AUTO} beside an earlier report of {document.get('threads')}: give that "
            "number, so that both are timed alike"
        )
    if settings.iterations < LEAST_ROUNDS:
        raise _too_few(settings.iterations)
    with _damage_reported():
        for size in settings.sizes:
            _figures(document, size, divided=document["baseline"] == DENSE)
    return dict(document)


@contextlib.contextmanager
def _damage_reported() -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as err:
        raise InputError(f"the earlier report is damaged ({err!r}); write it again") from err


def compare(old: Mapping[str, Any], report: BenchReport, allowed: float) -> tuple[Change, ...]:
    """What changed at each batch size that is timed now.

    Args:
        old: The earlier report, from `read`.
        report: What was measured now.
        allowed: The largest change that is no regression, 0.05 for 5 %.

    Raises:
        InputError: The two cannot be compared, and why.
    """
    new = report.to_json()
    with _damage_reported():
        _require_alike(old, new)
        return tuple(_change(old, new, size, allowed) for size in report.batch_sizes)


def _require_alike(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for what in ("images", "threads", "provider"):
        key = "images_sha256" if what == "images" else what
        if old[key] != new[key]:
            found = f"{what} {old[what]} then, {new[what]} now"
            if old[what] == new[what]:
                found = f"{what} of other content now"
            raise InputError(f"the reports cannot be compared: {found}")
    given = [document.get("outputs") for document in (old, new)]
    if all(given) and given[0] != given[1]:  # older reports do not say
        then, now = (",".join(map(str, names)) for names in given if names)
        raise InputError(f"the reports cannot be compared: outputs {then} then, {now} now")
    machines = [document["environment"]["processor"] for document in (old, new)]
    if machines[0] != machines[1] and not _have_dense(old, new):
        raise InputError(
            f"the reports cannot be compared: {machines[0]} then, {machines[1]} now, and no dense "
            "baseline in both to tell the machines apart"
        )


def _have_dense(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return bool(old["baseline"] == new["baseline"] == DENSE)


def _change(old: Mapping[str, Any], new: Mapping[str, Any], size: int, allowed: float) -> Change:
    divided = _have_dense(old, new)
    rounds = [_figures(document, size, divided) for document in (old, new)]
    before, after = (float(np.median(values)) for values in rounds)
    errors = [_relative_error(values) for values in rounds]
    return Change(
        batch_size=size,
        measure="time / dense time" if divided else "ms per image",
        old=before,
        new=after,
        change=after / before - 1,
        noise=2 * math.hypot(*errors) * after / before,
        allowed=allowed,
    )


def _figures(document: Mapping[str, Any], size: int, divided: bool) -> Sequence[float]:
    """[rounds] mean time of the model's images, or divided by the dense model's in that round."""
    found = {t["model"]: t["samples"] for t in document["timings"] if t["batch_size"] == size}
    if REDUCED not in found:
        raise InputError(
            f"the reports cannot be compared: the earlier one has no batch of {size} images"
        )
    times = [np.asarray(found[name], float) for name in (REDUCED, DENSE)[: 2 if divided else 1]]
    if not all(np.isfinite(one).all() and (one > 0).all() for one in times):
        raise ValueError(f"a time at batch {size} is no positive number")
    if len(times[0]) < LEAST_ROUNDS:
        raise _too_few(len(times[0]))
    model, *dense = (one.mean(axis=1) for one in times)
    return [float(x) for x in (model / dense[0] if divided else model)]


def _too_few(rounds: int) -> InputError:
    return InputError(
        f"{rounds} rounds do not tell noise; time at least {LEAST_ROUNDS} (--iterations), in the "
        "earlier report, too"
    )


def _relative_error(values: Sequence[float]) -> float:
    """Standard error of the median of rounds, divided by it.

    From the median deviation, which a few disturbed rounds do not move: 1.4826 times it is the
    standard deviation of normal errors, and the median's error is 1.2533 times that of the mean.
    """
    middle = np.median(values)
    deviation = 1.4826 * np.median(abs(np.asarray(values) - middle))
    return float(1.2533 * deviation / math.sqrt(len(values)) / middle)
