"""What `inspect` tells of the precision of an exported file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from rich.console import Console

from ltmp_export import inspect, reports
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs
from ltmp_export.model_file import model
from ltmp_export.precision.formats import DYNAMIC, FP16, INT8, Activation, Precision

Digits = Callable[[str], Checkpoint]


@pytest.fixture
def facts(digits: Digits, tmp_path: Path) -> Callable[[Precision], dict[str, Any]]:
    """What is found of the ltmp digits model in a precision."""

    def facts(asked: Precision) -> dict[str, Any]:
        checkpoint, path = digits("ltmp"), tmp_path / "model.onnx"
        if asked.kind == INT8:
            images = inputs.embedded_digits().select(4)
            checkpoint, asked = quantise.prepare(checkpoint, images, asked)
        onnx.save(model.to_onnx(checkpoint, opset=17, precision=asked), path)
        found = inspect(path)
        assert found["precision"] == json.loads(json.dumps(asked.to_json()))
        return found

    return facts


def shown(facts: dict[str, Any]) -> list[str]:
    """The lines of the summary."""
    console = Console(width=120)
    with console.capture() as capture:
        console.print(reports.inspect_summary(facts))
    return [line.rstrip() for line in capture.get().splitlines()]


def cell(given: dict[str, Any]) -> str:
    fine = " 16b" if given["terms"] > 1 else ""
    return f"{given['scale']:.3g} @{given['zero_point']}{fine}"


def test_int8(facts: Callable[[Precision], dict[str, Any]]) -> None:
    """A row for each block, with every layer's scale and zero point, and one for the head."""
    found = facts(Precision(INT8))
    lines, layers = shown(found), found["precision"]["layers"]
    assert len(layers) == 25
    text = "\n".join(lines)
    assert "int8, 25 linear layers, 4 of them with 16-bit inputs, static scales" in text
    assert "decisions protected" in text
    assert any(line.split() == ["depends", "on", "the", "batch", "no"] for line in lines)
    assert any(line.startswith("calibrated on") and "4 images" in line for line in lines)
    assert "weights int8, symmetric, a scale per output" in lines
    leaves = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
    start = next(i for i, line in enumerate(lines) if line.split() == ["block", *leaves])
    for block, line in enumerate(lines[start + 1 : start + 7]):
        cells = [cell(layers[f"blocks.{block}.{leaf}"]) for leaf in leaves]
        assert " ".join(line.split()) == " ".join([str(block), *cells])
        assert line.count("16b") == (3 if block == 0 else 0)
    assert lines[start + 7] == f"head: {cell(layers['head'])}"


def test_int8_protected_where_measured_to_matter(
    facts: Callable[[Precision], dict[str, Any]],
) -> None:
    """What each candidate's protection is worth, and whether it has it."""
    found = facts(Precision(INT8, auto=True))
    text = " ".join("\n".join(shown(found)).split())
    precision = found["precision"]
    names = ["similarity", *(f"blocks.0.{leaf}" for leaf in ("attn.proj", "mlp.fc1", "mlp.fc2"))]
    assert list(precision["changed_without"]) == names
    for name, effect in precision["changed_without"].items():
        layer = precision["layers"].get(name)
        has = precision["protected_decisions"] if layer is None else layer["terms"] == 2
        assert f"{name} {effect:+.0%} ({'protected' if has else 'left out'})" in text
    assert "decisions changed without similarity" in text
    assert "decisions protected where measured to matter" in text


def test_int8_with_scales_of_each_batch(facts: Callable[[Precision], dict[str, Any]]) -> None:
    found = facts(Precision(INT8, protected=False, scales=DYNAMIC))
    assert not found["precision"]["batch_invariant"]
    text = "\n".join(shown(found))
    assert "dynamic scales, decisions not protected" in text
    assert "yes: scales are measured on the batch" in text
    assert text.count("by batch") == 25


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (Precision(), "fp32"),
        (Precision(FP16), "fp16, images and outputs fp32, decisions protected"),
        (Precision(FP16, False, FP16), "fp16, images and outputs fp16, decisions not protected"),
    ],
)
def test_floats(facts: Callable[[Precision], dict[str, Any]], asked: Precision, line: str) -> None:
    found = facts(asked)
    (row,) = [row for row in shown(found) if row.startswith("precision")]
    assert row.removeprefix("precision").strip() == line
    assert found["inputs"][0]["type"] == ("float16" if asked.io == FP16 else "float")
    assert "linear layers" not in "\n".join(shown(found))


def test_layers_of_any_name(facts: Callable[[Precision], dict[str, Any]]) -> None:
    """Metadata that were edited name layers that are none; they are shown as they stand."""
    found = facts(Precision())
    layers = {"blocks.7": Activation(0.5), "blocks.": Activation(0.75), "": Activation(0.25, 3, 2)}
    found["precision"] = Precision(INT8, layers=layers).to_json()
    lines = shown(found)
    assert lines[-1] == ": 0.25 @3 16b"
    assert any(line.split() == ["calibrated", "on", "not", "stated"] for line in lines)
