"""int8 products on processors that add two of them in 16 bits: emulated, so that none hides it."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from ltmp_export import inspect, load_checkpoint
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.commands import check, export
from ltmp_export.errors import CheckFailedError
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.precision.formats import DYNAMIC, INT8, Precision
from ltmp_export.precision.integers import quantised
from ltmp_export.runtimes import saturation
from tests.conftest import DIGITS_LTMP
from tests.makers.lower_precision import Array, prepared, weights_of

FC1 = "blocks.2.mlp.fc1"
Digits: TypeAlias = Callable[[str], Checkpoint]
KEEP = (50, 40, 30, 25, 20, 18)


def saturating(rows: Array, weight: Array) -> Array:
    """uint8 [T, in] times int8 [in, out] as `vpmaddubsw` has it: pairs in 16 bits, then in 32."""
    if rows.shape[1] % 2:
        rows, weight = np.pad(rows, ((0, 0), (0, 1))), np.pad(weight, ((0, 1), (0, 0)))
    parts = rows.astype(np.int32)[:, :, None] * weight.astype(np.int32)  # [T, in, out]
    pairs = parts[:, ::2] + parts[:, 1::2]
    clipped: Array = np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=1)
    return clipped


def exact(rows: Array, weight: Array) -> Array:
    product: Array = rows.astype(np.int64) @ weight.astype(np.int64)
    return product


def eight_bits(weight: Array) -> tuple[Array, Array]:
    """int8 weights [in, out] and scale [out] that use all 8 bits, whatever their neighbours."""
    scale = (np.abs(weight).max(axis=1) / 127).astype(np.float32)
    return np.rint(weight / scale[:, None]).astype(np.int8).T, scale


def of_products(model: onnx.ModelProto) -> list[Array]:
    """The weights of every product."""
    stored = weights_of(model)
    return [stored[n.input[1]] for n in model.graph.node if n.op_type == "MatMulInteger"]


@pytest.fixture(scope="module")
def lowered(digits: Digits) -> Callable[..., tuple[onnx.ModelProto, Precision]]:
    @functools.cache
    def lower(family: str, form: str) -> tuple[onnx.ModelProto, Precision]:
        checkpoint = digits(family)
        images = inputs.embedded_digits().select(8)
        checkpoint, precision = prepared(checkpoint, images.pixels, form)
        return to_onnx(checkpoint, opset=17, precision=precision), precision

    return lower


class TestExportedFiles:
    @pytest.mark.parametrize(
        ("family", "form"),
        [
            *itertools.product(("ltmp", "patchmerger"), ("static", "dynamic")),
            ("ltmp", "static unprotected"),
        ],
    )
    def test_products_are_exact_where_they_could_saturate(
        self, lowered: Callable[..., tuple[onnx.ModelProto, Precision]], family: str, form: str
    ) -> None:
        """Random activations; and each pair at its worst: 0 or 255 on either side."""
        model, precision = lowered(family, form)
        weights = of_products(model)
        products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
        assert len({node.input[1] for node in products}) == len(products)  # a copy for each
        terms = sum(given.terms for given in precision.layers.values())
        assert len(weights) == terms == (25 if "unprotected" in form else 29)
        rng = np.random.default_rng(0)
        for weight in weights:
            depth = len(weight)
            columns = weight[:, rng.choice(weight.shape[1], min(24, weight.shape[1]), False)]
            rows = np.concatenate(
                [rng.integers(0, 256, (2, depth)), rng.choice([0, 255], (3, depth))]
            )
            np.testing.assert_array_equal(saturating(rows, columns), exact(rows, columns))
            pairs = weight.astype(np.int32).reshape(-1, 2, weight.shape[1])
            for ends in itertools.product((0, 255), repeat=2):
                sums = pairs[:, 0] * ends[0] + pairs[:, 1] * ends[1]
                assert sums.min() >= -(2**15)
                assert sums.max() < 2**15

    def test_eight_bits_would_not_be(self, digits: Digits) -> None:
        """And by more than rounding: the emulation is not a product by another name."""
        state = digits("ltmp").model.state_dict()
        rows = np.random.default_rng(0).integers(0, 256, (4, 128))
        wrong = 0
        for block in range(6):
            weight, _ = eight_bits(state[f"blocks.{block}.mlp.fc1.weight"].numpy())
            worst = np.where(weight[:, :1] > 0, 255, 0).T
            every = np.concatenate([rows, worst])
            wrong += (saturating(every, weight) != exact(every, weight)).sum()
        assert wrong > 50

    @pytest.mark.parametrize("level", ["ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
    @pytest.mark.parametrize("form", ["static", "dynamic"])
    def test_loads_with_exact_products_and_gives_the_same_bits(
        self, lowered: Callable[..., tuple[onnx.ModelProto, Precision]], form: str, level: str
    ) -> None:
        """The way out that onnxruntime has replaces the weights of each product, once."""
        model, _ = lowered("ltmp", form)
        pixels = inputs.embedded_digits().pixels[:5]
        found = []
        for way in ("0", "1"):
            options = ort.SessionOptions()
            options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
            options.add_session_config_entry("session.x64quantprecision", way)
            options.intra_op_num_threads = 1
            options.log_severity_level = 4
            session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            found.append(session.run(None, {"images": pixels})[0])
        np.testing.assert_array_equal(*found)


class TestRule:
    @pytest.mark.parametrize("depth", [1, 2, 3, 64, 383])
    def test_integers_are_the_nearest_and_safe(self, depth: int) -> None:
        """Also where all is a tie: halves of one step, at scales that float32 does not hold."""
        rng = np.random.default_rng(depth)
        halves = rng.integers(-255, 256, (3000, depth)) / 2 * rng.random((3000, 1))
        for numbers in (rng.standard_normal((500, depth)), halves):
            weight = numbers.astype(np.float32)
            integers, scale = quantised(weight)
            wide = np.pad(integers.astype(int), ((0, depth % 2), (0, 0))).reshape(-1, 2, len(scale))
            assert np.maximum(wide, 0).sum(axis=1).max() <= 128
            assert np.minimum(wide, 0).sum(axis=1).min() >= -128
            assert np.abs(wide).max() <= 127
            off = np.abs(integers.T * scale[:, None].astype(float) - weight)
            assert (off <= (0.5 + 1e-4) * scale[:, None]).all()

    def test_no_scale_is_larger_than_it_must_be(self) -> None:
        """Each output uses 127, or has a pair of 128 or, rounded, 127."""
        weight = np.random.default_rng(1).standard_normal((200, 96)).astype(np.float32)
        integers, _ = quantised(weight)
        pairs = np.abs(integers[::2].astype(int) + integers[1::2]).max(axis=0)
        assert (np.maximum(pairs, np.abs(integers.astype(int)).max(axis=0)) >= 127).all()

    def test_numbers_at_the_ends_of_float32(self) -> None:
        weight = np.array([[0, 0], [1e-45, 1e-42], [3.4e38, 3.4e38], [1e-30, 0]], np.float32)
        integers, scale = quantised(weight)
        assert integers.T.tolist() == [[0, 0], [0, 0], [64, 64], [127, 0]]
        assert scale[:2].tolist() == [1, 1]
        assert np.isfinite(scale).all()


def product_here(rows: Array, weight: Array) -> Array:
    """What onnxruntime makes of it on this processor."""
    given = helper.make_tensor_value_info("x", TensorProto.UINT8, rows.shape)
    taken = helper.make_tensor_value_info("y", TensorProto.INT32, None)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [given], [taken], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"x": rows})[0]
    return found


@pytest.mark.parametrize("count", [1, 40])
def test_the_probe_tells_what_this_processor_does(count: int) -> None:
    rng = np.random.default_rng(count)
    rows = rng.integers(0, 256, (count, 96)).astype(np.uint8)
    weight, _ = eight_bits(rng.standard_normal((48, 96)))
    weight = np.ascontiguousarray(weight)
    assert (saturating(rows, weight) != exact(rows, weight)).any()
    way = saturating if saturation.saturates_here() else exact
    np.testing.assert_array_equal(product_here(rows, weight), way(rows, weight))


def unsafe(model: onnx.ModelProto, weight: Array, step: float, path: str = FC1) -> None:
    """Store a layer's weights in all of 8 bits, as versions before this one did."""
    integers, scale = eight_bits(weight)
    for tensor in model.graph.initializer:
        if tensor.name == f"{path}.weight.int8":
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(integers), tensor.name))
        if tensor.name == f"{path}.weight.scale":
            tensor.CopyFrom(numpy_helper.from_array(scale * np.float32(step), tensor.name))


@pytest.fixture(scope="module")
def saturable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 file of the digits with one layer that can saturate."""
    path = tmp_path_factory.mktemp("unsafe") / "unsafe.onnx"
    checkpoint = load_checkpoint(DIGITS_LTMP)
    few = inputs.embedded_digits().select(8)
    checkpoint, precision = prepared(checkpoint, few.pixels, "static")
    model = to_onnx(checkpoint, opset=17, precision=precision)
    weight = checkpoint.model.state_dict()[f"{FC1}.weight"].numpy()
    unsafe(model, weight, precision.layers[FC1].steps()[0][0])
    onnx.save(model, path)
    return path


class TestFilesThatCanSaturate:
    @pytest.mark.parametrize("here", [True, False])
    def test_check_fails_on_every_processor(
        self, saturable: Path, monkeypatch: pytest.MonkeyPatch, here: bool
    ) -> None:
        monkeypatch.setattr(saturation, "saturates_here", lambda: here)
        report = check.check(saturable, DIGITS_LTMP, samples=1)
        assert report.verdict == "fail"
        assert report.reason.startswith(f"{FC1}: neighbouring int8 weights add up to 2")
        where = "as on this one, so its numbers differ here" if here else "though not on this one"
        assert "expected at most 128: its products saturate on x86-64 processors" in report.reason
        assert f"without VNNI, {where} (1 of 29 products can); export the file" in report.reason
        assert "\n" not in report.reason
        assert report.products is not None
        assert (report.products.layer, report.products.exact, report.saturates) == (
            FC1, False, here,
        )  # fmt: skip
        with pytest.raises(CheckFailedError, match="neighbouring int8 weights"):
            report.require()

    def test_export_writes_nothing_of_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ltmp_export.backbones.vit.layers.quantised", eight_bits)
        with pytest.raises(CheckFailedError, match="neighbouring int8 weights add up to 2"):
            export.export(DIGITS_LTMP, tmp_path / "m.onnx", precision=Precision(INT8))
        assert list(tmp_path.iterdir()) == []

    def test_inspect_tells(self, saturable: Path) -> None:
        found = inspect(saturable)["products"]
        assert found["largest_pair"] > 128
        assert found == {
            "count": 29, "exact": False, "beyond": 1, "largest_pair": found["largest_pair"],
            "layer": FC1,
        }  # fmt: skip
        words = saturation.Products(**found).describe()
        assert words.startswith("1 of 29 can saturate on x86-64 without VNNI (largest pair 2")
        assert f", in {FC1}; up to 128 is exact); export the file again with" in words


Change = Callable[[dict[str, Array]], dict[str, Array]]


def coarse(stored: dict[str, Array]) -> dict[str, Array]:
    """Scales so large that every integer is 0, stated consistently."""
    return {
        f"{FC1}.weight.int8": stored[f"{FC1}.weight.int8"] * 0,
        f"{FC1}.weight.scale": stored[f"{FC1}.weight.scale"] * 1e4,
    }


def halved(stored: dict[str, Array]) -> dict[str, Array]:
    """7 bits: every integer is right at its scale, and the scale is not what it could be."""
    return {
        f"{FC1}.weight.int8": np.rint(stored[f"{FC1}.weight.int8"] / 2).astype(np.int8),
        f"{FC1}.weight.scale": stored[f"{FC1}.weight.scale"] * 2,
    }


FAULTS: dict[str, tuple[Change, str]] = {
    "a scale that rounds all to 0": (coarse, f"{FC1}.weight.scale differs from the checkpoint's"),
    "a scale of 7 bits": (halved, f"{FC1}.weight.scale differs from the checkpoint's by up to 1 "),
    "another second copy": (
        lambda stored: {"head.weight.int8_rest": stored["head.weight.int8"] // 2},
        "head.weight.int8_rest is another weight than head.weight.int8",
    ),
    "another second scale": (
        lambda stored: {"head.weight.scale_rest": stored["head.weight.scale_rest"] * 1.01},
        "head.weight.scale_rest differs from the checkpoint's by up to 0.01",
    ),
    "a NaN": (
        lambda stored: {f"{FC1}.weight.scale": stored[f"{FC1}.weight.scale"] * np.nan},
        f"{FC1}.weight.scale differs from the checkpoint's by up to nan",
    ),
}


@pytest.mark.parametrize(("how", "told"), FAULTS.values(), ids=FAULTS)
def test_wrong_scales_and_copies_fail(
    digits: Digits,
    lowered: Callable[..., tuple[onnx.ModelProto, Precision]],
    how: Change,
    told: str,
) -> None:
    model, precision = lowered("ltmp", "static")
    changed = how(weights_of(model))
    model = copy.deepcopy(model)
    for tensor in model.graph.initializer:
        if tensor.name in changed:
            array = np.ascontiguousarray(changed[tensor.name])
            kept = array.astype(np.float32) if array.dtype == np.float64 else array
            tensor.CopyFrom(numpy_helper.from_array(kept, tensor.name))
    few = inputs.embedded_digits().select(1)
    report = compare.compare(model, digits("ltmp"), few, batch_sizes=(1,), precision=precision)
    assert report.verdict == "fail"
    assert told in report.reason


def test_a_file_without_integers_has_no_products(digits: Digits) -> None:
    assert saturation.products(to_onnx(digits("m"), opset=17)) is None


@pytest.mark.parametrize("scales", ["static", DYNAMIC])
def test_a_right_file_says_so(tmp_path: Path, scales: str) -> None:
    path = tmp_path / "model.onnx"
    done = export.export(DIGITS_LTMP, path, precision=Precision(INT8, scales=scales))
    assert done.check is not None
    assert done.check.products is not None
    assert done.check.saturates == saturation.saturates_here()
    found = inspect(path)["products"]
    assert found == asdict(done.check.products)
    assert (found["count"], found["exact"], found["beyond"]) == (29, True, 0)
    words = saturation.Products(**found).describe()
    assert words == f"exact on every processor (largest pair {found['largest_pair']})"
    assert found["largest_pair"] in (127, 128)
