"""Forms of operators that files take because some runtime lacks one, or takes it wrongly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from ltmp_export import export, inspect
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.graph.targets import ANY
from ltmp_export.images import inputs
from ltmp_export.model_file import targets
from ltmp_export.model_file.model import to_onnx
from ltmp_export.precision.formats import FP16, Precision
from tests.makers import examples


@pytest.fixture(scope="module", params=["dynamic", "budget", "m"])
def model(
    request: pytest.FixtureRequest, shallow_digits: Callable[[str], Checkpoint]
) -> onnx.ModelProto:
    """A file for any batch."""
    made = shallow_digits("m" if request.param == "m" else "ltmp")
    if request.param == "budget":
        made = replace(made, plan=made.plan.within(examples.KEEP))
    return to_onnx(made, opset=17)


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A model on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options)


def pixels(number: int) -> NDArray[np.float32]:
    """So many of the embedded digits."""
    return inputs.embedded_digits().select(number).pixels.astype(np.float32)


def given(model: onnx.ModelProto, kind: str) -> list[list[tuple[int, ...]]]:
    """The shapes of what each node of a kind is given, of two images."""
    nodes = [node for node in model.graph.node if node.op_type == kind]
    if not nodes:
        return []
    made = {output for node in model.graph.node for output in node.output}
    names = sorted(made.intersection(name for node in nodes for name in node.input))
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    tapped.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    found = session(tapped).run(
        names, {"images": inputs.embedded_digits().select(2).pixels.astype(np.float32)}
    )
    shapes = {name: value.shape for name, value in zip(names, found, strict=True)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return [[shapes[name] for name in node.input] for node in nodes]


def transposed(node: onnx.NodeProto) -> bool:
    """Whether it takes its first matrix by columns."""
    return any(one.name == "transA" and one.i for one in node.attribute)


def test_no_product_broadcasts_over_heads_alone(model: onnx.ModelProto) -> None:
    """[B, 1, 1, N] by [B, H, N, N]: MNN 3.6.1 takes rows of other images, tract refuses it."""
    by_head = [pair for pair in given(model, "MatMul") if {len(shape) for shape in pair} == {4}]
    assert by_head
    for one, other in by_head:
        assert one[:2] == other[:2]


def test_rows_are_placed_by_a_column(model: onnx.ModelProto) -> None:
    """MNN 3.6.1 takes places [B, K, 1] for others. Static files place none."""
    for _, places, rows in given(model, "ScatterND"):
        assert places == (rows[0], 1)


def test_what_others_lack(model: onnx.ModelProto) -> None:
    """TVM 0.27 and onnx2torch 1.5 have no LpNormalization; of a Range TVM knows no length."""
    assert not {"LpNormalization", "Range"} & {node.op_type for node in model.graph.node}


def test_files_for_any_runtime_give_the_same_bits(model: onnx.ModelProto) -> None:
    """Of no images and of some; nothing is left that a runtime needs in another form."""
    written = onnx.ModelProto()
    written.CopyFrom(model)
    targets.write_for(written, ANY, 17)
    left = {n.op_type for n in written.graph.node if n.output[0].endswith("ascending")}
    assert left <= {"Cast"}
    kinds = [node.op_type for node in written.graph.node]
    assert not {"Compress", "Hardmax"} & {*kinds}
    assert ("Range" in kinds) == ("NonZero" in kinds)  # IREE 3.13: slices that leave out rows
    before, after = session(model), session(written)
    for images in (pixels(3), pixels(1)[:0]):
        expected, found = (one.run(None, {"images": images})[0] for one in (before, after))
        np.testing.assert_array_equal(found, expected)


def test_tract_takes_any_batch_in_one_plan(model: onnx.ModelProto, tmp_path: Path) -> None:
    """Of static files: its symbol stands for the number of images to the end."""
    tract = pytest.importorskip("tract")
    if any(node.op_type == "Compress" for node in model.graph.node):
        pytest.skip("tract 0.23.9 knows no shape that depends on data and the batch")
    onnx.save(model, tmp_path / "model.onnx")
    loaded = tract.onnx().load(tmp_path / "model.onnx")
    for output in range(loaded.output_count()):
        loaded.set_output_fact(output, None)  # its symbol is not the input's, by tract's reckoning
    plan, before = loaded.into_model().into_runnable(), session(model)
    for number in (1, 2, 7):
        expected = before.run(None, {"images": pixels(number)})[0]
        found = plan.run([tract.Tensor.from_numpy(pixels(number))])[0]
        np.testing.assert_allclose(found.to_numpy(), expected, rtol=0, atol=1e-5)


def test_float16_for_tract(shallow_digits: Callable[[str], Checkpoint]) -> None:
    """Nothing is left that tract refuses, and the bits in onnxruntime stay."""
    model = to_onnx(shallow_digits("m"), opset=17, precision=Precision(FP16))
    before = session(model).run(None, {"images": pixels(7)})[0]
    targets.write_for(model, "tract", 17)
    assert all(node.op_type != "Gemm" or "metric" in node.input[1] for node in model.graph.node)
    np.testing.assert_array_equal(session(model).run(None, {"images": pixels(7)})[0], before)


def test_single_images_for_any_runtime(shallow_digits: Callable[[str], Checkpoint]) -> None:
    model = to_onnx(shallow_digits("ltmp"), opset=17, batch_size=1)
    before, kinds = session(model), {node.op_type for node in model.graph.node}
    assert kinds >= {"Compress", "Hardmax"}
    targets.write_for(model, ANY, 17)
    made = {output: node for node in model.graph.node for output in node.output}
    products = [n for n in model.graph.node if n.op_type == "Gemm" and transposed(n)]
    assert products
    for one in products:  # of no rows, MNN 3.6.1 computes those that follow wrongly
        assert {made[name].op_type for name in one.input[:2]} == {"Pad"}
    after, first = session(model), pixels(1)
    for image in (first, np.full_like(first, np.nan)):
        expected, found = (one.run(None, {"images": image})[0] for one in (before, after))
        np.testing.assert_array_equal(found, expected)
    assert np.isnan(found).all()


def test_an_export_for_a_runtime_says_so(
    shallow_digits: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    """It is checked as it is written, and an unknown one refused before anything is read."""
    output = tmp_path / "model.onnx"
    done = export(shallow_digits("ltmp"), output, batch_size=1, target="tract")
    assert done.check is not None
    assert done.check.passed()
    found = inspect(output)
    assert found["metadata"]["ltmp.for"] == "tract"
    assert not {"Compress", "Hardmax"} & found["operators"].keys()
    with pytest.raises(InputError, match="unknown runtime 'tracts': expected one of tract, "):
        export(tmp_path / "nothing.pth", output, target="tracts")


def test_which_forms_a_file_lacks(shallow_digits: Callable[[str], Checkpoint]) -> None:
    checkpoint = shallow_digits("ltmp")
    each = {
        "mnn": ("", "first of the largest, products of a row at least"),
        "tract": ("selection by places", "selection by places, first of the largest"),
        "tvm": ("selection by places",) * 2,
        "iree": ("selection by places, every other row by its place",) * 2,
        "openvino": ("", ""),
        "onnxruntime": ("", ""),
    }
    for which, batch_size in enumerate((None, 1)):
        model = to_onnx(checkpoint, opset=17, batch_size=batch_size)
        whole = onnx.ModelProto()
        whole.CopyFrom(model)
        targets.write_for(whole, ANY, 17)
        for runtime, forms in each.items():
            found = targets.doubts(model, runtime)
            told = f"the file is not in the forms that {runtime} needs ({forms[which]}): export it"
            assert found == ((f"{told} with --for {runtime}",) if forms[which] else ())
            assert targets.doubts(whole, runtime) == ()
