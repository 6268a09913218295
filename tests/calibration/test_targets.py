"""Thresholds without training: a target is met, on images held out, better than by chance."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ltmp_export import export
from ltmp_export.calibration.crew import Crew, Subject
from ltmp_export.calibration.measure import dense_answers
from ltmp_export.calibration.shift import shifted
from ltmp_export.calibration.targets import Bench, Maker, Spread
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.commands.calibrate import CalibrateReport, calibrate
from ltmp_export.errors import InputError
from ltmp_export.files import memory
from ltmp_export.images.labelled import Labelled
from ltmp_export.plan.work import dense_macs, executed_share, macs
from ltmp_export.reference import Reference
from ltmp_export.statements.choices import Choices
from tests.conftest import DIGITS_LTMP, load_torch
from tests.makers.calibrated import CHOICES, EMBEDDED, FAMILIES, halves

ON_TARGET = 0.005  # of the target, as calibration promises


def reference_ratio(made: Checkpoint, images: Labelled) -> float:
    """Mean share of the dense multiply-accumulates, counted by the eager reference."""
    reference = Reference(made.model, made.plan)
    work = [macs(made.vit, reference.run(images[i]).counts) for i in range(len(images))]
    return sum(work) / len(work) / dense_macs(made.vit)


def require_met(report: CalibrateReport, made: Checkpoint, held_out: Labelled) -> None:
    """What was promised of the images held out, counted again by the reference."""
    (row,) = report.rows
    assert report.held_out == len(held_out)
    again = reference_ratio(made, held_out)
    assert abs(again - row.target) <= ON_TARGET * row.target
    assert again == pytest.approx(row.mac_ratio, abs=1e-3)


WANTED = {
    "ltm": (0.7, "late"),
    "ltmp": (0.45, "late"),
    "ltp": (0.5, "even"),
    "ltpm": (0.6, "early"),
}


def test_a_target_is_tried_for_every_family() -> None:
    assert tuple(WANTED) == FAMILIES


@pytest.mark.parametrize(("family", "target", "schedule"), [(f, *w) for f, w in WANTED.items()])
def test_targets_are_met_on_images_held_out(
    dense: Checkpoint, tmp_path: Path, family: str, target: float, schedule: str
) -> None:
    output = tmp_path / "c.pth.tar"
    report = calibrate(
        dense.path,
        EMBEDDED,
        [target],
        output,
        spread=Spread(schedule=schedule, seed=3),
        choices=Choices(**vars(CHOICES) | {"family": family}),
    )
    made = load_checkpoint(output)
    scored, held_out = halves(dense, EMBEDDED, 48, seed=3)
    require_met(report, made, held_out)
    (row,) = report.rows
    assert (report.family, made.plan.family) == (family, family)
    assert (report.method, report.calibration) == ("quantiles", len(scored))
    assert made.plan.thresholds() == row.thresholds
    reference = Reference(made.model, made.plan)
    traces = [reference.run(held_out[i]) for i in range(len(held_out))]
    classes = np.array([int(trace.logits.argmax()) for trace in traces])
    counts = np.array([trace.counts for trace in traces])
    np.testing.assert_allclose(row.tokens, counts.mean(0), atol=0.05)
    assert row.accuracy == (classes == held_out.require_labels()).mean()
    assert row.agreement == (classes == dense_answers(dense.model, held_out)).mean()
    assert executed_share(made.vit, made.plan, counts.tolist()) == pytest.approx(
        row.mac_ratio, abs=1e-3
    )


def test_a_calibrated_checkpoint_exports(dense: Checkpoint, tmp_path: Path) -> None:
    output = tmp_path / "c.pth.tar"
    calibrate(dense.path, EMBEDDED, [0.5], output, name="vit_digits", choices=CHOICES)
    content = load_torch(output)
    assert content["arch"] == "ltmp_vit_digits"
    assert content["args"].reduction_target == 0.5
    assert content["ltmp"]["command"] == "calibrate"
    assert content["ltmp"]["source"]["file"] == dense.path.name
    exported = export(output, tmp_path / "c.onnx")
    assert exported.check is not None
    assert exported.check.passed()
    again = tmp_path / "again.pth.tar"
    calibrate(dense.path, EMBEDDED, [0.5], again, name="vit_digits", choices=CHOICES)
    assert again.read_bytes() == output.read_bytes()


@pytest.mark.parametrize("target", [0.3, 0.6, 0.8])
def test_a_fine_tuned_checkpoint_gets_another_target(
    dense: Checkpoint, tmp_path: Path, target: float
) -> None:
    """Its own thresholds move together; as learned, they leave about 45 %."""
    own = load_checkpoint(DIGITS_LTMP).plan.thresholds()
    output = tmp_path / "c.pth.tar"
    report = calibrate(DIGITS_LTMP, EMBEDDED, [target], output)
    assert (report.method, report.calibration, report.family) == ("shift", 0, "ltmp")
    made = load_checkpoint(output)
    require_met(report, made, halves(dense, EMBEDDED, 48)[1])
    for kind, values in made.plan.thresholds().items():
        np.testing.assert_array_equal(np.argsort(values), np.argsort(own[kind]))
        up = (target < 0.45) == (kind == "prune")
        inside = np.array(own[kind]) < 1.0
        assert ((np.array(values) > own[kind]) == up)[inside].all()


def test_a_fine_tuned_checkpoint_by_quantiles(dense: Checkpoint, tmp_path: Path) -> None:
    outputs = tmp_path / "tuned.pth.tar", tmp_path / "dense.pth.tar"
    spread = Spread(method="quantiles")
    report = calibrate(DIGITS_LTMP, EMBEDDED, [0.6], outputs[0], spread=spread)
    assert (report.method, report.calibration) == ("quantiles", 24)
    require_met(report, load_checkpoint(outputs[0]), halves(dense, EMBEDDED, 48)[1])
    alike = calibrate(dense.path, EMBEDDED, [0.6], outputs[1], choices=CHOICES)
    assert report.rows == alike.rows  # the same weights, whatever thresholds they came with


def test_images_without_labels(
    dense: Checkpoint, tmp_path: Path, golden: dict[str, NDArray[Any]]
) -> None:
    np.savez(tmp_path / "a.npz", images=golden["images"])
    bare = calibrate(dense.path, tmp_path / "a.npz", [0.6], choices=CHOICES)
    (row,) = bare.rows
    assert (row.accuracy, bare.dense_accuracy) == (None, None)
    known = calibrate(dense.path, EMBEDDED, [0.6], choices=CHOICES)
    assert known.dense_accuracy == 1.0
    assert row.thresholds == known.rows[0].thresholds  # labels decide nothing


def test_a_sweep_has_a_row_for_each_target(dense: Checkpoint) -> None:
    targets = [0.8, 0.4]
    report = calibrate(dense.path, EMBEDDED, targets, choices=CHOICES)
    assert [row.target for row in report.rows] == targets
    for row in report.rows:
        assert abs(row.mac_ratio - row.target) <= ON_TARGET * row.target
    assert report.output is None


def test_samples_and_seed(dense: Checkpoint) -> None:
    reports = [
        calibrate(
            dense.path, EMBEDDED, [0.6], spread=Spread(samples=20, seed=seed), choices=CHOICES
        )
        for seed in (0, 0, 1)
    ]
    assert [(report.calibration, report.held_out) for report in reports] == [(10, 10)] * 3
    assert reports[0].rows == reports[1].rows
    assert reports[0].rows != reports[2].rows


@pytest.mark.parametrize("family", FAMILIES)
def test_a_target_out_of_reach(dense: Checkpoint, tmp_path: Path, family: str) -> None:
    choices = Choices(**vars(CHOICES) | {"family": family})
    output = tmp_path / "c.pth.tar"
    message = (
        r"^target 0.01 cannot be met on these images: the nearest is 0\.\d+ of the "
        r"multiply-accumulates; ask for that, or give more images"
    )
    with pytest.raises(InputError, match=message):
        calibrate(dense.path, EMBEDDED, [0.01], output, choices=choices)
    assert not output.exists()


@pytest.mark.parametrize("target", [0.0, -0.5, 1.01, 60.0, math.nan, math.inf])
def test_bad_targets(target: float) -> None:
    message = f"a reduction target of {target:g}; expected the share .*, above 0 and at most 1"
    with pytest.raises(InputError, match=message):
        calibrate("nowhere.pth", EMBEDDED, [0.5, target])


def test_one_checkpoint_is_for_one_target() -> None:
    with pytest.raises(InputError, match="2 targets; a checkpoint is written for one"):
        calibrate("nowhere.pth", EMBEDDED, [0.5, 0.6], "c.pth.tar")


BAD_SPREADS: dict[str, tuple[dict[str, Any], str]] = {
    "merge above 1": ({"merge": 1.2}, "split merge=1.2; expected a share from 0 to 1"),
    "merge NaN": ({"merge": math.nan}, "split merge=nan; expected a share"),
    "schedule": ({"schedule": "soon"}, "no schedule 'soon'; choose from even, early, late"),
    "method": ({"method": "guess"}, "no method 'guess'; choose from quantiles, shift"),
    "seed": ({"seed": -1}, "seed -1"),
}


@pytest.mark.parametrize(("values", "message"), BAD_SPREADS.values(), ids=BAD_SPREADS.keys())
def test_bad_spreads(dense: Checkpoint, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibrate(dense.path, EMBEDDED, [0.6], spread=Spread(**values), choices=CHOICES)


def test_a_dense_model_has_nothing_to_shift(dense: Checkpoint) -> None:
    with pytest.raises(InputError, match="no thresholds to shift; take --method quantiles for a"):
        calibrate(dense.path, EMBEDDED, [0.6], spread=Spread(method="shift"), choices=CHOICES)


def test_the_output_is_not_an_input(dense: Checkpoint, tmp_path: Path) -> None:
    before = dense.path.read_bytes()
    for output in (dense.path, EMBEDDED):
        with pytest.raises(InputError, match="is the input .*; choose another output"):
            calibrate(dense.path, EMBEDDED, [0.6], output, choices=CHOICES)
    assert dense.path.read_bytes() == before


# Against chance

SAMPLES = 256  # half of them are measured on
DRAWS = 6
TARGET = 0.3  # enough is removed that it matters what
MARGIN = 0.02  # measured: 0.977 against 0.914 on average


def test_calibrated_thresholds_beat_random_ones(dense: Checkpoint, digits_npz: Path) -> None:
    """At the same work they keep more classes than thresholds at random, on average.

    Random: those of each block are drawn over the range where anything is decided; then all are
    moved together until the work is the target's, on the same images.
    """
    _, held_out = halves(dense, digits_npz, SAMPLES)
    spread = Spread(samples=SAMPLES)
    (row,) = calibrate(dense.path, digits_npz, [TARGET], spread=spread, choices=CHOICES).rows
    bench = Bench(Crew(Subject(dense, "ltmp", held_out, held_out)), lambda words: None)
    agreements = []
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        merge, prune = rng.uniform(0.5, 1.0, 6), rng.uniform(0.0, 0.03, 6)
        drawn = {"merge": merge.tolist(), "prune": prune.tolist()}
        found = bench.meet(TARGET, Maker(partial(shifted, drawn), -12.0, 12.0, lambda target: 0.0))
        assert found.met
        agreements.append(found.agreement)
    assert row.agreement > float(np.mean(agreements)) + MARGIN


def test_more_images_than_fit_into_memory_are_refused(dense: Checkpoint, digits_npz: Path) -> None:
    message = (
        r"the tokens of 80 images \(--samples\) would take .* GiB of memory, more than the limit"
    )
    with memory.memory_limit(0.005), pytest.raises(InputError, match=message):
        calibrate(dense.path, digits_npz, [0.5], spread=Spread(samples=160), choices=CHOICES)
