"""Numbers of threads, tried: which, on what, and which of them is best."""

from __future__ import annotations

import numpy as np
import pytest

from ltmp_export.timing import threads
from ltmp_export.timing.contenders import DENSE, REDUCED
from ltmp_export.timing.report import Tried


@pytest.mark.parametrize(
    ("processors", "expected"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (3, (1, 2, 3)),
        (4, (1, 2, 3, 4)),
        (6, (1, 2, 3, 4, 6)),
        (8, (1, 2, 3, 4, 8)),
        (12, (1, 2, 3, 4, 8, 12)),
        (64, (1, 2, 3, 4, 8, 16, 32, 64)),
    ],
)
def test_counts(processors: int, expected: tuple[int, ...]) -> None:
    assert threads.counts(processors) == expected


def tried(*times: tuple[int, int, float], model: str = REDUCED) -> list[Tried]:
    return [Tried(model, size, count, best) for size, count, best in times]


def test_best_is_of_the_model_asked_for() -> None:
    found = tried((1, 1, 2.0), (1, 2, 1.0)) + tried((1, 1, 1.0), (1, 2, 2.0), model=DENSE)
    assert threads.best(found) == 2
    assert threads.best(found, DENSE) == 1


def test_batch_sizes_count_alike_though_their_times_differ() -> None:
    """One thread is 1.5 times as fast alone, two are 1.4 times as fast in batches of 100 ms."""
    found = tried((1, 1, 1.0), (1, 2, 1.5), (32, 1, 140.0), (32, 2, 100.0))
    assert threads.best(found) == 1
    assert threads.best(tried((1, 2, 1.0), (1, 1, 1.0))) == 1


@pytest.mark.parametrize(("count", "size"), [(48, 1), (48, 16), (3, 1), (3, 8)])
def test_groups_have_images_of_few_and_of_many_tokens(count: int, size: int) -> None:
    by_tokens = np.arange(count)[::-1]
    groups = threads._groups(by_tokens, size)
    assert {len(group) for group in groups} == {size}
    assert {0, count - 1} <= {int(image) for group in groups for image in group}
