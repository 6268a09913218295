"""Thresholds without training: the search, the shares, the quantiles, the shift, and the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export import export, families
from ltmp_export.calibration import quantiles
from ltmp_export.calibration.measure import dense_classes, measure
from ltmp_export.calibration.quantiles import SCHEDULES, Shares
from ltmp_export.calibration.search import TRIALS, Trial, search
from ltmp_export.calibration.shift import shifted
from ltmp_export.calibration.targets import Bench, Maker, Spread
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.commands.calibrate import CalibrateReport, calibrate
from ltmp_export.errors import InputError
from ltmp_export.files import memory
from ltmp_export.images import inputs, sets
from ltmp_export.images.labelled import Labelled
from ltmp_export.images.sets import Kind
from ltmp_export.plan.work import dense_macs, executed_share, macs
from ltmp_export.reference import Reference
from ltmp_export.statements.choices import Choices
from ltmp_export.training.forms import ALIGNED
from ltmp_export.training.model import MaskedVit
from tests.conftest import DIGITS_LTMP, load_torch
from tests.makers import digits

CHOICES = Choices(num_heads=2, mean=(0.5,) * 3, std=(0.5,) * 3)
EMBEDDED = inputs.fixture("digits_images.npz")
FAMILIES = families.learned()
ON_TARGET = 0.005  # of the target, as calibration promises


@pytest.fixture(scope="module")
def digits_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images, labels = (part[digits.TRAINED :] for part in digits.arrays())
    path = tmp_path_factory.mktemp("calibration") / "digits.npz"
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture(scope="module")
def dense(digits_base: Path) -> Checkpoint:
    return load_checkpoint(digits_base, CHOICES, dense=True)


def halves(source: Checkpoint, images: Path, samples: int, seed: int = 0) -> tuple[Labelled, ...]:
    """The images whose scores count, and those measured on."""
    chosen = sets.held_out(images, Kind.of(source)).select(samples)
    return sets.halves(chosen, seed)


def reference_ratio(made: Checkpoint, images: Labelled) -> float:
    """Mean share of the dense multiply-accumulates, counted by the eager reference."""
    reference = Reference(made.model, made.plan)
    work = [macs(made.vit, reference.run(images[i]).counts) for i in range(len(images))]
    return sum(work) / len(work) / dense_macs(made.vit)


def test_the_digits_are_those_the_package_ships(golden: dict[str, NDArray[Any]]) -> None:
    images, labels = (part[digits.TRAINED :] for part in digits.arrays())
    assert len(images) == 360
    np.testing.assert_array_equal(labels[:48], golden["labels"])
    np.testing.assert_allclose(images[:48], golden["images"], atol=1e-6)


# search

FALLING: dict[str, Callable[[float], float]] = {
    "line": lambda at: 1 - at,
    "square": lambda at: (1 - at) ** 2,
    "steep at the start": lambda at: math.exp(-20 * at),
    "steep at the end": lambda at: 1 - at**20,
    "stairs": lambda at: 1 - math.floor(at * 400) / 400,
    "wavy": lambda at: 1 - at + 0.05 * math.sin(40 * at) * at * (1 - at),
}


@pytest.mark.parametrize("target", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("ratio", FALLING.values(), ids=FALLING.keys())
def test_search_converges(ratio: Callable[[float], float], target: float) -> None:
    tried: list[float] = []

    def attempt(at: float) -> Trial[str]:
        tried.append(at)
        return Trial(at, ratio(at), f"made with {at}")

    found = search(attempt, 0.0, 1.0, target, 0.003)
    assert abs(found.ratio - target) <= 0.003
    assert found == Trial(found.at, ratio(found.at), f"made with {found.at}")
    assert len(tried) <= TRIALS
    assert all(0.0 <= at <= 1.0 for at in tried)


@pytest.mark.parametrize(("target", "end"), [(0.1, 1.0), (0.95, 0.0)])
def test_search_of_what_cannot_be_reached_gives_the_nearer_end(target: float, end: float) -> None:
    tried: list[float] = []

    def attempt(at: float) -> Trial[None]:
        tried.append(at)
        return Trial(at, 0.9 - 0.6 * at, None)

    assert search(attempt, 0.0, 1.0, target, 1e-3).at == end
    assert tried == [0.0, 1.0]  # nothing between them would help


def test_search_stops_at_an_end_that_will_do() -> None:
    tried: list[float] = []

    def attempt(at: float) -> Trial[None]:
        tried.append(at)
        return Trial(at, 1 - at, None)

    assert search(attempt, 0.0, 1.0, 0.999, 0.01).at == 0.0
    assert len(tried) == 2


def test_search_keeps_the_best_it_saw() -> None:
    """No setting is within the tolerance: the work jumps over the target."""
    ratios: list[float] = []

    def attempt(at: float) -> Trial[None]:
        ratio = 0.8 - 0.1 * at if at < 0.37 else 0.2 - 0.1 * at + 0.05 * math.sin(100 * at)
        ratios.append(ratio)
        return Trial(at, ratio, None)

    found = search(attempt, 0.0, 1.0, 0.5, 1e-3)
    assert abs(found.ratio - 0.5) == min(abs(ratio - 0.5) for ratio in ratios)
    assert len(ratios) == TRIALS


@pytest.mark.parametrize("curve", FALLING.values(), ids=list(FALLING))
@pytest.mark.parametrize("start", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("target", [0.9, 0.5, 0.1])
def test_search_from_a_start(curve: Callable[[float], float], start: float, target: float) -> None:
    """Near it few trials are needed; far from it the target is found all the same."""
    seen: list[float] = []

    def attempt(at: float) -> Trial[None]:
        seen.append(at)
        return Trial(at, curve(at), None)

    found = search(attempt, 0.0, 1.0, target, 0.003, start)
    assert abs(found.ratio - target) <= 0.003
    assert all(0.0 <= at <= 1.0 for at in seen)
    again = len(seen)
    search(attempt, 0.0, 1.0, target, 0.003, found.at)
    assert len(seen) - again == 1


def test_search_from_a_start_for_what_is_out_of_reach() -> None:
    for target, end in ((2.0, 0.0), (-1.0, 1.0)):
        found = search(lambda at: Trial(at, 1 - at, None), 0.0, 1.0, target, 1e-3, 0.4)
        assert found.at == end


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", [0.9, 0.5, 0.2])
def test_expected_intensity_is_near_the_found_one(
    dense: Checkpoint, digits_npz: Path, schedule: str, target: float
) -> None:
    """By the formula alone, without any image, the work comes near the target."""
    scored, held_out = halves(dense, digits_npz, 64)
    shares = Shares(0.7, schedule)
    at = quantiles.expected(dense.vit, shares, target)
    thresholds = find(dense, "ltmp", list(scored.batches(16)), shares, at)
    measured = measure(masked(dense, "ltmp", thresholds), dense.vit, held_out)
    assert measured.mac_ratio == pytest.approx(target, rel=0.1)


def test_search_of_a_curve_that_turns_back() -> None:
    def ratio(at: float) -> float:
        return 1 - at + 0.3 * math.sin(4 * math.pi * at)

    found = search(lambda at: Trial(at, ratio(at), None), 0.0, 1.0, 0.6, 1e-3)
    assert abs(found.ratio - 0.6) <= 1e-3


# shares


@pytest.mark.parametrize("depth", [1, 6, 12])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_shares_of_blocks(schedule: str, depth: int) -> None:
    """Whatever the schedule, shares compound to those of the even one."""
    spread = Shares(0.7, schedule)
    for intensity in (0.0, 0.1, 0.5, 0.995):
        shares = [spread.of_block(block, depth, intensity) for block in range(depth)]
        assert all(0.0 <= share < 1.0 for share in shares)
        left = math.prod(1 - share for share in shares)
        assert left == pytest.approx((1 - intensity) ** depth, rel=1e-9)
        falling = {"even": 0, "early": 1, "late": -1}[schedule]
        steps = np.sign(np.round(-np.diff(shares), 9)) if intensity == 0.5 else falling
        assert np.all(steps == falling)


@pytest.mark.parametrize("merge", [0.0, 0.3, 1.0])
def test_shares_of_steps(merge: float) -> None:
    spread = Shares(merge, "even")
    for steps in (("merge", "prune"), ("prune", "merge")):
        assert spread.of_step("merge", steps) == merge
        assert spread.of_step("prune", steps) == pytest.approx(1 - merge)
    assert spread.of_step("merge", ("merge",)) == 1.0
    assert spread.of_step("prune", ("prune",)) == 1.0


# quantiles


def masked(source: Checkpoint, family: str, thresholds: dict[str, list[float]]) -> MaskedVit:
    return MaskedVit(source.model, families.load(family), thresholds, ALIGNED).eval()


def find(
    source: Checkpoint, family: str, batches: Sequence[Tensor], shares: Shares, intensity: float
) -> dict[str, list[float]]:
    flat = {kind: [0.5] * source.vit.depth for kind in families.load(family).scalars}
    model = masked(source, family, flat)
    with torch.inference_mode():
        embedded = [model.embed(batch) for batch in batches]
    return quantiles.thresholds(model, embedded, shares, intensity)


def counts_under(
    source: Checkpoint, family: str, thresholds: dict[str, list[float]], images: Tensor
) -> NDArray[np.int64]:
    """[n, depth] tokens, by the eager reference."""
    reference = Reference(source.model, families.load(family).freeze(thresholds))
    return np.array([reference.run(image).counts for image in images])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("family", FAMILIES)
def test_quantiles_remove_about_the_wanted_shares(
    dense: Checkpoint, digit_images: Tensor, family: str, schedule: str
) -> None:
    shares, images = Shares(0.6, schedule), digit_images[:12]
    found = find(dense, family, [images[:5], images[5:]], shares, 0.15)
    assert set(found) == set(families.load(family).scalars)
    for values in found.values():
        assert len(values) == dense.vit.depth
        assert all(0.0 <= value <= 1.0 for value in values)
        assert values == np.array(values, dtype=np.float32).tolist()
    living = counts_under(dense, family, found, images).sum(0)
    before = np.array([12 * 65, *living[:-1]])
    wanted = [shares.of_block(block, dense.vit.depth, 0.15) for block in range(dense.vit.depth)]
    np.testing.assert_allclose(1 - living / before, wanted, atol=0.015)


@pytest.mark.parametrize("family", FAMILIES)
def test_intensity_0_removes_nothing(dense: Checkpoint, digit_images: Tensor, family: str) -> None:
    found = find(dense, family, [digit_images[:4]], Shares(0.7, "late"), 0.0)
    assert set(found.get("merge", [1.0])) == {1.0}
    assert set(found.get("prune", [0.0])) == {0.0}
    assert (counts_under(dense, family, found, digit_images[:4]) == 65).all()


def test_quantiles_do_not_depend_on_the_batches(dense: Checkpoint, digit_images: Tensor) -> None:
    shares, images = Shares(0.7, "even"), digit_images[:8]
    together = find(dense, "ltmp", [images], shares, 0.1)
    apart = find(dense, "ltmp", [images[:3], images[3:4], images[4:]], shares, 0.1)
    for kind, values in together.items():
        np.testing.assert_allclose(apart[kind], values, rtol=1e-4)


@pytest.mark.parametrize(("merge", "inert", "start"), [(1.0, "prune", 0.0), (0.0, "merge", 1.0)])
def test_one_step_takes_all(
    dense: Checkpoint, digit_images: Tensor, merge: float, inert: str, start: float
) -> None:
    found = find(dense, "ltmp", [digit_images[:8]], Shares(merge, "even"), 0.1)
    assert set(found[inert]) == {start}
    (other,) = set(found) - {inert}
    assert start not in found[other]


# shift

LEARNED = {"merge": [0.99, 0.9, 0.999, 1.0], "prune": [0.01, 0.002, 0.5, 0.0]}


def test_no_shift_changes_nothing() -> None:
    assert shifted(LEARNED, 0.0) == LEARNED


@pytest.mark.parametrize("by", [-12.0, -1.5, -0.01, 0.01, 1.5, 12.0])
def test_shift_keeps_the_order_and_removes_more_above_0(by: float) -> None:
    found = shifted(LEARNED, by)
    for kind, values in LEARNED.items():
        moved = np.array(found[kind])
        np.testing.assert_array_equal(np.argsort(moved), np.argsort(values))
        assert ((moved >= 0) & (moved <= 1)).all()
        up = by > 0 if kind == "prune" else by < 0
        inside = (np.array(values) > 0) & (np.array(values) < 1)
        assert ((moved > values) == up)[inside].all()


def test_a_shift_is_one_factor_of_the_small_and_undone_by_its_opposite() -> None:
    learned = {"merge": [0.999, 0.9], "prune": [0.001, 0.002]}
    found = shifted(learned, math.log(2))
    np.testing.assert_allclose(found["prune"], [0.002, 0.004], rtol=3e-3)
    np.testing.assert_allclose(1 - found["merge"][0], 0.002, rtol=3e-3)
    back = shifted(found, -math.log(2))
    for kind, values in learned.items():
        np.testing.assert_allclose(back[kind], values, rtol=1e-9)


def test_thresholds_at_their_ends_move_inwards_only() -> None:
    """A block that merges and prunes nothing does not begin to when less is to be removed."""
    found = shifted({"merge": [1.0], "prune": [0.0]}, 5.0)
    assert 0.5 < found["merge"][0] < 1
    assert 0 < found["prune"][0] < 0.5
    assert shifted({"merge": [1.0], "prune": [0.0]}, -5.0) == {"merge": [1.0], "prune": [0.0]}
    assert shifted({"merge": [0.0], "prune": [1.0]}, 5.0) == {"merge": [0.0], "prune": [1.0]}


# the whole


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
    assert row.agreement == (classes == dense_classes(dense.model, held_out)).mean()
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


# against chance

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
    bench = Bench(dense, families.load("ltmp"), held_out, 0, lambda words: None)
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
