"""When a top-1 is near chance."""

from __future__ import annotations

import pytest

from ltmp_export.images import chance


@pytest.mark.parametrize(
    ("top1", "count", "classes", "doubted"),
    [
        (2 / 12, 36, 12, True),  # folders 0 to 11 in the other order: 0 and 1 stand alike
        (2 / 12, 36_000, 12, True),
        (2 / 11, 110, 11, True),
        (3 / 1000, 50_000, 1000, True),
        (0.0, 360, 10, True),
        (0.02, 100, 2, True),  # two classes exchanged
        (0.58, 1000, 2, True),
        (0.65, 1000, 2, False),
        (0.35, 50_000, 10, False),
        (0.15, 7_500, 1000, False),  # ImageNet-A
        (0.99, 360, 10, False),
        (0.25, 12, 12, True),  # three of twelve images may be luck
        (0.25, 9, 12, False),  # too few to say so
        (1.0, 100, 1, False),
        (None, 100, 10, False),
    ],
)
def test_doubts(top1: float | None, count: int, classes: int, doubted: bool) -> None:
    assert bool(chance.doubts(top1, count, classes)) == doubted


def test_the_line_says_what_to_do() -> None:
    assert chance.doubts(1 / 6, 36, 12, "top-1 of the dense model") == (
        "top-1 of the dense model is 16.7% on 36 images of 12 classes, near chance (8.3%): are the "
        "labels in the model's order (--class-order, --class-map), and is the normalisation its "
        "own (--mean, --std)?",
    )
