"""How many pictures may be beyond a baseline by chance: as the distribution says; in a trial."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import exp, lgamma
from pathlib import Path

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from ltmp_export.files import disk
from ltmp_export.parity import chance, drift

Made = Callable[[Generator, int], NDArray[np.float64]]


def beta_binomial(found: int, count: int, first: float, last: float) -> float:
    """Chance of `found` of `count`, as textbooks have it."""

    def ways(a: float, b: float) -> float:
        return lgamma(a) + lgamma(b) - lgamma(a + b)

    chosen = ways(found + first, count - found + last) - ways(first, last)
    return exp(chosen - ways(found + 1, count - found + 1)) / (count + 1)


@pytest.mark.parametrize(
    ("held", "known", "new"), [(20, 64, 32), (3, 128, 300), (0, 128, 64), (9, 9, 9)]
)
def test_the_number_beyond_is_beta_binomial(held: int, known: int, new: int) -> None:
    first = min(held + 1, known)
    chances = [beta_binomial(one, new, first, known + 1 - first) for one in range(new + 1)]
    for level in (0.05, 0.002):
        most = chance.most(held, known, new, 0.0, level)
        assert sum(chances[most + 1 :]) <= level
        assert sum(chances[most:]) > level


def test_more_pictures_leave_less_to_chance() -> None:
    new = [chance.most(5, 128, count, 0.05, 0.002) / count for count in (1, 32, 128, 512, 20_000)]
    assert new == sorted(new, reverse=True)
    assert new[0] == 1  # of one picture nothing can be told
    known = [chance.most(5, count, 128, 0.05, 0.002) for count in (16, 64, 512, 4096)]
    assert known == sorted(known, reverse=True)
    shares = [chance.most(5, 128, 128, share, 0.002) for share in (0.0, 0.05, 0.5, 1.0)]
    assert shares == sorted(shares)
    assert shares[-1] == 128


KINDS: dict[str, Made] = {
    drift.MARGINS: lambda chances, count: chances.normal(size=(count, 12)),
    drift.ANSWERS: lambda chances, count: chances.normal(size=(count, 1)).repeat(2, 1),
    drift.TOKENS: lambda chances, count: chances.geometric(0.3, (count, 3)).astype(float),
    drift.BUDGET: lambda chances, count: chances.binomial(1, 0.3, (count, 1)).astype(float),
    drift.RANGES: lambda chances, count: chances.pareto(1, (count, 4)) / 100,
}


def test_pictures_that_did_not_change_are_seldom_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with `--drift-share` 0 either, and of any kind; the trial itself is left twice that."""
    monkeypatch.setattr(chance, "most", cache(chance.most))
    monkeypatch.setattr(disk, "sha256", lambda _: "")
    chances = np.random.default_rng(0)

    def made(count: int) -> list[drift.Seen]:
        columns = {kind: make(chances, count) for kind, make in KINDS.items()}
        return [{kind: of[one] for kind, of in columns.items()} for one in range(count)]

    told = 0
    for _ in range(RUNS := 250):
        base = drift.baseline(Path("m.onnx"), made(64), "")
        found = drift.compare(base, made(64), [str(one) for one in range(64)], 0.0)
        told += any(one.drifted for one in found)
    level = drift.FALSE_ALARMS / len(KINDS)
    for one in found:
        assert one.allowed == chance.most(base.kinds[one.kind].held, 64, 64, 0.0, level) / 64
    assert told <= 2 * drift.FALSE_ALARMS * RUNS
