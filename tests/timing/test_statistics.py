"""What samples say, on made-up ones."""

from __future__ import annotations

import pytest

from ltmp_export.timing.contenders import DENSE, GEMMS, REDUCED
from ltmp_export.timing.statistics import Timing
from tests.makers.benched import made_report, steady


def test_best_is_each_images_fastest_round() -> None:
    timing = Timing("m", 1, 3, ((1.0, 20.0, 30.0), (10.0, 2.0, 30.0), (10.0, 20.0, 3.0)))
    assert timing.per_image == (1.0, 2.0, 3.0)
    assert timing.best == 2.0
    assert timing.images_per_second == 500.0
    assert timing.median == 10.0
    assert timing.quantile(1) == 30.0


def test_images_share_the_time_of_their_batch() -> None:
    timing = Timing("m", 2, 3, ((1.0, 4.0), (2.0, 3.0)))
    assert timing.per_image == (1.0, 1.0, 3.0)


def test_images_that_differ_are_no_noise() -> None:
    timing = Timing("m", 1, 3, ((10.0, 20.0, 30.0),) * 4)
    assert timing.noise == 0
    low, high = timing.image_spread
    assert (low, high) == pytest.approx((-0.4, 0.4))


def test_rounds_that_differ_are_no_spread_of_images() -> None:
    timing = Timing("m", 1, 2, ((9.0, 18.0), (10.0, 20.0), (11.0, 22.0), (10.0, 20.0), (9.0, 22.0)))
    assert timing.noise == pytest.approx(0.1)
    assert timing.image_spread == pytest.approx((-0.1 * 4 / 1.5 / 1.0, 0.2667), abs=1e-3)


def test_one_round_tells_no_noise() -> None:
    assert Timing("m", 1, 2, ((1.0, 2.0),)).noise is None


def test_nothing_is_removed() -> None:
    samples = ((1.0, 2.0), (1000.0, 2.0))
    document = Timing("m", 1, 2, samples).to_json()
    assert document["samples"] == samples
    assert document["p99"] > 900


def test_efficiency_is_the_share_of_the_promise() -> None:
    report = made_report(steady(model=5.0, dense=8.0) | {(GEMMS, 1): [[3.0] * 3] * 5})
    assert report.gmacs == 2.0
    assert report.speedup(1) == pytest.approx(1.6)
    assert report.efficiency(1) == pytest.approx(0.8)  # 1.6 of 4 / 2
    timing = report.timing(REDUCED, 1)
    assert timing is not None
    assert report.gflops(timing) == pytest.approx(2 * 2.0 / 5.0 * 1e3)
    roofline = report.roofline(1)
    assert roofline is not None
    assert roofline.gemm_gflops == pytest.approx(2 * 1.5 / 3.0 * 1e3)


def test_images_that_fill_up_the_last_batch_count_as_often_as_they_run() -> None:
    """A model whose time follows its work has the same efficiency at every batch size."""
    work = (1.0, 2.0, 3.0)
    samples: dict[tuple[str, int], list[list[float]]] = {}
    for size, batches in ((1, ((0,), (1,), (2,))), (2, ((0, 1), (2, 0)))):
        times = [sum(work[i] for i in batch) / size for batch in batches]
        samples |= {(REDUCED, size): [times] * 2, (DENSE, size): [[4.0] * len(times)] * 2}
    report = made_report(samples, image_gmacs=work, dense_gmacs=4.0)
    assert [report.efficiency(size) for size in (1, 2)] == pytest.approx([1.0, 1.0])
    for size in (1, 2):
        timing = report.timing(REDUCED, size)
        assert timing is not None
        assert report.gflops(timing) == pytest.approx(2e3)


def test_a_foreign_baseline_promises_nothing() -> None:
    samples = steady(5.0, 8.0)
    samples["other.onnx", 1] = samples.pop((DENSE, 1))
    report = made_report(samples, baseline="other.onnx")
    assert report.speedup(1) == pytest.approx(1.6)
    assert report.efficiency(1) is None
    timing = report.timing("other.onnx", 1)
    assert timing is not None
    assert report.gflops(timing) is None
    assert report.speedup(8) is None
