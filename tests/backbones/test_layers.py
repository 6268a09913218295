"""Layers that only some ViTs of timm's have: gated MLPs, RMSNorm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ltmp_export import families
from ltmp_export.backbones.trace import Trace
from ltmp_export.backbones.vit import differential, facts, feed_forward, parallel, pooling, stems
from ltmp_export.backbones.vit.layers import VitLayers
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.plan import difference, mlps
from ltmp_export.plan.plan import dense_plan
from ltmp_export.plan.vit import Vit
from ltmp_export.plan.work import dense_macs
from ltmp_export.reference import Reference, verify_against_timm
from ltmp_export.statements.choices import Choices
from ltmp_export.statements.gather import Said, Statements
from ltmp_export.timing.literal import LiteralViT
from ltmp_export.training.forms import ALIGNED
from ltmp_export.training.model import MaskedVit
from tests import tolerances
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
    constant = vit.width**2 if vit.pool == "map" else 0  # the query is the same for all images
    sums = (vit.tokens - vit.unpooled) * vit.width if vit.pool == "avg" else 0
    counted = counted_macs.executed(single, images[:1].numpy())
    assert counted == dense_macs(vit) + constant + sums


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


def test_what_weights_do_not_tell_is_said(tmp_path: Path) -> None:
    """AIMv2's have heads of 128 channels, no other public plain ViT has RMSNorm."""
    model, _ = random_vits.build(odd_layers.AIMV2)
    path, stated = tmp_path / "bare.pth", Choices(family="m", rate="2", image_size=(16, 12))
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("_norm.weight")}
    torch.save(state, path)
    with pytest.raises(InputError, match="nothing tells the number of heads"):
        load_checkpoint(path, stated)
    found = load_checkpoint(path, replace(stated, num_heads=2))
    assert (found.vit.norm_eps, found.vit.activation, found.vit.mlp) == (1e-5, "silu", mlps.SPLIT)
    assert (found.assumed["act"], found.assumed["norm_eps"]) == ("silu", 1e-5)
    torch.save(random_vits.build(odd_layers.PACKED)[0].state_dict(), path)
    packed = load_checkpoint(path, replace(stated, image_size=None, num_heads=2))
    assert packed.assumed["gate"] == "first"
    assert "the gate in the first half of mlp.fc1 (--model)" in " ".join(packed.notes)
    torch.save(random_vits.build(odd_layers.POOLED)[0].state_dict(), path)
    with pytest.raises(InputError, match="the activation .* state --act gelu|gelu_tanh, or the mo"):
        load_checkpoint(path, replace(stated, num_heads=2))
    stated = replace(stated, act="gelu_tanh")
    pooled = load_checkpoint(path, replace(stated, num_heads=2))
    assert pooled.vit.activation == "gelu_tanh"
    assert pooled.vit.pool == "map"
    assert "pool" not in pooled.assumed
    with pytest.raises(InputError, match="has attention pooling .* --pool states 'avg': drop it"):
        load_checkpoint(path, replace(stated, num_heads=2, pool="avg"))
    bare_weights = random_vits.build(odd_layers.POST_NORM_BARE)[0].state_dict()
    with pytest.raises(InputError, match="whether norms stand in front .* --model NAME"):
        facts.settle(bare_weights, None, Statements(heads=Said(2, "--num-heads")), "c.pth")


@pytest.mark.parametrize(
    "case",
    [
        *(odd_layers.GATE_LAST, odd_layers.RESNET, odd_layers.DIFFERENTIAL, odd_layers.POST_NORM),
        *(odd_layers.PARALLEL_JOINED, odd_layers.PARALLEL_DIFFERENTIAL, odd_layers.MBCONV),
    ],
    ids=str,
)
def test_what_is_reduced_is_the_reference(case: Case) -> None:
    """Files of thresholds, of a fixed rate and of a budget; and training's masked form."""
    checkpoint, images = reducing(case)
    few, model, vit = images.select(4), checkpoint.model, checkpoint.vit
    fixed = agreement.planned("m", "3", vit)
    for plan in (checkpoint.plan, fixed, checkpoint.plan.within([vit.tokens * 2 // 3] * vit.depth)):
        made = replace(checkpoint, plan=plan)
        report = compare.compare(to_onnx(made, opset=17), made, few, batch_sizes=(1, 4))
        assert report.verdict == "equal", report.headline()
    pixels = torch.from_numpy(few.pixels)
    masked = MaskedVit(model, families.load("ltmp"), checkpoint.plan.thresholds(), ALIGNED).eval()
    reference = Reference(model, checkpoint.plan)
    wanted = torch.stack([reference.run(image).logits for image in pixels])
    torch.testing.assert_close(masked(pixels).logits, wanted, rtol=0, atol=tolerances.MASKED)


def test_scores_of_differential_attention() -> None:
    """Its maps count as heads: importance is their mean, the metric the mean of their keys."""
    model, vit = random_vits.build(odd_layers.DIFFERENTIAL)
    image = random_vits.images(vit, 3)[0]
    trace = Reference(model, test_oracle.frozen("ltmp", vit.depth, 1.0, 0.0)).run(image)
    merging, pruning = trace.decisions[0]
    attn, x = model.blocks[0].attn, model.blocks[0].norm1(trace.embedded)
    heads, width = 2 * attn.num_heads, attn.head_dim
    q, k = (part.reshape(-1, heads, width) for part in attn.qkv(x).chunk(3, -1)[:2])
    maps = [
        (attn.q_norm(q[:, h]) @ attn.k_norm(k[:, h]).T / width**0.5).softmax(-1)
        for h in range(heads)
    ]
    importance = torch.stack(maps).mean((0, 1))
    ordered = (scores[1:].sort().values for scores in (pruning.score, importance))
    torch.testing.assert_close(*ordered, rtol=0, atol=1e-6)
    keys = attn.k_norm(k).mean(1)
    metric = keys / keys.norm(dim=-1, keepdim=True)
    best = (metric[2::2] @ metric[1::2].T).amax(1)
    torch.testing.assert_close(merging.score[1:], best, rtol=0, atol=1e-6)


class TestPooling:
    """A token that stands for s patches is pooled as s tokens."""

    @pytest.mark.parametrize(
        "case", [odd_layers.POOLED, odd_layers.POOLED_ALL, odd_layers.MEAN_ALL], ids=str
    )
    def test_sizes(self, case: Case) -> None:
        model, vit = random_vits.build(case)
        images = random_vits.images(vit, case.seed)
        learned = random_vits.middle_plan(model, images, "ltmp", case.seed)
        for plan in (learned, agreement.planned("m", "3", vit)):
            traces = [Reference(model, plan).run(image) for image in images]
            wanted = torch.stack([repeated(model, trace, vit.unpooled) for trace in traces])
            assert any((trace.sizes[-1] > 1).any() for trace in traces)
            found = torch.stack([trace.logits for trace in traces])
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
            for batch_size in (None, 1):
                file = Exported(vit, plan, model, OPSETS[case.seed % len(OPSETS)], batch_size)
                got = file.run_in_batches(images, 1 if batch_size else 3).logits
                np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)
        literal = LiteralViT(model, learned).eval()
        np.testing.assert_allclose(
            literal(images[:1])[0], Reference(model, learned).run(images[0]).logits, atol=1e-5
        )
        masked = MaskedVit(model, families.load("ltmp"), learned.thresholds(), ALIGNED).eval()
        with torch.enable_grad():  # rows of the dead stay
            kept = masked(images).logits.detach()
        wanted = torch.stack([Reference(model, learned).run(image).logits for image in images])
        torch.testing.assert_close(kept, wanted, rtol=0, atol=tolerances.MASKED)

    def test_no_patch_left(self) -> None:
        """The query has nothing to mix; what is left are biases."""
        model, vit = random_vits.build(odd_layers.POOLED)
        images = random_vits.images(vit, 1)
        plan = test_oracle.frozen("ltp", vit.depth, 1.0, [0.0, 0.0, 1.0])
        pool = model.attn_pool
        wanted = model.head(pool.proj.bias + pool.mlp(pool.norm(pool.proj.bias)))
        masked = MaskedVit(model, families.load("ltp"), plan.thresholds(), ALIGNED).eval()
        with torch.enable_grad():
            kept = masked(images).logits.detach()
        file = Exported(vit, plan, model, 17)
        for found in (Reference(model, plan).run(images[0]).logits, file.run(images).logits, kept):
            apart = np.abs(np.asarray(found) - wanted.numpy()).max()
            assert apart < 1e-5


def repeated(model: VisionTransformer, trace: Trace, behind: int) -> Tensor:
    """Logits by timm's own head of as many copies of each token as it stands for patches."""
    times = trace.sizes[-1][behind:].long()
    copies = model.norm(trace.tokens[-1])[behind:].repeat_interleave(times, 0)[None]
    pooled = copies.mean(1) if model.attn_pool is None else model.attn_pool(copies)
    logits: Tensor = model.head(model.fc_norm(pooled))[0]
    return logits


def reducing(case: Case) -> tuple[Checkpoint, Images]:
    """A case under merge and prune thresholds, and images for it."""
    model, vit = random_vits.build(case)
    pixels = random_vits.images(vit, case.seed, 8)
    plan = random_vits.middle_plan(model, pixels[:5], "ltmp", case.seed)
    names = tuple(map(str, range(len(pixels))))
    return bare(model, vit, plan), Images(pixels.numpy(), None, names, "test")


@pytest.mark.parametrize(
    ("case", "form"),
    [
        *((odd_layers.POOLED_ALL, form) for form in ("static", "dynamic", "fp16")),
        *((case, "fp16") for case in (odd_layers.RESNET, odd_layers.CONVS, odd_layers.MBCONV)),
        (odd_layers.MBCONV, "static"),
        *((case, "static") for case in (odd_layers.DIFFERENTIAL, odd_layers.POST_NORM)),
        (odd_layers.DIFFERENTIAL, "fp16"),
        (odd_layers.PARALLEL, "static"),
        (odd_layers.PARALLEL, "fp16"),
        (odd_layers.PARALLEL_JOINED, "dynamic"),
        *((odd_layers.PARALLEL_DIFFERENTIAL, form) for form in ("static", "fp16")),
    ],
    ids=str,
)
def test_lower_precision(case: Case, form: str) -> None:
    """RMSNorm is balanced without a shift, and gate and value are rounded apart."""
    checkpoint, images = reducing(case)
    pixels = images.pixels
    source, precision = lower_precision.prepared(checkpoint, pixels, form)
    model = to_onnx(source, opset=17, precision=precision)
    expected = lower_precision.reference_logits(checkpoint, pixels)
    assert lower_precision.same_class(lower_precision.in_batches(model, pixels, 8), expected) >= 6
    if form == "static" and case is odd_layers.POOLED_ALL:
        before, after = (one.model.blocks[0].norm1.weight for one in (checkpoint, source))
        assert not before.equal(after)
        balanced = lower_precision.reference_logits(source, pixels)
        np.testing.assert_allclose(balanced, expected, rtol=0, atol=lower_precision.BALANCING)
    report = compare.compare(
        model, checkpoint, images.select(3), batch_sizes=(2,), precision=precision
    )
    assert report.verdict == "bounded", report.headline()


class TestWrongGraphs:
    def test_gate_and_value_exchanged(self) -> None:
        right = feed_forward.write

        def wrong(layers: VitLayers, path: str, x: Name, kind: str, act: str) -> Name:
            swapped = mlps.PACKED_LAST if path == "blocks.1.mlp" else kind
            return right(layers, path, x, swapped, act)

        assert found_in(odd_layers.PACKED, feed_forward, "write", wrong) == {"block 1"}

    def test_epsilon_of_rms_norm(self) -> None:
        right = GraphBuilder.rms_norm

        def wrong(g: GraphBuilder, x: Name, weight: Name, eps: float, *name: str | None) -> Name:
            return right(g, x, weight, 1e-3 if g._scope.startswith("block_01") else eps, *name)

        assert found_in(odd_layers.AIMV2, GraphBuilder, "rms_norm", wrong) == {"block 1"}

    def test_weights_of_a_stem_as_they_are(self) -> None:
        def wrong(writer: Any, name: str) -> Name:
            return str(writer.g.weight(name))

        owner = stems._ResNet
        assert found_in(odd_layers.RESNET, owner, "standardised", wrong) == {"embedding"}

    def test_a_stem_padded_on_the_other_side(self) -> None:
        right = stems._Writer.conv

        def wrong(writer: Any, path: str, *given: Name) -> Name:
            own = writer.stem.of(path)
            turned = own._replace(pads=(*own.pads[2:], *own.pads[:2]))
            moved = tuple(turned if one is own else one for one in writer.stem.convs)
            writer.stem = replace(writer.stem, convs=moved)
            return str(right(writer, path, *given))

        assert found_in(odd_layers.RESNET, stems._Writer, "conv", wrong) == {"embedding"}

    def test_means_with_the_padding(self) -> None:
        right = GraphBuilder.op

        def wrong(g: GraphBuilder, kind: str, *given: Name, **named: Any) -> Name:
            named |= {"count_include_pad": 1} if kind == "AveragePool" else {}
            return right(g, kind, *given, **named)

        assert found_in(odd_layers.MBCONV, GraphBuilder, "op", wrong) == {"embedding"}

    def test_lambda_of_another_block(self) -> None:
        right = difference.start

        def wrong(block: int) -> float:
            return right(block + 1)

        found = found_in(odd_layers.DIFFERENTIAL, differential, "start", wrong)
        assert found == {"block 0"}

    def test_mlp_beside_attention_is_given_queries(self) -> None:
        """As if they stood in front."""
        right = parallel.left

        def wrong(layers: VitLayers, path: str, mixed: Name, rows: Name) -> Name:
            if path == "blocks.1":
                rows = layers.g.slice(rows, 1, layers.vit.width)
            return right(layers, path, mixed, rows)

        assert found_in(odd_layers.PARALLEL, parallel, "left", wrong) == {"block 1"}

    def test_pooling_without_sizes(self) -> None:
        right = pooling.pool

        def wrong(*given: Any, **named: Any) -> Name:
            layers, own, x, _, layout = given
            return right(layers, own, x, None, layout, **named)

        assert found_in(odd_layers.POOLED, pooling, "pool", wrong) == {"head"}

    def test_pooling_of_the_class_token(self) -> None:
        right = pooling.pool

        def wrong(*given: Any, **named: Any) -> Name:
            return right(*given, **{**named, "spared": 0})

        assert found_in(odd_layers.POOLED, pooling, "pool", wrong) == {"head"}


def test_a_stem_needs_a_name(tmp_path: Path) -> None:
    model, vit = random_vits.build(odd_layers.CONVS)
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(InputError, match="nothing tells the layers of its convolutional stem"):
        load_checkpoint(tmp_path / "bare.pth", Choices(family="m", rate="2", num_heads=2))
    assert Vit.from_json(json.loads(json.dumps(vit.to_json()))) == vit


def test_vitamins_stem_needs_none(tmp_path: Path) -> None:
    """In whatever order a file has its weights; only what its names hold is told."""
    model, vit = random_vits.build(odd_layers.MBCONV)
    state = model.state_dict()
    backwards, path = dict(sorted(state.items(), reverse=True)), tmp_path / "bare.pth"
    torch.save(backwards, path)
    stated = Choices(family="m", rate="2", num_heads=2, image_size=(64, 48))
    found = load_checkpoint(path, stated)
    assert found.vit == replace(vit, name=found.vit.name)
    assert Vit.from_json(json.loads(json.dumps(vit.to_json()))) == vit
    torch.save({k: v for k, v in state.items() if not k.endswith("stem.conv1.weight")}, path)
    with pytest.raises(InputError, match="the first convolution missing in front of patch_embed"):
        load_checkpoint(path, stated)
    torch.save(state | {"patch_embed.backbone.pool.proj.weight": torch.ones(48)}, path)
    with pytest.raises(InputError, match="pool.proj.weight has shape"):
        load_checkpoint(path, stated)


def found_in(case: Case, owner: Any, name: str, wrong: Any) -> set[str]:
    """Where the check finds that what is written is wrong, with this in the place of a function."""
    checkpoint, images = reducing(case)
    to_onnx(checkpoint, opset=17)  # which tries what onnxruntime has, once
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, wrong)
        model = to_onnx(checkpoint, opset=17)
    report = compare.compare(model, checkpoint, images.select(4), batch_sizes=(2,))
    assert report.verdict == "fail"
    return {c.where for c in report.of("fail")}
