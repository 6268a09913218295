"""Which images a step takes, and its rate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ltmp_export.errors import InputError
from ltmp_export.training.loop import Course
from tests.makers.trainers import SETTINGS


class TestCourse:
    def test_every_image_at_most_once_an_epoch(self) -> None:
        course = Course(20, SETTINGS)
        assert course.steps == 2
        assert course.total == 4
        seen = [i for parts in course.parts(0) for part in parts for i in part]
        assert len(seen) == len(set(seen)) == 16

    def test_epochs_and_seeds_differ(self) -> None:
        orders = {
            tuple(next(Course(20, replace(SETTINGS, seed=seed)).parts(epoch))[0])
            for seed in (0, 1)
            for epoch in (0, 1)
        }
        assert len(orders) == 4

    @pytest.mark.parametrize(("count", "accumulate"), [(2, 1), (1, 2), (2, 2), (4, 2), (1, 8)])
    def test_sharing_a_step_leaves_its_images(self, count: int, accumulate: int) -> None:
        settings = replace(SETTINGS, accumulate=accumulate)
        whole = next(Course(20, SETTINGS).parts(1, 1))[0]
        shares = [next(Course(20, settings, rank, count).parts(1, 1)) for rank in range(count)]
        assert all(len(share) == accumulate for share in shares)
        sizes = {len(part) for share in shares for part in share}
        assert sizes == {8 // (count * accumulate)}
        assert sorted(i for share in shares for part in share for i in part) == sorted(whole)

    def test_schedule(self) -> None:
        course = Course(20, SETTINGS)
        rates = [course.rate(step) for step in range(5)]
        assert rates[0] == 1.0
        assert rates[2] == pytest.approx(0.5)
        assert rates[4] == pytest.approx(0.0)
        assert rates == sorted(rates, reverse=True)

    @pytest.mark.parametrize(
        ("images", "change", "count", "says"),
        [
            (7, {}, 1, "7 images to train on, fewer than a batch of 8"),
            (20, {"accumulate": 3}, 1, "a batch of 8 images cannot be shared .* multiple of 3"),
            (20, {"accumulate": 2}, 3, "by 3 processes in 2 parts each; give a multiple of 6"),
        ],
    )
    def test_refused(self, images: int, change: dict[str, Any], count: int, says: str) -> None:
        with pytest.raises(InputError, match=says):
            Course(images, replace(SETTINGS, **change), 0, count)
