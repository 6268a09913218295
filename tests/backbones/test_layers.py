"""Layers that only some ViTs of timm's have: gated MLPs, RMSNorm."""

from __future__ import annotations

import numpy as np
import pytest

from ltmp_export.backbones.vit import feed_forward
from ltmp_export.backbones.vit.layers import VitLayers
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.plan import mlps
from ltmp_export.plan.plan import dense_plan
from ltmp_export.plan.work import dense_macs
from ltmp_export.reference import verify_against_timm
from tests.backbones import test_oracle
from tests.makers import counted_macs, lower_precision, odd_layers, random_vits
from tests.makers.exported import Exported
from tests.makers.random_vits import Case, bare
from tests.oracles import agreement

OPSETS = test_oracle.OPSETS
SOME = 5  # images
OF_LARGEST = 2e-4


@pytest.mark.parametrize("case", odd_layers.ALL, ids=str)
def test_nothing_reduced_is_timm(case: Case) -> None:
    model, vit = random_vits.build(case)
    verify_against_timm(model, vit)
    images = random_vits.images(vit, case.seed)
    wanted = model(images).numpy()
    plan = dense_plan(vit.depth)
    for opset in OPSETS:
        found = Exported(vit, plan, model, opset).run(images).logits
        assert np.abs(found - wanted).max() <= OF_LARGEST * np.abs(wanted).max()
    single = to_onnx(bare(model, vit, plan), opset=17, batch_size=1)
    assert counted_macs.executed(single, images[:1].numpy()) == dense_macs(vit)


@pytest.mark.parametrize("case", odd_layers.ORACLE, ids=str)
def test_against_the_oracle(case: Case) -> None:
    model, vit = random_vits.build(case)
    images = random_vits.images(vit, case.seed)
    opset = OPSETS[case.seed % len(OPSETS)]
    plan = random_vits.middle_plan(model, images, "ltmp", case.seed)
    counts, compared = test_oracle.compare(model, vit, plan, images, opset)
    assert compared == len(images)
    assert (counts[:, -1] < vit.tokens).all()
    agreement.compare(case, images, "m", "3", (3, 3, 3), opset)


def reducing(case: Case) -> tuple[Checkpoint, Images]:
    """A case under merge and prune thresholds, and images for it."""
    model, vit = random_vits.build(case)
    pixels = random_vits.images(vit, case.seed, 16)
    plan = random_vits.middle_plan(model, pixels[:5], "ltmp", case.seed)
    names = tuple(map(str, range(len(pixels))))
    return bare(model, vit, plan), Images(pixels.numpy(), None, names, "test")


@pytest.mark.parametrize("form", ["static", "dynamic", "fp16"])
def test_lower_precision(form: str) -> None:
    """RMSNorm is balanced without a shift, and gate and value are rounded apart."""
    checkpoint, images = reducing(odd_layers.AIMV2)
    pixels = images.pixels
    source, precision = lower_precision.prepared(checkpoint, pixels, form)
    model = to_onnx(source, opset=17, precision=precision)
    expected = lower_precision.reference_logits(checkpoint, pixels)
    assert lower_precision.same_class(lower_precision.in_batches(model, pixels, 16), expected) >= 13
    if form == "static":
        before, after = (one.model.blocks[0].norm1.weight for one in (checkpoint, source))
        assert not before.equal(after)
        balanced = lower_precision.reference_logits(source, pixels)
        np.testing.assert_allclose(balanced, expected, rtol=0, atol=lower_precision.BALANCING)
    report = compare.compare(model, checkpoint, images, batch_sizes=(2,), precision=precision)
    assert report.verdict == "bounded", report.headline()


class TestWrongGraphs:
    def test_gate_and_value_exchanged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        right = feed_forward.write

        def wrong(layers: VitLayers, path: str, x: Name, kind: str, act: str) -> Name:
            swapped = mlps.PACKED_LAST if path == "blocks.1.mlp" else kind
            return right(layers, path, x, swapped, act)

        monkeypatch.setattr(feed_forward, "write", wrong)
        assert found_in(odd_layers.PACKED) == {"block 1"}

    def test_epsilon_of_rms_norm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        right = GraphBuilder.rms_norm

        def wrong(g: GraphBuilder, x: Name, weight: Name, eps: float) -> Name:
            return right(g, x, weight, 1e-3 if g._scope.startswith("block_01") else eps)

        monkeypatch.setattr(GraphBuilder, "rms_norm", wrong)
        assert found_in(odd_layers.AIMV2) == {"block 1"}


def found_in(case: Case) -> set[str]:
    """Where the check finds that what is written is wrong."""
    checkpoint, images = reducing(case)
    report = compare.compare(to_onnx(checkpoint, opset=17), checkpoint, images, batch_sizes=(2,))
    assert report.verdict == "fail"
    return {c.where for c in report.of("fail")}
