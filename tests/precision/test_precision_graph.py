"""Graphs in int8 and float16: valid, near the float32 file, fused, and exact where it counts."""

from __future__ import annotations

import functools
import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import taps
from ltmp_export.precision.formats import FP16, FP32, INT8, Precision
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.recording import TappedSession
from tests.makers import examples
from tests.makers.lower_precision import (
    BALANCING,
    FORMS,
    UNPROTECTED,
    Array,
    in_batches,
    kinds,
    prepared,
    reference_logits,
    same_class,
    session,
    types,
    weights_of,
)

Digits: TypeAlias = Callable[[str], Checkpoint]
Made: TypeAlias = Callable[[str, str], tuple[Checkpoint, Precision]]
Graph: TypeAlias = Callable[..., onnx.ModelProto]

BUDGET = "budget"  # of ltmp: a static plan
KEEP = (50, 40, 30, 25, 20, 18)
LINEAR_LAYERS, FINE = 25, 4  # of the digits; those of two terms, see `plan.linears`
SAME_CLASS = 47  # of 48 digits; measured: 48 in every form of every family

int8_forms = pytest.mark.parametrize("form", ["static", "dynamic"])
each_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(scope="module")
def pixels(digit_images: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = digit_images.numpy()
    return found


@pytest.fixture(scope="module")
def made(digits: Digits, pixels: NDArray[np.float32]) -> Made:
    """The checkpoint of a family and the precision of a form, ready to be lowered."""

    @functools.cache
    def make(family: str, form: str) -> tuple[Checkpoint, Precision]:
        checkpoint = digits("ltmp" if family == BUDGET else family)
        if family == BUDGET:
            checkpoint = replace(checkpoint, plan=checkpoint.plan.within(KEEP))
        return prepared(checkpoint, pixels[::6], form)

    return make


@pytest.fixture(scope="module")
def graph(made: Made) -> Graph:
    """The model of a family in a form."""

    @functools.cache
    def lower(
        family: str, form: str, opset: int = 17, batch_size: int | None = None
    ) -> onnx.ModelProto:
        checkpoint, precision = made(family, form)
        return to_onnx(checkpoint, opset=opset, batch_size=batch_size, precision=precision)

    return lower


@pytest.fixture(scope="module")
def float32(graph: Graph, pixels: NDArray[np.float32]) -> Callable[[str], Array]:
    """Logits [48, 10] of a family's float32 file."""
    return functools.cache(lambda family: in_batches(graph(family, FP32), pixels, 48))


class TestDigits:
    @pytest.mark.parametrize(
        ("family", "form"),
        [
            *((family, "static") for family in sorted({*families.names()} - {*examples.LIGHT})),
            *itertools.product(("ltmp", "m", "patchmerger"), [*FORMS][1:]),
        ],
    )
    def test_agrees_with_float32(
        self, graph: Graph, float32: Callable[[str], Array], pixels: NDArray[np.float32],
        family: str, form: str,
    ) -> None:  # fmt: skip
        expected = float32(family)
        found = in_batches(graph(family, form), pixels, 7)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        assert same_class(found, expected) >= SAME_CLASS
        assert not np.array_equal(found, expected)

    @pytest.mark.parametrize("form", ["static", "fp16"])
    @pytest.mark.parametrize("family", ["ltmp", "m"])
    def test_of_single_images(
        self, graph: Graph, pixels: NDArray[np.float32], family: str, form: str
    ) -> None:
        alone = in_batches(graph(family, form, batch_size=1), pixels[:4], 1)
        together = in_batches(graph(family, form), pixels[:4], 4)
        assert same_class(alone, together) >= 3
        np.testing.assert_allclose(alone, together, rtol=0, atol=1e-4)  # 1.3e-5 measured, fp16

    @pytest.mark.parametrize(
        ("form", "opset", "batch_size"),
        [
            *itertools.product(("static",), (16, 20, opsets.newest(opsets.Form(INT8))), (None, 1)),
            *itertools.product(("fp16",), (16, 20, opsets.newest(opsets.Form(FP16))), (None, 1)),
            *itertools.product(("dynamic", "fp16 io"), (16,), (None, 1)),
        ],
    )
    def test_opsets(
        self,
        graph: Graph,
        float32: Callable[[str], Array],
        pixels: NDArray[np.float32],
        form: str,
        opset: int,
        batch_size: int | None,
    ) -> None:
        model = graph("ltmp", form, opset, batch_size)
        found = in_batches(model, pixels[:7], batch_size or 7)
        assert same_class(found, float32("ltmp")[:7]) == 7
        native = kinds(model).keys() & {"LayerNormalization", "Gelu"}
        assert len(native) == (0 if opset == 16 else 2)

    @each_form
    def test_operators_are_standard(self, graph: Graph, form: str) -> None:
        for family in ("ltmp", "m", BUDGET, "patchmerger"):
            assert {node.domain for node in graph(family, form).graph.node} == {""}

    @pytest.mark.parametrize("form", ["static", "fp16"])
    @pytest.mark.parametrize("family", ["ltmp", "m"])
    def test_no_images(
        self, graph: Graph, pixels: NDArray[np.float32], family: str, form: str
    ) -> None:
        assert session(graph(family, form)).run(pixels[:0])[0].shape == (0, 10)


class TestStaticInt8:
    @pytest.mark.parametrize("family", ["ltmp", "ltpm", "m", BUDGET])
    def test_an_image_alone_gives_the_same_bits(
        self, graph: Graph, pixels: NDArray[np.float32], family: str
    ) -> None:
        """Alone, in batches of 7 and of 48, and in another order."""
        alone = in_batches(graph(family, "static"), pixels, 1)
        for size in (7, 48):
            np.testing.assert_array_equal(in_batches(graph(family, "static"), pixels, size), alone)
        order = np.random.default_rng(0).permutation(48)
        moved = in_batches(graph(family, "static"), pixels[order], 31)
        np.testing.assert_array_equal(moved, alone[order])

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("family", ["ltmp", "m", BUDGET])
    def test_a_broken_image_stays_in_its_row(
        self, graph: Graph, pixels: NDArray[np.float32], family: str, value: float
    ) -> None:
        """It gives NaN, though integers have none; of the others every bit is the same."""
        images = pixels[:7].copy()
        images[2] = value
        images[5, 1, 17, 9] = value  # one number of one channel
        whole, broken = (
            in_batches(graph(family, "static"), given, 7) for given in (pixels[:7], images)
        )
        others = [0, 1, 3, 4, 6]
        np.testing.assert_array_equal(broken[others], whole[others])
        assert np.isnan(broken[[2, 5]]).all()
        single = in_batches(graph(family, "static", batch_size=1), images, 1)
        assert np.isnan(single).all(axis=1).tolist() == [i in (2, 5) for i in range(7)]

    def test_the_file_says_so(self, made: Made, graph: Graph) -> None:
        props = {entry.key: entry.value for entry in graph("ltmp", "static").metadata_props}
        stated = json.loads(props["ltmp.precision"])
        assert stated["batch_invariant"] is True
        assert Precision.from_json(stated) == made("ltmp", "static")[1]


def test_scales_of_the_batch_depend_on_it(graph: Graph, pixels: NDArray[np.float32]) -> None:
    """And the file says so."""
    model = graph("ltmp", "dynamic")
    alone, together = (in_batches(model, pixels[:7], size) for size in (1, 7))
    assert np.abs(alone - together).max() > 1e-3
    props = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(props["ltmp.precision"])["batch_invariant"] is False


class TestFusion:
    """onnxruntime joins an integer product with its scales: half the speed comes of that."""

    @staticmethod
    def optimised(model: onnx.ModelProto, path: Path) -> Counter[str]:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return kinds(onnx.load(path))

    @pytest.mark.parametrize("batch_size", [None, 1])
    @pytest.mark.parametrize(
        ("family", "opset"), [("ltmp", 17), ("ltmp", 20), ("m", 17), (BUDGET, 17)]
    )
    @int8_forms
    def test_every_product(
        self,
        graph: Graph,
        tmp_path: Path,
        family: str,
        form: str,
        opset: int,
        batch_size: int | None,
    ) -> None:
        model = graph(family, form, opset, batch_size)
        products = LINEAR_LAYERS + FINE
        assert kinds(model)["MatMulInteger"] == products
        left = self.optimised(model, tmp_path / "optimised.onnx")
        assert left["MatMulInteger"] == 0
        if form == "static":
            assert left["MatMulIntegerToFloat"] == products
        else:
            assert left["MatMulIntegerToFloat"] + left["DynamicQuantizeMatMul"] == products


def rounded_by_hand(weight: Array) -> tuple[Array, Array, Array]:
    """[out, in] → integers [in, out], which of them are far from a tie, steps [out]; one by one."""
    integers = np.zeros(weight.T.shape, int)
    certain = np.zeros(weight.T.shape, bool)
    steps = np.zeros(len(weight))
    for column, values in enumerate(weight.tolist()):
        pairs = [abs(a + b) for a, b in zip(values[::2], values[1::2], strict=False) if a * b > 0]
        step = max(max(abs(value) for value in values) / 127, max(pairs) / 128)
        steps[column] = step
        for row, value in enumerate(values):
            exact = value / step if step else 0.0
            integers[row, column] = round(exact)
            certain[row, column] = abs(exact % 1 - 0.5) > 1e-4
    return integers, certain, steps


class TestStoredWeights:
    def test_integers_by_column(self, made: Made, graph: Graph) -> None:
        checkpoint, precision = made("ltmp", "static")
        stored = weights_of(graph("ltmp", "static"))
        state = {name: value.numpy() for name, value in checkpoint.model.state_dict().items()}
        assert len(precision.layers) == LINEAR_LAYERS
        assert sum(given.terms == 2 for given in precision.layers.values()) == FINE
        for path, given in precision.layers.items():
            integers = stored[f"{path}.weight.int8"]
            weight = state[f"{path}.weight"]
            assert integers.dtype == np.int8
            expected, certain, steps = rounded_by_hand(weight)
            assert certain.mean() > 0.99
            np.testing.assert_array_equal(integers[certain], expected[certain])
            for term, suffix in enumerate(("", "_rest")[: given.terms]):
                scales = stored[f"{path}.weight.scale{suffix}"]
                assert scales.shape == (weight.shape[0],)
                np.testing.assert_allclose(scales, steps * given.steps()[term][0], rtol=2e-6)
                np.testing.assert_array_equal(stored[f"{path}.weight.int8{suffix}"], integers)
            assert f"{path}.weight" not in stored

    @int8_forms
    def test_dynamic_and_static_store_the_same_integers(self, graph: Graph, form: str) -> None:
        one, other = (weights_of(graph("m", form)), weights_of(graph("m", "static")))
        assert [name for name in one if name.endswith(".int8")] == [
            name for name in other if name.endswith(".int8")
        ]
        for name in one:
            if name.endswith(".int8"):
                np.testing.assert_array_equal(one[name], other[name])

    @pytest.mark.parametrize("form", ["fp16", "fp16 io", "static", "dynamic"])
    @pytest.mark.parametrize("family", ["ltmp", "m", "p", BUDGET])
    def test_no_float32_weight_of_a_linear_layer(
        self, graph: Graph, family: str, form: str
    ) -> None:
        matrices = {
            name
            for name, value in weights_of(graph(family, form)).items()
            if value.dtype == np.float32 and value.ndim == 2 and name.endswith(".weight")
        }
        blocks = range(6) if family != "p" else ()
        assert matrices == {f"blocks.{block}.attn.metric.weight" for block in blocks}

    @pytest.mark.parametrize(
        ("form", "share"), [("fp16", 0.6), ("fp16 io", 0.6), ("static", 0.4), ("dynamic", 0.4)]
    )
    def test_size(self, graph: Graph, form: str, share: float) -> None:
        """0.556 and 0.331 measured: on larger models nearer to 1/2 and 1/4."""
        whole = graph("ltmp", FP32).ByteSize()
        assert graph("ltmp", form).ByteSize() < share * whole


class TestDecisions:
    """What decides is float32 in every file."""

    @pytest.mark.parametrize(
        ("family", "form"),
        [
            *itertools.product(("ltmp", BUDGET), FORMS),
            *itertools.product(("ltpm", "mp"), ("static",)),
            *itertools.product(("ltmp", BUDGET), UNPROTECTED),
        ],
    )
    def test_scores_and_thresholds(self, graph: Graph, family: str, form: str) -> None:
        model = graph(family, form)
        found = types(model)
        leaves = {"metric", "similarity", "importance", "size", "tokens", "Softmax"}
        seen = Counter[str]()
        for name, kind in found.items():
            leaf = name.rpartition("/")[2].rstrip("_0123456789")
            if leaf in leaves:
                assert kind == TensorProto.FLOAT, name
                seen[leaf] += 1
        assert all(seen[leaf] >= 5 for leaf in leaves), seen
        stored = weights_of(model)
        thresholds = [name for name in stored if "threshold" in name]
        assert len(thresholds) == (0 if family == "mp" else 12)
        assert {stored[name].dtype for name in thresholds} <= {np.dtype(np.float32)}

    @each_form
    def test_the_metric_is_the_float32_mean_of_keys(
        self, made: Made, graph: Graph, form: str
    ) -> None:
        """It has a projection of its own, whose weights no rounding has touched."""
        checkpoint, _ = made("ltmp", form)
        state = {name: value.numpy() for name, value in checkpoint.model.state_dict().items()}
        keys = state["blocks.0.attn.qkv.weight"].reshape(3, 2, 64, 128)[1]
        stored = weights_of(graph("ltmp", form))
        np.testing.assert_allclose(
            stored["blocks.0.attn.metric.weight"], keys.mean(axis=0), atol=1e-7
        )

    def test_tapped(self, graph: Graph, made: Made, pixels: NDArray[np.float32]) -> None:
        checkpoint, _ = made("ltmp", "fp16 io")
        tapped = TappedSession(graph("ltmp", "fp16 io"), taps.names(checkpoint.plan), threads=1)
        found = tapped.run(pixels[:3])
        assert found["logits"].dtype == np.float32
        assert found["block_02/similarity"].dtype == np.float32


class TestInputsAndOutputs:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("batch_size", [None, 1])
    def test_types(self, graph: Graph, form: str, batch_size: int | None) -> None:
        model = graph("ltmp", form, batch_size=batch_size)
        wanted = TensorProto.FLOAT16 if form == "fp16 io" else TensorProto.FLOAT
        for value in (model.graph.input[0], model.graph.output[0]):
            assert value.type.tensor_type.elem_type == wanted

    def test_sessions_take_float32_and_give_float32(
        self, graph: Graph, pixels: NDArray[np.float32]
    ) -> None:
        """As onnxruntime has it of float16 images; what is too large for them is infinite."""
        model = graph("ltmp", "fp16 io")
        plain = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (expected,) = plain.run(None, {"images": pixels[:3].astype(np.float16)})
        (found,) = session(model).run(pixels[:3])
        assert expected.dtype == np.float16
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.astype(np.float32), atol=1e-2)
        assert np.isnan(session(model).run(pixels[:1] + np.float32(1e6))[0]).all()


def test_balancing_changes_nothing_of_the_digits(
    made: Made, digits: Digits, pixels: NDArray[np.float32]
) -> None:
    for family in ("ltmp", "m"):
        before, after = (
            reference_logits(checkpoint, pixels[::4])
            for checkpoint in (digits(family), made(family, "static")[0])
        )
        np.testing.assert_allclose(after, before, rtol=0, atol=BALANCING)
