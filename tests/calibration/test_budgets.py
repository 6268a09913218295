"""Budgets of static files: stated, measured, and what does not go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ltmp_cli.main import app
from numpy.typing import NDArray
from typer.testing import CliRunner

from ltmp_export import bench, check, evaluate, export, inspect
from ltmp_export.calibration import budgets
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.images import inputs
from ltmp_export.model_file.model import read_exported
from ltmp_export.statements import wishes
from ltmp_export.timing.settings import Settings
from tests.conftest import DIGITS_LTMP

Digits = Callable[[str], Checkpoint]
Golden = Mapping[str, NDArray[Any]]


@pytest.fixture
def pictures(tmp_path: Path, golden: Golden) -> Path:
    """The golden images as a user has them."""
    images = np.repeat(golden["images"], 3, axis=1)
    np.savez(tmp_path / "i.npz", images=images, labels=golden["labels"])
    return tmp_path / "i.npz"


def test_stated(digits: Digits) -> None:
    vit = digits("ltmp").vit
    assert budgets.stated("65,60,60,30,20,3", vit) == budgets.Budget((65, 60, 60, 30, 20, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a number of tokens for each block, like 160,150,…, or auto:p99"),
        ("x", "expected a number of tokens"),
        ("60;50", "expected a number of tokens"),
        ("60,50", "2 numbers, but the model has 6 blocks"),
        ("66,60,50,40,30,20", r"from at most 65 \(the class token included\)"),
        ("60,50,51,40,30,20", "numbers that do not rise"),
        ("60,50,40,30,20,2", "down to at least 3"),
        ("9,9,9,9,9,-9", "down to at least 3"),
    ],
)
def test_no_budget(digits: Digits, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        budgets.stated(text, digits("ltmp").vit)


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        ({"prefix": 0, "pool": "avg"}, r"64 \(64 patches, no class token\)"),
        ({"prefix": 1, "registers": 1, "pool": "avg"}, r"65 \(64 patches and 1 before them\)"),
        ({"prefix": 5, "registers": 4}, r"69 \(64 patches and 5 before them\)"),
    ],
)
def test_no_budget_says_which_tokens_there_are(
    digits: Digits, tokens: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        budgets.stated("70,60,50,40,30,20", replace(digits("ltmp").vit, **tokens))


@pytest.mark.parametrize(
    ("text", "share"), [("auto:p99", 0.99), ("auto:p99.5", 0.995), ("auto:max", 1.0)]
)
def test_quantile(text: str, share: float) -> None:
    assert wishes.is_automatic(text)
    assert wishes.quantile(text) == pytest.approx(share)


@pytest.mark.parametrize(
    "text", ["auto:", "auto:99", "auto:p", "auto:p0", "auto:p101", "auto:pnan"]
)
def test_no_quantile(text: str) -> None:
    with pytest.raises(InputError, match=r"expected auto:p99, auto:p99.5, … or auto:max"):
        wishes.quantile(text)


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_measured(digits: Digits, golden: Golden, share: float) -> None:
    checkpoint, counts = digits("ltp"), golden["ltp_counts"]
    images = inputs.load_images(None, checkpoint.vit, checkpoint.preprocessing)
    found = budgets.measured(checkpoint, images, share, 17)
    keep = np.array(found.keep)
    assert ((counts <= keep).mean(0) >= share).all()
    assert ((counts < keep).mean(0) < share).all()  # one token less would hold fewer
    assert (found.images, found.fitting) == (48, (counts <= keep).all(1).sum())


def test_a_measured_budget_is_never_below_what_matching_needs(digits: Digits) -> None:
    checkpoint = digits("ltp")
    grey = inputs.load_images(None, checkpoint.vit, checkpoint.preprocessing, 1)
    assert min(budgets.measured(checkpoint, grey, 1.0, 17).keep) >= 3


def test_export_and_what_comes_after(tmp_path: Path, pictures: Path) -> None:
    """The file says its budget, and check, bench, inspect and eval go by it."""
    output = tmp_path / "m.onnx"
    made = export(DIGITS_LTMP, output, mode="static", keep_tokens="auto:p75", images=pictures)
    assert made.budget is not None
    assert made.mode == "static"
    assert made.tokens is None
    assert made.budget.images == 48
    assert 0 < made.budget.fitting < 48
    assert made.to_json()["budget"]["keep"] == made.budget.keep
    assert read_exported(output).plan.keep == made.budget.keep

    report = check(output, DIGITS_LTMP, images=pictures, samples=48, batch_sizes=[5])
    assert report.verdict == "equal"
    assert report.fitting() == (made.budget.fitting, 48)
    assert report.warnings == ()

    facts = inspect(output)
    assert facts["keep_tokens"] == made.budget.keep
    assert facts["macs_share"] == made.macs_share
    found = evaluate(output, pictures)
    assert found.mac_ratio == pytest.approx(made.macs_share)
    timed = bench(output, samples=3, settings=Settings(iterations=1, warmup=1))
    assert timed.gmacs / timed.dense_gmacs == pytest.approx(made.macs_share)
    assert len(set(timed.image_gmacs)) == 1


def test_a_budget_that_the_graph_does_not_have_fails(tmp_path: Path, digits: Digits) -> None:
    """Metadata that claim more room than the graph has."""
    import onnx

    output = tmp_path / "m.onnx"
    export(DIGITS_LTMP, output, mode="static", keep_tokens="40,30,20,15,12,9", check=False)
    model = onnx.load(output)
    entry = next(e for e in model.metadata_props if e.key == "ltmp.plan")
    assert '"keep": 40' in entry.value
    entry.value = entry.value.replace('"keep": 40', '"keep": 41')
    onnx.save(model, output)
    found = check(output, DIGITS_LTMP, samples=4, batch_sizes=[1])
    assert found.verdict == "fail"
    assert "there is room for 40 tokens, not for 41" in found.comparisons[0].reason


CONTRADICTIONS = {
    "a budget alone": (["--keep-tokens", "9,9,9,9,9,9"], "is about --mode static; give that, too"),
    "static alone": (["--mode", "static"], "state the most that each block may keep"),
    "no pictures": (["--mode", "static", "--keep-tokens", "auto:p9"], "give pictures to measure"),
    "pictures for nothing": (["--images", "i.npz"], "are about --keep-tokens auto:p99"),
    "samples for nothing": (
        ["--mode", "static", "--keep-tokens", "9,9,9,9,9,9", "--samples", "3"],
        "are about --keep-tokens auto:p99",
    ),
    "a budget for ToMe": (
        ["--family", "m", "--r", "8", "--mode", "static", "--keep-tokens", "9,9,9,9,9,9"],
        "its graph is static without --keep-tokens",
    ),
    "ToMe, dynamic": (["--family", "m", "--r", "8", "--mode", "dynamic"], "has no dynamic form"),
}


@pytest.mark.parametrize(("flags", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_what_does_not_go_together(tmp_path: Path, flags: list[str], message: str) -> None:
    arguments = ["export", str(DIGITS_LTMP), "-o", str(tmp_path / "m.onnx"), *flags]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_static_is_what_fixed_rates_are(tmp_path: Path) -> None:
    flags = ["--family", "m", "--r", "8", "--mode", "static", "-o", str(tmp_path / "m.onnx")]
    assert CliRunner().invoke(app, ["export", str(DIGITS_LTMP), *flags]).exit_code == 0


def test_masked_is_about_thresholds(tmp_path: Path, digits: Digits) -> None:
    export(digits("m"), tmp_path / "m.onnx", check=False)
    with pytest.raises(InputError, match="family m has no masked form"):
        check(tmp_path / "m.onnx", digits("m"), masked=True)
