"""Opsets are refused before any work where onnxruntime lacks what a file would hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from ltmp_export import bench, export, families, load_checkpoint
from ltmp_export.backbones.vit import lower
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.commands import export as export_command
from ltmp_export.errors import ExportError, InputError
from ltmp_export.model_file.model import to_onnx
from ltmp_export.precision.formats import DYNAMIC, FP16, FP32, INT8, Precision
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.opsets import Form
from tests.conftest import DIGITS_LTMP
from tests.makers import random_vits
from tests.makers.lower_precision import kinds, unmeasured, written

Digits = Callable[[str], Checkpoint]
Lacking = Callable[[str], None]
KEEP = (50, 40, 30, 25, 20, 18)
GAP = 20  # from here on the onnxruntime of these tests lacks an operator
OPTIONS = {case.name: case for case in random_vits.OPTIONS}
PRECISIONS = {
    "fp32": Precision(),
    "fp16": Precision(FP16),
    "fp16 io": Precision(FP16, io=FP16, protected=False),
    "static": unmeasured(),
    "dynamic": unmeasured(DYNAMIC),
    "unprotected": unmeasured(protected=False),
}


def form_of(precision: Precision) -> Form:
    return Form(precision.kind, precision.io, precision.scales, precision.protected)


def forget() -> None:
    for cached in (opsets.newest, opsets.missing):
        cached.cache_clear()


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lacking]:
    """Make onnxruntime lack an operator from opset `GAP` on."""

    def lack(operator: str) -> None:
        def load(model: onnx.ModelProto, **_: Any) -> None:
            if model.opset_import[0].version >= GAP and kinds(model)[operator]:
                raise ExportError(
                    "onnxruntime does not load the model: [ONNXRuntimeError] : 9 : NOT_IMPLEMENTED "
                    f": Could not find an implementation for {operator}({GAP}) node with name 'x'"
                )

        monkeypatch.setattr(opsets, "Session", load)

    forget()
    yield lack
    forget()


@pytest.mark.parametrize("opset", [16, 17, 20])
@pytest.mark.parametrize("name", PRECISIONS)
def test_what_is_tried_holds_every_operator_of_a_file(
    digits: Digits, name: str, opset: int
) -> None:
    precision = PRECISIONS[name]
    tried = set().union(*map(kinds, opsets._models(form_of(precision), opset)))
    every = opset == 17 and name in ("static", "fp16")
    for family in families.names() if every else ("ltmp", "patchmerger"):
        checkpoint = digits(family)
        plans = [checkpoint.plan]
        if family in families.learned():
            plans.append(checkpoint.plan.within(KEEP))
        for plan, batch_size in itertools.product(plans, (None, 1)):
            held = kinds(written(checkpoint, plan, precision, opset, batch_size))
            assert held.keys() <= tried


@pytest.mark.parametrize("name", ["all_options", "no_biases", "avg", "patch_norm", "quick_gelu"])
@pytest.mark.parametrize("opset", [16, 20])
def test_it_holds_those_of_odd_models(name: str, opset: int) -> None:
    model, geometry = random_vits.build(OPTIONS[name])
    images = random_vits.images(geometry, OPTIONS[name].seed, 2)
    plan = random_vits.middle_plan(model, images, "ltmp", OPTIONS[name].seed)
    tried = set().union(*map(kinds, opsets._models(Form(activation=geometry.activation), opset)))
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    assert kinds(lower.lower(geometry, plan, weights, opset=opset)).keys() <= tried


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"])
def test_every_activation_runs_from_the_oldest_to_the_newest(activation: str) -> None:
    form = Form(activation=activation)
    assert opsets.missing(form, 16) == opsets.missing(form, opsets.newest(form)) == ""


@pytest.mark.parametrize("name", PRECISIONS)
def test_the_newest_of_each_precision_runs(name: str) -> None:
    newest = opsets.newest(form_of(PRECISIONS[name]))
    assert 16 < newest <= opsets.newest_opset()
    opsets.require(newest, PRECISIONS[name])
    with pytest.raises(InputError, match=rf"opset {newest + 1} is not .*from 16 to {newest}\b"):
        opsets.require(newest + 1, PRECISIONS[name])


@pytest.mark.parametrize("operator", ["QuantizeLinear", "DequantizeLinear", "MatMulInteger"])
def test_an_operator_without_a_kernel(lacking: Lacking, operator: str) -> None:
    lacking(operator)
    opsets.require(GAP)
    opsets.require(GAP, Precision(FP16))
    opsets.require(GAP - 1, Precision(INT8))
    with pytest.raises(InputError) as caught:
        opsets.require(GAP, Precision(INT8))
    told = str(caught.value)
    assert told.startswith(f"opset {GAP} is not supported in int8: the installed onnxruntime ")
    assert told.endswith(
        f"has no kernel for {operator} there; choose from 16 to {GAP - 1} with --opset"
    )


@pytest.mark.parametrize(
    ("operator", "precision"),
    [
        ("LayerNormalization", Precision()),
        ("Gelu", Precision()),
        ("Softmax", Precision()),
        ("Compress", Precision()),
        ("GatherND", Precision()),
        ("Flatten", Precision(FP16)),
        ("DynamicQuantizeLinear", Precision(INT8, scales=DYNAMIC)),
    ],
)
def test_of_any_precision(lacking: Lacking, operator: str, precision: Precision) -> None:
    lacking(operator)
    message = rf"in {precision.kind}: .* no kernel for {operator} there; choose from 16 to 19 "
    with pytest.raises(InputError, match=message):
        opsets.require(GAP, precision)


def test_another_failure_is_told_in_one_line(
    lacking: Lacking, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking("")

    def fail(model: onnx.ModelProto, **_: Any) -> None:
        if model.opset_import[0].version == GAP:
            raise ExportError("onnxruntime does not load the model: broken\nin two lines")

    monkeypatch.setattr(opsets, "Session", fail)
    with pytest.raises(InputError) as caught:
        opsets.require(GAP)
    told = str(caught.value)
    assert "does not run such files there (onnxruntime does not load the model: broken); ch" in told


def test_export_refuses_before_it_reads(
    lacking: Lacking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking("QuantizeLinear")
    monkeypatch.setattr(export_command, "loaded", None)
    with pytest.raises(InputError, match="no kernel for QuantizeLinear there"):
        export(DIGITS_LTMP, tmp_path / "m.onnx", opset=GAP, precision=Precision(INT8))


def test_bench_of_precisions_refuses_before_it_reads(
    lacking: Lacking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(to_onnx(load_checkpoint(DIGITS_LTMP), opset=GAP), path)
    forget()
    lacking("QuantizeLinear")
    monkeypatch.setattr("ltmp_export.commands.bench._origin", None)
    with pytest.raises(InputError) as caught:
        bench(path, precisions=DIGITS_LTMP)
    told = str(caught.value)
    assert told.startswith(f"--precisions writes all of them at the opset of {path}, but opset 20 ")
    assert "has no kernel for QuantizeLinear there; choose from 16 to 19 with --opset" in told
    assert told.endswith("and export that file again")


def test_fp32_needs_no_kernel_of_int8(lacking: Lacking) -> None:
    lacking("QuantizeLinear")
    assert opsets.newest(Form(FP32)) == opsets.newest_opset()
    assert opsets.newest(Form(INT8)) == GAP - 1
