"""fp32, fp16 and int8 beside each other, and beside the dense model in fp32 and int8."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from torch import Tensor

from ltmp_export import InputError, bench, load_checkpoint
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs
from ltmp_export.model_file.dense import dense_baseline
from ltmp_export.model_file.model import read_exported, to_onnx
from ltmp_export.precision.formats import Precision
from ltmp_export.progress import silent
from ltmp_export.statements.choices import Choices
from ltmp_export.timing import precisions
from ltmp_export.timing.settings import Settings
from tests.conftest import DIGITS_LTMP, FIXTURES

ONCE = Settings(warmup=0, iterations=1)
KEEP = (60, 50, 40, 30, 20, 10)


def written(
    checkpoint: Checkpoint,
    path: Path,
    precision: Precision | None = None,
    batch_size: int | None = None,
) -> Path:
    """The file that an export of this precision writes."""
    if precision is not None and precision.kind == "int8":
        few = inputs.embedded_digits().select(4)
        checkpoint, precision = quantise.prepare(checkpoint, few, precision)
    model = to_onnx(checkpoint, opset=18, batch_size=batch_size, precision=precision)
    onnx.save(model, path)
    return path


def test_all_five_are_timed_and_told(tmp_path: Path) -> None:
    model = written(load_checkpoint(DIGITS_LTMP), tmp_path / "model.onnx")
    twice = Settings(batch_sizes=(1, 2), warmup=0, iterations=2)
    found = bench(model, samples=4, precisions=DIGITS_LTMP, settings=twice)
    labels = ["reduced", "dense", "reduced fp16", "reduced int8", "dense int8"]
    entries = {entry.label: entry for entry in found.entries}
    assert list(entries) == labels
    assert [(t.model, t.batch_size) for t in found.timings] == [
        (label, size) for size in (1, 2) for label in labels
    ]
    assert {entry.reason for entry in found.entries} == {""}
    assert entries["reduced"].accuracy == found.accuracy
    assert entries["dense"].accuracy == found.baseline_accuracy
    assert all(entry.accuracy is not None for entry in found.entries)
    sizes = {label: entry.bytes or 0 for label, entry in entries.items()}
    assert abs(sizes["reduced"] - model.stat().st_size) < 100
    assert sizes["reduced int8"] < 0.45 * sizes["reduced"]
    assert 0.45 < sizes["reduced fp16"] / sizes["reduced"] < 0.6
    assert sizes["dense int8"] < 0.35 * sizes["dense"]
    schema = resources.files("ltmp_export") / "schemas" / "bench.schema.json"
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    jsonschema.validate(document, json.loads(schema.read_text()))
    assert [entry["bytes"] for entry in document["entries"]] == list(sizes.values())


def test_they_give_what_the_file_gives(tmp_path: Path) -> None:
    """Else a file that tells more would be slower for that alone."""
    checkpoint, names = load_checkpoint(DIGITS_LTMP), ("tokens", "token_map")
    onnx.save(to_onnx(checkpoint, opset=18, outputs=names), tmp_path / "m.onnx")
    exported = read_exported(tmp_path / "m.onnx")
    few = inputs.embedded_digits().select(2)
    origin = precisions.Origin(checkpoint, few)
    rivals = precisions.rivals(exported, origin, tmp_path, ("CPUExecutionProvider",), silent)
    graphs = [onnx.load(rival.file).graph for rival in rivals] + [dense_baseline(exported).graph]
    assert len(graphs) == 4
    for graph in graphs:
        assert tuple(value.name for value in graph.output) == names


@pytest.mark.parametrize(
    ("precision", "others"),
    [
        (Precision("int8", scales="dynamic"), ["reduced fp32", "reduced fp16"]),
        (Precision("fp16", io="fp16"), ["reduced fp32", "reduced int8"]),
    ],
    ids=["int8", "fp16"],
)
def test_a_file_of_lower_precision(
    tmp_path: Path, precision: Precision, others: list[str], digit_images: Tensor
) -> None:
    """The dense model is that of the checkpoint, not of rounded weights; without labels, too."""
    model = written(load_checkpoint(DIGITS_LTMP), tmp_path / "model.onnx", precision, 1)
    np.savez(tmp_path / "images.npz", images=digit_images[:2].numpy())
    found = bench(model, images=tmp_path / "images.npz", precisions=DIGITS_LTMP, settings=ONCE)
    assert found.precision == precision.kind
    assert [t.model for t in found.timings] == ["reduced", "dense", *others, "dense int8"]
    assert found.calibration == "embedded digits, 48 images"
    assert {(entry.accuracy, entry.agreement is None) for entry in found.entries} == {(None, False)}


def contenders(
    source: Checkpoint,
    folder: Path,
    batch_size: int | None = None,
    precision: Precision | None = None,
) -> list[Path]:
    exported = read_exported(written(source, folder / "model.onnx", precision, batch_size))
    origin = precisions.Origin(source, inputs.embedded_digits().select(2))
    found = precisions.rivals(exported, origin, folder, ("CPUExecutionProvider",), print)
    assert not any(contender.required for contender in found)
    return [contender.file for contender in found]


@pytest.mark.parametrize(("family", "batch_size"), [("m", None), ("patchmerger", 1), ("ltmp", 1)])
def test_every_form_is_that_of_the_file(
    digits: Callable[[str], Checkpoint], tmp_path: Path, family: str, batch_size: int | None
) -> None:
    source = digits(family)
    if family == "ltmp":
        source = replace(source, plan=source.plan.within(KEEP))
    *reduced, dense = map(read_exported, contenders(source, tmp_path, batch_size))
    assert [one.precision.kind for one in (*reduced, dense)] == ["fp16", "int8", "int8"]
    assert (dense.plan.family, dense.precision.protected) == ("dense", False)
    exported = read_exported(tmp_path / "model.onnx")
    assert [one.plan for one in reduced] == [exported.plan] * 2
    assert {one.opset for one in (*reduced, dense)} == {18}
    batch = exported.proto.graph.input[0].type.tensor_type.shape.dim[0]
    assert all(
        one.proto.graph.input[0].type.tensor_type.shape.dim[0] == batch for one in (*reduced, dense)
    )


@pytest.mark.parametrize("scales", ["static", "dynamic"])
def test_the_dense_int8_model_has_the_scales_of_the_file(
    digits: Callable[[str], Checkpoint], tmp_path: Path, scales: str
) -> None:
    *_, dense = contenders(digits("ltmp"), tmp_path, precision=Precision("int8", scales=scales))
    found = read_exported(dense).precision
    assert (found.scales, found.protected) == (scales, False)
    assert found.calibration == "embedded digits, 2 images"


def test_int8_is_calibrated_on_given_images(tmp_path: Path, digit_images: Tensor) -> None:
    model = written(load_checkpoint(DIGITS_LTMP), tmp_path / "model.onnx")
    images = tmp_path / "few.npz"
    np.savez(images, images=digit_images[:3].numpy())
    found = bench(
        model, samples=1, precisions=DIGITS_LTMP, calibration_images=images, settings=ONCE
    )
    assert found.calibration == f"{images}, 3 images"
    with pytest.raises(InputError, match="--calibration-images is about --precisions"):
        bench(model, calibration_images=images)


def test_a_thresholds_only_checkpoint(tmp_path: Path, digits_base: Path) -> None:
    path = FIXTURES / "digits_ltm_thresholds.pth.tar"
    stated = Choices(family="ltm", base_checkpoint=digits_base, num_heads=2)
    model = written(load_checkpoint(path, stated), tmp_path / "model.onnx")
    found = bench(model, samples=1, precisions=path, base_checkpoint=digits_base, settings=ONCE)
    assert len(found.timings) == 5


def test_what_does_not_go_together_is_refused(tmp_path: Path, digits_base: Path) -> None:
    model = written(load_checkpoint(DIGITS_LTMP), tmp_path / "model.onnx")
    with pytest.raises(InputError, match="was exported from another file than"):
        bench(model, precisions=digits_base)
    for baseline in (None, model):
        with pytest.raises(InputError, match="--precisions, the baseline is the dense model"):
            bench(model, precisions=DIGITS_LTMP, baseline=baseline)
    with pytest.raises(InputError, match="two tables; ask for one at a time"):
        bench(model, precisions=DIGITS_LTMP, side_by_side=DIGITS_LTMP)
