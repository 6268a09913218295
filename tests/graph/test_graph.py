"""The written graph: opset, domain, checker, names, sharing, and onnxruntime's CPU kernels."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from torch import Tensor

from ltmp_export import families
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import ExportError, InputError
from ltmp_export.graph import builder
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.images import inputs
from ltmp_export.model_file.dense import dense_baseline
from ltmp_export.model_file.model import read_exported, to_onnx
from ltmp_export.model_file.validate import validate
from ltmp_export.precision.formats import Precision
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.opsets import newest_opset

Digits = Callable[[str], Checkpoint]
ALL_OPSETS = range(builder.OLDEST_OPSET, newest_opset() + 1)


@pytest.mark.parametrize(
    ("family", "opset"),
    [
        *itertools.product(("ltmp", "m", "patchmerger"), ALL_OPSETS),
        *itertools.product(families.names(), (ALL_OPSETS[0], ALL_OPSETS[-1])),
    ],
)
def test_families_at_every_opset(shallow_digits: Digits, family: str, opset: int) -> None:
    model = to_onnx(shallow_digits(family), opset=opset, token_counts=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert {node.domain for node in model.graph.node} == {""}
    onnx.checker.check_model(model, full_check=True)
    ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_inputs_outputs_and_metadata(digits: Digits) -> None:
    model = to_onnx(digits("ltmp"), opset=17, token_counts=True)
    values = [*model.graph.input, *model.graph.output]
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values
    }
    assert shapes == {
        "images": ["batch", 3, 32, 32],
        "logits": ["batch", 10],
        "token_counts": ["batch", 6],
    }
    words = {entry.key: entry.value for entry in model.metadata_props}
    assert words["ltmp.family"] == "ltmp"
    assert words["ltmp.opset"] == "17"
    assert words["architecture"] == "vit_digits_patch4_32"
    assert words["mean"] == "[0.5, 0.5, 0.5]"
    assert len(words["ltmp.checkpoint_sha256"]) == 64
    plain = to_onnx(digits("ltmp"), opset=17)
    assert [output.name for output in plain.graph.output] == ["logits"]


def test_stable_names_and_weights_stored_once(digits: Digits) -> None:
    model = to_onnx(digits("ltmp"), opset=17)
    produced = Counter(output for node in model.graph.node for output in node.output)
    assert max(produced.values()) == 1
    tensors = ("importance", "similarity", "partner", "merged", "merged_importance", "kept")
    for tensor in (*tensors, "count", "tokens"):
        assert all(f"block_{block:02d}/{tensor}" in produced for block in range(6))
    assert all(f"block_{block:02d}/size" in produced for block in range(5))
    stored = [tensor.name for tensor in model.graph.initializer]
    assert len(stored) == len(set(stored))
    assert set(digits("ltmp").model.state_dict()) <= set(stored)
    thresholds = [name for name in stored if "threshold" in name]
    kinds = ("merge_threshold", "prune_threshold")
    assert thresholds == [f"block_{block:02d}/{kind}" for block in range(6) for kind in kinds]


@pytest.mark.parametrize("family", families.names())
def test_no_warning_and_no_other_provider_in_onnxruntime(
    digits: Digits, tmp_path: Path, family: str
) -> None:
    """In a process of its own, since onnxruntime warns on the process's stderr."""
    model = to_onnx(digits(family), opset=17)
    onnx.save(model, tmp_path / "model.onnx")
    script = (
        "import onnxruntime as ort, numpy as np\n"
        "options = ort.SessionOptions()\n"
        "options.log_severity_level = 2\n"
        "cpu = ['CPUExecutionProvider']\n"
        "session = ort.InferenceSession('model.onnx', options, providers=cpu)\n"
        "session.run(None, {'images': np.zeros((3, 3, 32, 32), np.float32)})\n"
        "print(session.get_providers())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "['CPUExecutionProvider']"
    assert ran.stderr == ""


def test_dense_baseline_is_the_dense_model(digits: Digits, tmp_path: Path) -> None:
    checkpoint = digits("ltmp")
    onnx.save(to_onnx(checkpoint, opset=18), tmp_path / "model.onnx")
    dense = dense_baseline(read_exported(tmp_path / "model.onnx"))
    session = ort.InferenceSession(dense.SerializeToString(), providers=["CPUExecutionProvider"])
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        expected = checkpoint.model(images).numpy()
    np.testing.assert_allclose(
        session.run(None, {"images": images.numpy()})[0], expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("precision", "allowed"),
    [
        (Precision("fp16"), 3e-3),  # 0.0007 measured
        (Precision("int8"), 1e-2),  # 0.0036
        (Precision("int8", scales="dynamic"), 1e-2),
        (Precision("int8", protected=False), 1e-2),
        (Precision("int8", int8_form="qdq"), 1e-2),
    ],
    ids=["fp16", "int8", "int8 dynamic", "int8 unprotected", "int8 qdq"],
)
def test_dense_baseline_of_lower_precision(
    digits: Digits, digit_images: Tensor, tmp_path: Path, precision: Precision, allowed: float
) -> None:
    """Its weights are the rounded ones: near the checkpoint's, and float32 again."""
    source = checkpoint = digits("ltmp")
    if precision.kind == "int8":
        few = inputs.embedded_digits().select(8)
        source, precision = quantise.prepare(checkpoint, few, precision)
    onnx.save(to_onnx(source, opset=17, precision=precision), tmp_path / "model.onnx")
    dense = dense_baseline(read_exported(tmp_path / "model.onnx"))
    stored = {tensor.data_type for tensor in dense.graph.initializer}
    assert stored == {TensorProto.FLOAT, TensorProto.INT64}
    session = ort.InferenceSession(dense.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": digit_images.numpy()})[0]
    with torch.inference_mode():
        expected = checkpoint.model(digit_images).numpy()
    off = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert 0 < off.max() < allowed


def misnamed(scale: TensorProto) -> None:
    scale.name = "another"


def cut(scale: TensorProto) -> None:
    scale.CopyFrom(onnx.numpy_helper.from_array(np.ones(3, np.float32), scale.name))


@pytest.mark.parametrize("damage", [misnamed, cut])
def test_scales_that_are_missing_or_do_not_fit_make_no_dense_model(
    damage: Callable[[TensorProto], None], digits: Digits, tmp_path: Path
) -> None:
    few = inputs.embedded_digits().select(1)
    source, precision = quantise.prepare(digits("ltmp"), few, Precision("int8"))
    model = to_onnx(source, opset=17, precision=precision)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    damage(stored["blocks.2.mlp.fc1.weight.scale"])
    onnx.save(model, tmp_path / "model.onnx")
    expected = r"no int8 weights of blocks.2.mlp.fc1 with a scale for each output; give another"
    with pytest.raises(InputError, match=expected):
        dense_baseline(read_exported(tmp_path / "model.onnx"))


@pytest.mark.parametrize(
    ("opset", "native"),
    [(16, set()), (17, {"LayerNormalization"}), (20, {"LayerNormalization", "Gelu"})],
)
def test_operators_are_native_from_the_opset_that_has_them(
    digits: Digits, opset: int, native: set[str]
) -> None:
    model = to_onnx(digits("ltmp"), opset=opset)
    kinds = {node.op_type for node in model.graph.node}
    assert kinds & {"LayerNormalization", "Gelu"} == native
    assert ("Erf" in kinds) == ("Gelu" not in native)


def test_no_node_is_there_for_nothing(digits: Digits) -> None:
    model = to_onnx(digits("ltmp"), opset=17)
    used = {name for node in model.graph.node for name in node.input}
    used |= {value.name for value in model.graph.output}
    assert all(used.intersection(node.output) for node in model.graph.node)
    assert {tensor.name for tensor in model.graph.initializer} <= used


@pytest.mark.parametrize("opset", [15, newest_opset() + 1, -3])
def test_opsets_out_of_range(opset: int) -> None:
    with pytest.raises(InputError, match=f"opset {opset} is not supported; choose from 16 to"):
        opsets.require(opset)


def identity(opset: int = 17) -> onnx.ModelProto:
    g = GraphBuilder(opset, {})
    x = g.input("x", TensorProto.FLOAT, ["n"])
    g.output(g.op("Neg", x), "y", TensorProto.FLOAT, ["n"])
    return g.build("test", {})


def test_validate_refuses_another_opset_domain_or_shape() -> None:
    validate(identity(), 17)
    with pytest.raises(ExportError, match=r"declares opsets \{'': 17\}; expected \{'': 18\}"):
        validate(identity(), 18)
    foreign = identity()
    foreign.graph.node[0].domain = "com.microsoft"
    with pytest.raises(ExportError, match="com.microsoft"):
        validate(foreign, 17)
    wrong = identity()
    wrong.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(ExportError, match="checker refuses"):
        validate(wrong, 17)


def test_constants_are_shared_and_names_stay_unique() -> None:
    g = GraphBuilder(17, {})
    assert g.ints(1, 2) == g.ints(1, 2)
    assert g.index(1) != g.ints(1)
    assert g.number(0.1) != g.number(0.2)
    with g.scope("a"):
        assert [g.op("Neg", "x", name="n") for _ in range(2)] == ["a/n", "a/n_2"]


def test_files_that_are_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(identity(), path)
    with pytest.raises(InputError, match="was not exported by this version of ltmp"):
        read_exported(path)
    path.write_bytes(b"no protobuf at all")
    with pytest.raises(InputError, match="is not an ONNX model"):
        read_exported(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        read_exported(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ltmp.vit", "{}", "damaged ltmp metadata"),
        ("ltmp.vit", "5", "damaged ltmp metadata"),
        ("ltmp.plan", "5", "damaged ltmp metadata"),
        ("ltmp.plan", '{"family": "ltp", "blocks": [], "patch_merges": {}}', "a plan of 0 blocks"),
        ("mean", '["a"]', "damaged ltmp metadata"),
        ("ltmp.opset", "18", "declares opset 17, its metadata 18"),
        ("ltmp.schema", "7", "found 7, expected 3"),
    ],
)
def test_damaged_metadata(
    digits: Digits, tmp_path: Path, key: str, value: str, message: str
) -> None:
    model = to_onnx(digits("ltp"), opset=17)
    next(entry for entry in model.metadata_props if entry.key == key).value = value
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match=message):
        read_exported(tmp_path / "model.onnx")


def _step(**values: object) -> str:
    blocks: list[list[object]] = [[{"step": "Prune", "threshold": 0.1}] for _ in range(6)]
    blocks[2] = [{"step": "Prune", "threshold": 0.1} | values]
    return json.dumps({"family": "ltp", "blocks": blocks, "patch_merges": {}})


@pytest.mark.parametrize(
    "plan",
    [
        "[]",
        '{"family": "ltp"}',
        _step(step="Slice"),
        _step(step=["Prune"]),
        _step(threshold="0.1"),
        _step(threshold=None),
        _step(threshold=float("nan")),
        _step(keep=3),
        _step(step="Fit"),
        '{"family": "ltp", "blocks": [[], [], [], [], [], []], "patch_merges": {"x": {}}}',
        '{"family": "ltp", "blocks": [[], [], [], [], [], []], "patch_merges": {"2": {}}}',
        '{"family": "ltp", "blocks": [[], [], [], [], [], []], "patch_merges": {"9": {"name": "", '
        '"tokens": 3, "scale": 1.0, "eps": 1e-5}}}',
        '{"family": "ltp", "blocks": [[], [], [], [], [], []], "patch_merges": {"2": {"name": "", '
        '"tokens": -3, "scale": 1.0, "eps": 1e-5}}}',
    ],
)
def test_damaged_plans(digits: Digits, tmp_path: Path, plan: str) -> None:
    model = to_onnx(digits("ltp"), opset=17)
    next(entry for entry in model.metadata_props if entry.key == "ltmp.plan").value = plan
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="damaged ltmp metadata"):
        read_exported(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("family", "old", "new"),
    [
        ("m", '"count": 8', '"count": 1000'),
        ("m", '"count": 8', '"count": 33'),
        ("m", '"prefix": 1', '"prefix": 2'),
        ("p", '"count": 8', '"count": 2147483647'),
        ("ltp", '"threshold": 0.', '"threshold": 7.'),
        ("patchmerger", '"tokens": 24', '"tokens": 0'),
        ("patchmerger", '"tokens": 24', '"tokens": 2147483647'),
        ("patchmerger", '"4": {', '"02": {'),
    ],
)
def test_plans_that_no_model_can_take(
    digits: Digits, tmp_path: Path, family: str, old: str, new: str
) -> None:
    model = to_onnx(digits(family), opset=17)
    entry = next(entry for entry in model.metadata_props if entry.key == "ltmp.plan")
    assert old in entry.value
    entry.value = entry.value.replace(old, new)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="damaged ltmp metadata"):
        read_exported(tmp_path / "model.onnx")


@pytest.mark.parametrize("keep", [(0,) * 6, (66,) * 6, (9, 9, 10, 9, 9, 9)])
def test_budgets_that_no_model_can_have(
    digits: Digits, tmp_path: Path, keep: tuple[int, ...]
) -> None:
    checkpoint = digits("ltp")
    checkpoint = replace(checkpoint, plan=checkpoint.plan.within((9,) * 6))
    model = to_onnx(checkpoint, opset=17)
    entry = next(entry for entry in model.metadata_props if entry.key == "ltmp.plan")
    plan = json.loads(entry.value)
    for steps, most in zip(plan["blocks"], keep, strict=True):
        steps[-1]["keep"] = most
    entry.value = json.dumps(plan)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="damaged ltmp metadata"):
        read_exported(tmp_path / "model.onnx")
