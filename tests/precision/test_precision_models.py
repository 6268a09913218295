"""Models of any kind, and single layers, in int8 and float16."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from ltmp_export.backbones.vit import describe
from ltmp_export.backbones.vit.layers import Layers
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.model_file.model import to_onnx
from ltmp_export.model_file.validate import validate
from ltmp_export.plan.plan import Plan
from ltmp_export.precision.formats import DYNAMIC, INT8, STATIC, Activation, Precision
from ltmp_export.steps.merge_most.step import MergeMost
from tests.makers import random_vits
from tests.makers.distilled import distilled
from tests.makers.lower_precision import (
    BALANCING,
    UNPROTECTED,
    Array,
    Weights,
    in_batches,
    prepared,
    reference_logits,
    same_class,
    session,
    types,
    weights_of,
)
from tests.makers.random_vits import bare


@functools.cache
def random_checkpoint(case: str, family: str) -> tuple[Checkpoint, NDArray[np.float32]]:
    """A model of random weights with thresholds amid its scores, and images for it."""
    model, geometry = random_vits.build(CASES[case])
    images = random_vits.images(geometry, CASES[case].seed, 16)
    plan = random_vits.middle_plan(model, images[:5], family, CASES[case].seed)
    return bare(model, geometry, plan), images.numpy()


CASES = {case.name: case for case in random_vits.OPTIONS}
ODD = (
    "qk_norm", "no_biases", "layer_scale", "avg", "avg_fc_norm", "patch_norm", "pre_norm",
    "attn_mlp_norm", "no_final_norm", "quick_gelu", "gelu_tanh", "all_options",
)  # fmt: skip


class TestOddModels:
    @pytest.mark.parametrize(
        ("name", "form"),
        [
            *itertools.product(ODD, ("static", "fp16")),
            *itertools.product(("qk_norm", "avg_fc_norm", "all_options"), UNPROTECTED),
        ],
    )
    def test_runs_near_float32(self, name: str, form: str) -> None:
        """At least 14 of 16 classes: random ones are often undecided. An image alone is itself."""
        checkpoint, pixels = random_checkpoint(name, "ltmp")
        expected = reference_logits(checkpoint, pixels)
        source, precision = prepared(checkpoint, pixels, form)
        model = to_onnx(source, opset=17, precision=precision)
        found = in_batches(model, pixels, 16)
        assert same_class(found, expected) >= 14
        alone = in_batches(model, pixels[:5], 1)
        if form.startswith("static"):
            np.testing.assert_array_equal(alone, found[:5])
        else:
            np.testing.assert_allclose(alone, found[:5], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("name", ODD)
    def test_balancing_changes_nothing(self, name: str) -> None:
        """The reference gives the same logits with the balanced weights."""
        checkpoint, pixels = random_checkpoint(name, "ltmp")
        source, _ = prepared(checkpoint, pixels, "static")
        before = checkpoint.model.state_dict()
        changed = [k for k, v in source.model.state_dict().items() if not torch.equal(v, before[k])]
        assert any(key.endswith("mlp.fc1.weight") for key in changed)
        np.testing.assert_allclose(
            reference_logits(source, pixels),
            reference_logits(checkpoint, pixels),
            rtol=0,
            atol=BALANCING,
        )

    def test_metric_of_normalised_keys(self) -> None:
        """With qk_norm each head is normalised before the mean: all their weights are stored."""
        checkpoint, pixels = random_checkpoint("qk_norm", "ltmp")
        for form in ("static", "fp16"):
            source, precision = prepared(checkpoint, pixels, form)
            model = to_onnx(source, opset=17, precision=precision)
            assert weights_of(model)["blocks.0.attn.metric.weight"].shape == (48, 48)
            assert types(model)["block_00/attn/metric"] == TensorProto.FLOAT

    @pytest.mark.parametrize("form", ["static", "dynamic", "fp16", "fp16 io"])
    def test_distilled(self, form: str) -> None:
        """Two heads, both rounded, in a plan that merges."""
        model = distilled()
        geometry = describe.describe(model, "distilled")
        checkpoint = bare(model, geometry, Plan("m", ((MergeMost(3),), (MergeMost(2),))))
        noise = np.random.default_rng(0).standard_normal((16, *geometry.input_size))
        pixels = noise.astype(np.float32)
        source, precision = prepared(checkpoint, pixels, form)
        exported = to_onnx(source, opset=17, precision=precision)
        if precision.layers:
            assert precision.layers["head_dist"].terms == precision.layers["head"].terms == 2
        expected = in_batches(to_onnx(checkpoint, opset=17), pixels, 16)
        found = in_batches(exported, pixels, 16)
        assert np.abs(found - expected).max() < 0.1 * expected.std()


class TestOneLayer:
    """The integer arithmetic of one layer against numpy's."""

    @pytest.mark.parametrize("terms", [1, 2])
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("scale", [0.03, None], ids=["static", "dynamic"])
    def test_linear(self, terms: int, bias: bool, scale: float | None) -> None:
        rng = np.random.default_rng(terms)
        x = rng.standard_normal((9, 6)).astype(np.float32) + np.float32(0.4)
        weights = {"l.weight": rng.standard_normal((5, 6)).astype(np.float32)}
        if bias:
            weights["l.bias"] = rng.standard_normal(5).astype(np.float32)
        given = Activation(scale, 110, terms)
        found = self.run(x, weights, given)
        step = scale or float((x.max() - x.min()) / 255)
        point = 110 if scale else round(-float(x.min()) / step)
        shown = np.zeros(x.shape)
        for size, zero in ((step, point), (step / 255, 128))[:terms]:
            integers = np.clip(np.rint((x - shown) / size), -zero, 255 - zero)
            shown += integers * size
        pairs = weights["l.weight"][:, ::2] + weights["l.weight"][:, 1::2]
        ends = [np.abs(a).max(axis=1, keepdims=True) for a in (weights["l.weight"], pairs)]
        columns = np.maximum(ends[0] / 127, ends[1] / 128) * (1 + 1e-6)
        weight = np.rint(weights["l.weight"] / columns) * columns
        expected = shown @ weight.T + weights.get("l.bias", 0)
        np.testing.assert_allclose(found, expected, atol=2e-5 * 9)
        exact = x @ weight.T + weights.get("l.bias", 0)
        inside = ((x >= -step * point) & (x <= step * (255 - point))).all(axis=1)
        error = np.abs(found - exact)[inside].max()
        assert error < (1e-3 if terms == 2 else 0.2)
        assert error > (0 if terms == 2 else 2e-3)

    @staticmethod
    def run(x: Array, weights: Weights, given: Activation) -> Array:
        g = GraphBuilder(17, weights)
        rows = g.input("images", TensorProto.FLOAT, ("rows", 6))
        scales = DYNAMIC if given.scale is None else STATIC
        _, geometry = random_vits.build(random_vits.EVEN)
        precision = Precision(INT8, scales=scales, layers={"l": given})
        y = Layers(g, geometry, precision, one=g.number(1.0)).linear("l", rows)
        g.output(y, "y", TensorProto.FLOAT, ("rows", 5))
        model = g.build("layer", {})
        validate(model, 17)
        return session(model).run(x)[0]
