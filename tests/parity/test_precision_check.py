"""Files of lower precision under `check`: proven by replay, judged by bounds."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from ltmp_export import families
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.commands import check, export
from ltmp_export.errors import CheckFailedError, InputError
from ltmp_export.images import inputs
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import read_exported, to_onnx
from ltmp_export.parity import compare, taps
from ltmp_export.parity import report as check_report
from ltmp_export.parity.invariance import invariance
from ltmp_export.parity.judge import judge_all
from ltmp_export.parity.limits import limits
from ltmp_export.parity.replay import Observer
from ltmp_export.parity.report import CheckReport
from ltmp_export.parity.runs import runs
from ltmp_export.precision import eager
from ltmp_export.precision.formats import Precision
from ltmp_export.reports import github_annotations, to_junit
from ltmp_export.runtimes.recording import TappedSession
from tests.conftest import DIGITS_LTMP
from tests.makers import examples

ASKED = {
    "int8": Precision("int8"),
    "int8 not protected": Precision("int8", protected=False),
    "int8 dynamic": Precision("int8", scales="dynamic"),
    "int8 qdq": Precision("int8", int8_form="qdq"),
    "fp16": Precision("fp16"),
    "fp16 not protected": Precision("fp16", protected=False),
    "fp16 in and out": Precision("fp16", io="fp16"),
}
Load = Callable[[str], Checkpoint]
# Of each checkpoint and precision: the checkpoint, kept alive, and both prepared.
CALIBRATED: dict[tuple[object, ...], tuple[Checkpoint, Checkpoint, Precision]] = {}


def digits_images(checkpoint: Checkpoint, count: int) -> Images:
    return inputs.load_images(None, checkpoint.vit, checkpoint.preprocessing, count)


def written(
    checkpoint: Checkpoint, asked: Precision, images: Images | None = None
) -> tuple[onnx.ModelProto, Precision]:
    """The model in this precision, calibrated on the embedded digits."""
    if asked.kind == "int8" and images is not None:
        checkpoint, asked = quantise.prepare(checkpoint, images, asked)
    elif asked.kind == "int8":
        known = (id(checkpoint), asked.scales, asked.protected, asked.int8_form)
        if known not in CALIBRATED:
            images = digits_images(checkpoint, 48)
            CALIBRATED[known] = (checkpoint, *quantise.prepare(checkpoint, images, asked))
        _, checkpoint, asked = CALIBRATED[known]
    return to_onnx(checkpoint, opset=17, precision=asked), asked


def checked(
    checkpoint: Checkpoint, model: onnx.ModelProto, precision: Precision, samples: int = 6
) -> CheckReport:
    images = digits_images(checkpoint, samples)
    return compare.compare(model, checkpoint, images, batch_sizes=(1, 4), precision=precision)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        *product(sorted({*families.names()} - {*examples.LIGHT}), ("int8",)),
        *product(("ltmp", "m", "patchmerger", "ltm_transformer"), ("fp16",)),
        *(("ltmp", name) for name in list(ASKED)[1:] if name != "fp16"),
    ],
)
def test_right_files_are_bounded(shallow_digits: Load, family: str, name: str) -> None:
    checkpoint = shallow_digits(family)
    model, precision = written(checkpoint, ASKED[name])
    report = checked(checkpoint, model, precision, samples=4)
    assert (report.verdict, report.reason) == ("bounded", "")
    report.require()
    errors = [one.errors["logits"] for one in report.comparisons]
    assert max(errors) < (5e-7 if precision.kind == "int8" else 1e-3)
    if name.startswith("int8"):  # under the same integers it computes as exactly as float32
        assert {one.verdict for one in report.comparisons} == {"equal"}
    assert bool(report.invariance) == precision.batch_invariant
    if name == "int8":
        assert all(one.errors["logits"] == 0 for one in report.invariance)


@pytest.mark.parametrize(
    "family", [f for f in families.learned() if "prune" in families.load(f).scalars]
)
def test_importance_is_that_of_the_image_alone_bit_for_bit(digits: Load, family: str) -> None:
    checkpoint = digits(family)
    model, _ = written(checkpoint, ASKED["int8"])
    known = taps.names(checkpoint.plan)
    names = {name: kind for name, kind in known.items() if name.endswith("/importance")}
    session = TappedSession(model, names)
    pixels = digits_images(checkpoint, 9).pixels
    together = session.run(pixels)
    for row, image in enumerate(pixels):
        alone = session.run(image[None])
        for name in names:
            ours, theirs = together[name][row], alone[name][0]
            living = theirs != 0  # that of an empty slot is 0
            assert np.count_nonzero(ours) == np.count_nonzero(theirs)
            assert np.array_equal(ours[: len(theirs)][living], theirs[living])


def test_int8_under_a_budget(digits: Load) -> None:
    checkpoint = digits("ltmp")
    tight = replace(checkpoint, plan=checkpoint.plan.within((45, 30, 22, 18, 16, 14)))
    model, precision = written(tight, ASKED["int8"])
    report = checked(tight, model, precision)
    assert report.verdict == "bounded"
    assert max(one.errors["logits"] for one in report.comparisons) < 5e-7
    assert any(one.overflow for one in report.comparisons)


Change = Callable[[NDArray[Any]], NDArray[Any]]


def change(model: onnx.ModelProto, name: str, how: Change) -> None:
    """One stored array."""
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(numpy_helper.from_array(how(array).astype(array.dtype), name))


def nudge(array: NDArray[Any]) -> NDArray[Any]:
    array.reshape(-1)[5] += 9
    return array


FAULTS: dict[str, tuple[str, str, Change, str]] = {
    "an integer": ("int8", "blocks.2.mlp.fc1.weight.int8", nudge, "differs from the checkpoint"),
    "a column": ("int8", "blocks.2.mlp.fc2.weight.scale", nudge, "differs from the checkpoint"),
    "all columns": (
        "int8", "blocks.1.attn.proj.weight.scale", lambda a: a * 1.02, "differs from the check",
    ),
    "a bias": ("int8", "blocks.1.mlp.fc1.bias", nudge, "blocks.1.mlp.fc1.bias differs from the"),
    "the metric": ("int8", "blocks.1.attn.metric.weight", nudge, "attn.metric.weight differs"),
    "a norm": ("int8", "blocks.1.norm1.weight", lambda a: -a, "blocks.1.norm1.weight differs"),
    "an integer, qdq": ("int8 qdq", "blocks.2.mlp.fc1.weight.int8", nudge, "differs from the ch"),
    "a column, qdq": ("int8 qdq", "blocks.2.mlp.fc2.weight.scale", nudge, "differs from the ch"),
    "a half": ("fp16", "blocks.2.mlp.fc1.weight", nudge, "blocks.2.mlp.fc1.weight differs from"),
    "a threshold": ("int8", "block_01/merge_threshold", lambda a: a + 0.5, "the merge threshold"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "stored", "how", "told"), FAULTS.values(), ids=FAULTS.keys())
def test_wrong_weights_fail(
    shallow_digits: Load, name: str, stored: str, how: Change, told: str
) -> None:
    checkpoint = shallow_digits("ltmp")
    model, precision = written(checkpoint, ASKED[name])
    change(model, stored, how)
    report = checked(checkpoint, model, precision, samples=2)
    assert report.verdict == "fail"
    assert told in report.headline()


def test_a_shift_that_no_bias_takes_up_fails(shallow_digits: Load) -> None:
    checkpoint = shallow_digits("ltmp")
    model = copy.deepcopy(checkpoint.model)
    for block in model.blocks:
        block.attn.qkv.bias = None
    checkpoint = replace(checkpoint, model=model)
    exported, precision = written(checkpoint, ASKED["int8"])
    assert checked(checkpoint, exported, precision, samples=2).verdict == "bounded"
    change(exported, "blocks.2.norm1.bias", lambda a: a + 0.05)
    report = checked(checkpoint, exported, precision, samples=2)
    assert report.verdict == "fail"
    assert "blocks.2.norm1.bias differs from the checkpoint's" in report.headline()


def quantisers(model: onnx.ModelProto, block: str, kind: str) -> list[onnx.NodeProto]:
    return [n for n in model.graph.node if n.op_type == kind and n.output[0].startswith(block)]


def test_a_wrong_scale_of_activations_fails_where_it_is(shallow_digits: Load) -> None:
    checkpoint = shallow_digits("ltmp")
    model, precision = written(checkpoint, ASKED["int8"])
    (node,) = (n for n in quantisers(model, "block_02/mlp", "QuantizeLinear") if "fc1" in n.name)
    scale = np.float32(precision.layers["blocks.2.mlp.fc1"].scale or 0) * np.float32(1.1)
    model.graph.initializer.append(numpy_helper.from_array(scale, "wrong"))
    node.input[1] = "wrong"
    report = checked(checkpoint, model, precision, samples=2)
    assert report.verdict == "fail"
    assert {one.where for one in report.comparisons} == {"block 2"}
    assert "what blocks.2.mlp.fc1 is given is not its input rounded" in report.headline()


@pytest.mark.parametrize("kind", ["QuantizeLinear", "DequantizeLinear"])
def test_a_wrong_scale_between_qdq_fails_where_it_is(shallow_digits: Load, kind: str) -> None:
    checkpoint = shallow_digits("ltmp")
    model, precision = written(checkpoint, ASKED["int8 qdq"])
    nodes = quantisers(model, "block_02/mlp", kind)
    (node,) = (n for n in nodes if "fc1.int8" in "".join((*n.output, *n.input)) and n.input[2:])
    scale = np.float32(precision.layers["blocks.2.mlp.fc1"].scale or 0) * np.float32(1.1)
    model.graph.initializer.append(numpy_helper.from_array(scale, "wrong"))
    node.input[1] = "wrong"
    report = checked(checkpoint, model, precision, samples=2)
    assert report.verdict == "fail"
    assert {one.where for one in report.comparisons} == {"block 2"}


def test_what_rounding_takes_to_the_next_integer_is_borderline(shallow_digits: Load) -> None:
    """An image in a batch whose logits are apart from its own alone by more than float32 rounds."""
    checkpoint = shallow_digits("ltmp")
    model, precision = written(checkpoint, ASKED["int8 qdq"])
    images, passes = digits_images(checkpoint, 2), runs((1, 2))
    observer = Observer(model, checkpoint, images, passes, precision)
    seen = [one for number in range(2) for one in observer.observe(number)]
    allowed = limits(seen, precision)
    comparisons = judge_all(seen, images, allowed)
    found = []
    for apart in (0.5 * allowed.rerounded, 2 * allowed.rerounded):
        given = {"logits": seen[1].given["logits"] * np.float32(1 + apart)}
        others = [seen[0], replace(seen[1], given=given), *seen[2:]]
        first, *rest = invariance(others, comparisons, allowed)
        assert {one.verdict for one in rest} == {"equal"}
        found.append(first.verdict)
    assert found == ["borderline", "fail"]


def test_a_wrong_zero_point_of_products_fails_where_it_is(shallow_digits: Load) -> None:
    checkpoint = shallow_digits("ltmp")
    model, precision = written(checkpoint, ASKED["int8"])
    node = quantisers(model, "block_02/attn", "MatMulInteger")[0]
    model.graph.initializer.append(numpy_helper.from_array(np.array(3, np.uint8), "wrong"))
    node.input[2] = "wrong"
    report = checked(checkpoint, model, precision, samples=2)
    assert report.verdict == "fail"
    assert {one.where for one in report.comparisons} == {"block 2"}


def test_a_lost_second_term_fails(shallow_digits: Load) -> None:
    """Eight bits where the file states sixteen: too small a difference for any bound of int8."""
    checkpoint = shallow_digits("ltmp")
    model, precision = written(checkpoint, ASKED["int8"])
    rest = [n for n in model.graph.node if "fc1.int8_rest" in "".join(n.input)]
    (node,) = (n for n in rest if n.op_type == "MatMulInteger")
    (weights,) = (t for t in model.graph.initializer if t.name == node.input[1])
    nothing = np.zeros_like(numpy_helper.to_array(weights))
    model.graph.initializer.append(numpy_helper.from_array(nothing, "nothing"))
    node.input[1] = "nothing"
    report = checked(checkpoint, model, precision, samples=2)
    assert report.verdict == "fail"
    assert {one.where for one in report.comparisons} == {"block 0"}


def test_a_bad_calibration_computes_what_it_states_and_is_out_of_bounds(digits: Load) -> None:
    checkpoint = digits("ltmp")
    images = digits_images(checkpoint, 8)
    model, precision = written(
        checkpoint, Precision("int8", protected=False), replace(images, pixels=images.pixels * 0)
    )
    report = checked(checkpoint, model, precision, samples=8)
    assert {one.verdict for one in report.comparisons} == {"equal"}
    assert report.verdict == "fail"
    told = (
        "have another top-1 than the float32 model; allowed are 1; calibrate on images like those"
    )
    assert told in report.reason
    with pytest.raises(CheckFailedError, match="float32 model"):
        report.require()
    assert b"<failure" in to_junit(report)
    assert github_annotations(report)[0].startswith("::error")


def test_a_bounded_report_is_as_its_schema_says(shallow_digits: Load) -> None:
    checkpoint = shallow_digits("ltmp")
    model, precision = written(checkpoint, ASKED["int8"])
    report = checked(checkpoint, model, precision, samples=2)
    path = Path(check_report.__file__).parent.parent / "schemas" / "check.schema.json"
    document = json.loads(json.dumps(report.to_json()))
    jsonschema.validate(document, json.loads(path.read_text()))
    assert (document["verdict"], document["precision"]) == ("bounded", "int8")
    assert document["fidelity"]["images"] == 2
    assert set(document["fidelity"]["bounds"]) == {"top1", "decisions", "answer"}
    assert b"<failure" not in to_junit(report)
    assert github_annotations(report) == []


def test_strict_minds_borderline_decisions_of_bounded_files(shallow_digits: Load) -> None:
    checkpoint = shallow_digits("ltmp")
    model, precision = written(checkpoint, ASKED["int8"])
    report = checked(checkpoint, model, precision, samples=2)
    assert report.passed(strict=True)
    near = replace(report.comparisons[0], verdict="borderline", reason="near")
    doubtful = replace(report, comparisons=(near, *report.comparisons[1:]))
    assert doubtful.passed()
    assert not doubtful.passed(strict=True)
    assert github_annotations(doubtful)[0].startswith("::warning")


def test_rounding_alone_is_what_a_file_would_do() -> None:
    """The reference's own rounding against a slow loop."""
    import torch

    from ltmp_export.precision.formats import Activation

    x = torch.linspace(-3, 5, 41, dtype=torch.float64)[None]
    for terms, off in ((1, 0.02), (2, 0.02 / 255)):
        given = Activation(0.04, 75, terms)
        layer = eager.RoundedLinear(torch.eye(41, dtype=torch.float64), None, given)
        for value, found in zip(x[0].tolist(), layer(x)[0].tolist(), strict=True):
            assert abs(found - value) <= off * (1 + 1e-9)
    assert eager.RoundedLinear(torch.eye(1).double(), None, Activation(0.04, 75))(
        torch.full((1, 1), 99.0, dtype=torch.float64)
    ).item() == pytest.approx(0.04 * 180)


def test_protection_keeps_token_counts(digits: Load) -> None:
    """Measured on 360 digits: 91 to 93 % of (image, block) pairs, 73 to 75 % unprotected."""
    checkpoint = digits("ltmp")
    shares = []
    for name in ("int8", "int8 not protected"):
        model, precision = written(checkpoint, ASKED[name])
        report = checked(checkpoint, model, precision, samples=24)
        assert report.fidelity is not None
        shares.append(report.fidelity.counts)
    assert shares[0] >= 0.88
    assert shares[0] > shares[1] + 0.05


def test_export_and_check_of_files(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    done = export.export(DIGITS_LTMP, path, precision=ASKED["int8"])
    assert done.check is not None
    assert done.check.verdict == "bounded"
    assert [w for w in done.warnings if "int8 scales are measured on embedded digits" in w]
    exported = read_exported(path)
    assert exported.precision == done.precision
    assert done.to_json()["precision"]["layers"]["head"]["terms"] == 2
    report = check.check(path, DIGITS_LTMP, samples=2)
    assert report.verdict == "bounded"


def test_dynamic_scales_are_told(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export.export(DIGITS_LTMP, path, precision=ASKED["int8 dynamic"])
    words = read_exported(path).metadata["ltmp.precision"]
    assert json.loads(words)["batch_invariant"] is False
    report = check.check(path, DIGITS_LTMP, samples=2)
    assert report.verdict == "bounded"
    assert any("depends on the others in it" in warning for warning in report.warnings)


def test_a_failing_int8_batch_is_saved_and_replayed(tmp_path: Path) -> None:
    path, folder = tmp_path / "model.onnx", tmp_path / "repro"
    export.export(DIGITS_LTMP, path, precision=ASKED["int8"], check=False)
    model = onnx.load(path)
    node = quantisers(model, "block_02/attn", "MatMulInteger")[0]
    model.graph.initializer.append(numpy_helper.from_array(np.array(3, np.uint8), "wrong"))
    node.input[2] = "wrong"
    onnx.save(model, path)
    assert check.check(path, DIGITS_LTMP, samples=2, save_repro=folder).verdict == "fail"
    assert check.replay(folder).verdict == "fail"


def test_calibration_is_about_int8(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="^--calibration-images and .* are about --precision int8"):
        export.export(DIGITS_LTMP, tmp_path / "m.onnx", calibration_samples=3)


def test_images_that_lead_to_nan_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "large.npz", images=np.full((2, 3, 32, 32), 3e38, np.float32))
    with pytest.raises(InputError, match=r"large.npz.* lead to NaN or infinite numbers before b"):
        export.export(
            DIGITS_LTMP,
            tmp_path / "m.onnx",
            precision=ASKED["int8"],
            calibration_images=tmp_path / "large.npz",
        )
    assert not (tmp_path / "m.onnx").exists()
