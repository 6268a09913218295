"""DyMU: the original code's outputs, a slow oracle, wrong graphs, and wrong files.

Source: MikeWangWZHL/dymu@c57d75a, one image at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.precision.formats import FP16, INT8, Precision
from ltmp_export.reference import Reference
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.merge_some import packed
from ltmp_export.steps.merge_some.step import MergeSome
from tests.makers import towers
from tests.makers.commands import ltmp, refused, succeeded
from tests.makers.golden_sets import golden
from tests.oracles.oracle_dymu import run_dymu

SETS = {
    "dymu-clip-a": Choices(num_heads=4, act="quick_gelu"),
    "dymu-siglip-a": Choices(num_heads=4, act="gelu"),
    "dymu-siglip-hf-a": Choices(num_heads=4),
}
LAYOUTS = (towers.CLIP, towers.SIGLIP, towers.SIGLIP_HF)
# 25 patches: in the first block all sources are above, of which one is held back without a class
# token; the second never merges, the third of some images.
THRESHOLDS = (0.0, 1.0, 0.86)


@contextlib.contextmanager
def softmax_in_float32() -> Iterator[None]:
    """As transformers' code has it in any precision: its float64 is off by 5e-7 otherwise."""
    own = Tensor.softmax

    def rounded(self: Tensor, dim: int) -> Tensor:
        return own(self.float(), dim).to(self.dtype)

    with mock.patch.object(Tensor, "softmax", rounded):
        yield


@pytest.mark.parametrize("name", SETS)
def test_it_is_the_original(name: str) -> None:
    """Reference and who holds each token; the file at batches and opsets, and of single images."""
    one = golden(name, SETS[name])
    wanted, owner = one.arrays["pooled64"], one.arrays["owner"][:, -1, one.checkpoint.vit.prefix :]
    gives = "logits" if one.checkpoint.vit.classes else "features"
    rounding = softmax_in_float32 if name == "dymu-siglip-hf-a" else contextlib.nullcontext
    with rounding():
        traces = one.traces(outputs=("token_map",))
    for number, trace in enumerate(traces):
        assert trace.counts == tuple(one.arrays["tokens_after_block"][number])
        assert np.abs(trace.output(gives).numpy() - wanted[number]).max() < 1e-10
        assert np.array_equal(trace.final["token_map"], owner[number])
    for opset, sizes in {16: (3,), 17: (1, 3, 6), opsets.newest_opset(): (6,)}.items():
        for batch_size in (None, 1) if opset == 17 else (None,):
            model = to_onnx(
                one.checkpoint, opset=opset, batch_size=batch_size, outputs=[gives, "token_map"]
            )
            session = Session(model, threads=1)
            for size in sizes if batch_size is None else (1,):
                found = [session.run(one.pixels[at : at + size]) for at in range(0, 6, size)]
                pooled, went = (np.concatenate(part) for part in zip(*found, strict=True))
                assert np.abs(pooled - wanted).max() < 5e-5
                assert np.array_equal(went, owner)


Made = Callable[[str], Checkpoint]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A tower of a layout, read from a file."""
    found: dict[str, Checkpoint] = {}

    def load(layout: str) -> Checkpoint:
        if layout not in found:
            path = tmp_path_factory.mktemp("dymu") / "tower.pth"
            weights = towers.renamed(towers.tower(layout), layout, THRESHOLDS)
            choices = Choices(num_heads=2, act=towers.ACTIVATIONS[layout])
            found[layout] = load_checkpoint(towers.saved(path, weights), choices)
        return found[layout]

    return load


@pytest.fixture(scope="module")
def images() -> Images:
    pixels = np.random.default_rng(0).standard_normal((4, 3, 20, 20)).astype(np.float32)
    pixels[3] = 0.5  # all patches differ by their places alone
    return Images(pixels, None, ("0", "1", "2", "3"), "drawn")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_the_oracle(made: Made, images: Images, layout: str) -> None:
    """In the reference, and in files for any batch and for single images, in every number."""
    checkpoint, weights = made(layout), towers.tower(layout)
    own = {key: value.numpy() for key, value in checkpoint.model.state_dict().items()}
    assert checkpoint.plan.family == "dymu"
    assert all(np.array_equal(own[key], weights[key]) for key in own if key != "head.bias")
    reference = Reference(checkpoint.model, checkpoint.plan, torch.float64, ("token_map",))
    clip, held = layout == towers.CLIP, 0
    gives = "logits" if clip else "features"
    for image in images.pixels:
        trace = reference.run(torch.from_numpy(image))
        found = run_dymu(
            own, image, heads=2, thresholds=THRESHOLDS, eps=1e-5 if clip else 1e-6,
            activation=towers.ACTIVATIONS[layout], pool_sizes=layout != towers.SIGLIP_HF,
        )  # fmt: skip
        assert trace.counts == found.counts
        assert np.abs(trace.output(gives).numpy() - found.pooled).max() < 1e-10
        assert trace.final["token_map"].tolist() == found.owner
        held += found.held
    assert (held > 0) != clip
    outputs = (gives, "tokens", "sizes", "token_map", "dense")
    for batch_size in (None, 1):
        model = to_onnx(checkpoint, opset=17, batch_size=batch_size, outputs=outputs)
        report = compare.compare(model, checkpoint, images)
        assert report.verdict == "equal", report.headline()


@pytest.mark.parametrize("layout", [towers.CLIP, towers.SIGLIP])
def test_a_budget(made: Made, images: Images, layout: str) -> None:
    """Static, an image that fits has the method's result; one that does not loses tokens."""
    checkpoint = made(layout)
    for keep in ((checkpoint.vit.tokens,) * 3, (13, 12, 9)):
        budgeted = _within(checkpoint, keep)
        model = to_onnx(budgeted, opset=17)
        assert not {"NonZero", "Compress", "Loop"} & {node.op_type for node in model.graph.node}
        report = compare.compare(model, budgeted, images, batch_sizes=(1, 4))
        assert report.verdict == "equal", report.headline()
        assert any(c.overflow for c in report.comparisons) == (keep[0] == 13)


def _within(checkpoint: Checkpoint, keep: tuple[int, ...]) -> Checkpoint:
    return replace(checkpoint, plan=checkpoint.plan.within(keep))


def test_lower_precision(made: Made, images: Images) -> None:
    checkpoint = made(towers.SIGLIP)
    for precision in (Precision(FP16), Precision(INT8)):
        source, own = checkpoint, precision
        if precision.kind == INT8:
            source, own = quantise.prepare(checkpoint, images, precision)
        model = to_onnx(source, opset=17, precision=own)
        found = compare.compare(model, checkpoint, images, batch_sizes=(4,), precision=own)
        assert found.verdict != "inconclusive", found.headline()


def forgotten_sizes(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Attention behind the first merge takes all tokens for one patch."""
    model = to_onnx(checkpoint, opset=17)
    at = next(i for i, n in enumerate(model.graph.node) if "block_01/attn/Cast" in n.output)
    ones = onnx.helper.make_node("Div", [model.graph.node[at].input[0]] * 2, ["block_01/ones"])
    model.graph.node[at].input[0] = "block_01/ones"
    model.graph.node.insert(at, ones)
    return model


def without_cap(checkpoint: Checkpoint) -> onnx.ModelProto:
    with mock.patch.object(MergeSome, "capped", return_value=False):
        return to_onnx(checkpoint, opset=17)


def ascending(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Unmerged sources in their own order."""
    with mock.patch.object(packed, "_ranked", lambda g, left, best: left):
        return to_onnx(checkpoint, opset=17)


def always_regrouped(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Also of an image that merges nothing."""
    own = packed.some
    with mock.patch.object(packed, "some", lambda g, flag: own(g, g.op("Add", flag, g.number(1)))):
        return to_onnx(checkpoint, opset=17)


@pytest.mark.parametrize(
    ("mutate", "layout", "words"),
    [
        (forgotten_sizes, towers.CLIP, "block 1"),
        (without_cap, towers.SIGLIP, "block 0"),
        (ascending, towers.SIGLIP, "block 2"),
        (always_regrouped, towers.CLIP, "block 2"),
    ],
)
def test_a_wrong_graph_is_found(
    made: Made, images: Images, mutate: Callable[..., Any], layout: str, words: str
) -> None:
    checkpoint = made(layout)
    report = compare.compare(mutate(checkpoint), checkpoint, images, batch_sizes=(1,))
    assert report.verdict == "fail", report.reason
    assert words in report.headline()


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ((0.5, 0.5), r"thresholds missing in blocks \[2\]; the model has 3 blocks"),
        ((0.5, float("nan"), 0.5), "threshold is nan; a threshold lies in"),
        ((0.5, 0.5, 0.5, 0.5), "thresholds of 4 blocks; the model has 3 blocks"),
    ],
)
def test_thresholds_that_cannot_be(
    tmp_path: Path, thresholds: tuple[float, ...], words: str
) -> None:
    weights = towers.renamed(towers.tower(towers.CLIP), towers.CLIP, thresholds)
    with pytest.raises(InputError, match=words):
        load_checkpoint(
            towers.saved(tmp_path / "c.pth", weights), Choices(num_heads=2, act="quick_gelu")
        )


def test_commands(tmp_path: Path, digits_base: Path) -> None:
    weights = towers.renamed(towers.tower(towers.SIGLIP), towers.SIGLIP, THRESHOLDS)
    path, model = towers.saved(tmp_path / "c.pth", weights), tmp_path / "m.onnx"
    stated = ("--num-heads", 2, "--act", "gelu")
    said = succeeded(ltmp("export", path, *stated, "-o", model, "--mode", "dynamic", "--no-check"))
    assert "dymu" in said
    assert "2 of 3 blocks merge" in succeeded(ltmp("inspect", path, *stated))
    assert "equal" in succeeded(ltmp("check", model, path, "--samples", 2, "-b", 1))
    refused(
        ltmp("export", digits_base, "--num-heads", 2, "--family", "dymu"), "holds no thresholds of"
    )
    static = ("--mode", "static", "--keep-tokens", "13,13,10", "--no-check")
    assert "at most 13 13 10" in succeeded(ltmp("export", path, *stated, "-o", model, *static))
