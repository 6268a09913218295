"""When a change is a regression, on made-up reports; and which reports cannot be compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltmp_export.errors import InputError
from ltmp_export.timing import regression
from ltmp_export.timing.contenders import DENSE, REDUCED
from ltmp_export.timing.settings import Settings
from tests.makers.benched import ENVIRONMENT, made_report, steady

OLD = steady(5.0, 8.0)


def noisy(model: float, dense: float, share: float, rounds: int = 10) -> dict[Any, Any]:
    """Rounds in which the model alone is slower or faster by a share, in turn."""
    samples = steady(model, dense, rounds)
    for number, row in enumerate(samples[REDUCED, 1]):
        samples[REDUCED, 1][number] = [x * (1 + share * (-1) ** number) for x in row]
    return samples


def without_dense(samples: dict[Any, Any]) -> dict[Any, Any]:
    return {key: rounds for key, rounds in samples.items() if key[0] != DENSE}


CHANGES: dict[str, tuple[dict[Any, Any], str]] = {
    "the same": (OLD, "same"),
    "a little slower": (steady(5.2, 8.0), "same"),
    "slower": (steady(5.5, 8.0), "slower"),
    "faster": (steady(4.5, 8.0), "faster"),
    "a slower machine": (steady(10.0, 16.0), "same"),
    "slower on a faster machine": (steady(4.8, 6.0), "slower"),
    "slower, perhaps": (noisy(5.5, 8.0, share=0.3), "within noise"),
    "slower beyond noise": (noisy(12.0, 8.0, share=0.3), "slower"),
}


@pytest.mark.parametrize(("samples", "verdict"), CHANGES.values(), ids=CHANGES.keys())
def test_verdict(samples: dict[Any, Any], verdict: str) -> None:
    (change,) = regression.compare(made_report(OLD).to_json(), made_report(samples), 0.05)
    assert change.verdict == verdict, change
    assert change.measure == "time / dense time"


def test_one_disturbed_round_changes_nothing() -> None:
    samples = steady(5.0, 8.0)
    samples[REDUCED, 1][2] = [50.0] * 3
    (change,) = regression.compare(made_report(OLD).to_json(), made_report(samples), 0.05)
    assert change.verdict == "same"


def test_times_are_compared_without_a_dense_baseline() -> None:
    old = made_report(without_dense(OLD)).to_json()
    new = made_report(without_dense(steady(6.0, 1.0)))
    (change,) = regression.compare(old, new, 0.05)
    assert (change.measure, change.verdict) == ("ms per image", "slower")
    assert change.change == pytest.approx(0.2, abs=1e-6)


def test_noise_falls_with_rounds() -> None:
    few, many = (noisy(5.0, 8.0, 0.1, rounds) for rounds in (12, 192))
    found = [
        regression.compare(made_report(s).to_json(), made_report(s), 0)[0] for s in (few, many)
    ]
    assert found[0].noise == pytest.approx(4 * found[1].noise, rel=0.1)


OTHER_CPU = replace(ENVIRONMENT, processor="Another CPU")
INCOMPARABLE: dict[str, tuple[dict[str, Any], str]] = {
    "threads": ({"threads": 1}, "threads 1 then, 2 now"),
    "images": ({"images_sha256": "1", "images": "photos"}, "images photos then, made up now"),
    "content": ({"images_sha256": "1"}, "images of other content now"),
    "outputs": (
        {"outputs": ("logits", "dense")},
        "outputs logits,dense then, logits now",
    ),
    "provider": (
        {"provider": "CUDAExecutionProvider"},
        "provider CUDAExecutionProvider then, CPUEx",
    ),
}


@pytest.mark.parametrize(("then", "message"), INCOMPARABLE.values(), ids=INCOMPARABLE.keys())
def test_incomparable(then: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        regression.compare(made_report(OLD, **then).to_json(), made_report(OLD), 0.05)


def test_another_machine_needs_the_dense_baseline() -> None:
    old = made_report(OLD, environment=OTHER_CPU).to_json()
    assert regression.compare(old, made_report(OLD), 0.05)[0].verdict == "same"
    old = made_report(without_dense(OLD), environment=OTHER_CPU).to_json()
    with pytest.raises(InputError, match="Another CPU then, A CPU now"):
        regression.compare(old, made_report(without_dense(OLD)), 0.05)


def test_other_batches_and_too_few_rounds() -> None:
    eight = {(model, 8): [[1.0]] * 10 for model in (REDUCED, DENSE)}
    with pytest.raises(InputError, match="the earlier one has no batch of 8 images"):
        regression.compare(made_report(OLD).to_json(), made_report(OLD | eight), 0.05)
    short = made_report(steady(5.0, 8.0, rounds=9))
    with pytest.raises(InputError, match="9 rounds do not tell noise; time at least 10"):
        regression.compare(short.to_json(), made_report(OLD), 0.05)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no JSON", "is not JSON"),
        ("[]", "has kind None, schema_version None"),
        ('{"kind": "check", "schema_version": 2}', "has kind check"),
        ('{"kind": "bench", "schema_version": 1}', "schema_version 1; expected bench, 2 or 3 or 4"),
    ],
)
def test_unreadable(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "old.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        regression.read(path, Settings())


def test_a_report_of_the_version_before_is_compared(tmp_path: Path) -> None:
    """It says nothing of sizes and precisions, which are not compared."""
    document = made_report(OLD).to_json() | {"schema_version": 2}
    del document["precision"]
    for entry in document["entries"]:
        del entry["bytes"], entry["accuracy"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document))
    (change,) = regression.compare(regression.read(path, Settings()), made_report(OLD), 0.05)
    assert change.verdict == "same"


def test_what_cannot_be_compared_is_told_before_the_measurement(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(made_report(OLD).to_json()))
    for settings, message in (
        (Settings(iterations=9), "9 rounds do not tell noise"),
        (Settings(batch_sizes=(1, 8)), "the earlier one has no batch of 8 images"),
        (Settings(threads="auto"), "threads auto beside an earlier report of 2: give that number"),
    ):
        with pytest.raises(InputError, match=message):
            regression.read(path, settings)


@pytest.mark.parametrize("broken", [float("nan"), 0.0, -1.0, float("inf")])
@pytest.mark.parametrize("model", [REDUCED, DENSE])
def test_times_that_are_none(tmp_path: Path, model: str, broken: float) -> None:
    samples = steady(5.0, 8.0)
    samples[model, 1][3] = [8.0, broken, 8.0]
    document = made_report(OLD).to_json()
    next(t for t in document["timings"] if t["model"] == model)["samples"] = samples[model, 1]
    with pytest.raises(InputError, match="a time at batch 1 is no positive number"):
        regression.compare(document, made_report(OLD), 0.05)


def test_damaged(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    document = json.loads(json.dumps(made_report(OLD).to_json()))
    path.write_text(json.dumps(document))
    assert (
        regression.compare(regression.read(path, Settings()), made_report(OLD), 0.05)[0].change == 0
    )
    for change in ({"timings": None}, {"timings": [{"model": "reduced", "batch_size": 1}]}):
        with pytest.raises(InputError, match="the earlier report is damaged"):
            regression.compare(document | change, made_report(OLD), 0.05)


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("0%", 0.0), ("2.5%", 0.025)])
def test_percentage(text: str, value: float) -> None:
    assert regression.percentage("--max-regression", text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["5", "0.05", "x%", "%", "-1%", "nan%", "inf%"])
def test_not_a_percentage(text: str) -> None:
    with pytest.raises(InputError, match="expected a percentage with its sign, like 5%"):
        regression.percentage("--max-regression", text)


def test_verdicts_do_not_hide_nan() -> None:
    samples = steady(5.0, 8.0)
    samples[REDUCED, 1] = [[float(np.nan)] * 3] * 5
    old = made_report(samples).to_json()
    with pytest.raises(InputError, match="damaged"):
        regression.compare(old, made_report(OLD), 0.05)
