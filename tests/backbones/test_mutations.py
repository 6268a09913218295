"""The check must find each of these wrong graphs, and name the block that is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare, taps
from ltmp_export.parity.report import CheckReport
from ltmp_export.reference import Reference
from tests.makers.make_checkpoint import make_checkpoint
from tests.makers.mutations import MERGES, MUTATIONS, change_stored
from tests.makers.shallow import BLOCKS

Digits = Callable[[str], Checkpoint]
DEPTH = 4
SMALL = {"depth": DEPTH, "img_size": 128}  # of a ViT of the widths of DeiT-Ti: 64 patches
LTMP_FIRST_MERGES = 1  # block 0 of the digits' ltmp has the merge threshold 1


@pytest.fixture(scope="module")
def deit_tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("deit") / "deit_tiny.pth.tar"
    make_checkpoint(path, "deit_tiny_patch16_224", mac_share=0.6, model_kwargs=SMALL)
    return load_checkpoint(path)


def checked(model: onnx.ModelProto, checkpoint: Checkpoint, samples: int) -> CheckReport:
    images = inputs.load_images(None, checkpoint.vit, checkpoint.preprocessing, samples)
    return compare.compare(model, checkpoint, images, batch_sizes=(2,))


def fails_in(report: CheckReport, block: int) -> None:
    """Some comparison fails, none passes over the block, and the message names it."""
    assert report.verdict == "fail"
    failing = report.of("fail")
    assert failing
    assert {c.where for c in failing} == {f"block {block}"}
    assert f"block {block}: " in report.headline()


def cases(family: str, depth: int, first_merging: int = 0, every: int = 1) -> list[tuple[str, int]]:
    """Every mutation of a family, in every block or some where it makes a difference."""
    return [
        (name, block)
        for name, mutation in MUTATIONS.items()
        if family in mutation.families
        for block in mutation.blocks(depth, first_merging)[::-every]
    ]


@pytest.mark.parametrize(("name", "block"), cases("ltmp", BLOCKS, LTMP_FIRST_MERGES, every=2))
def test_blocks_of_the_digits(shallow_digits: Digits, name: str, block: int) -> None:
    checkpoint = shallow_digits("ltmp")
    fails_in(checked(MUTATIONS[name].mutate(checkpoint, block), checkpoint, 3), block)


@pytest.mark.parametrize(
    ("family", "name", "block"),
    [(f, *case) for f in families.learned() if f != "ltmp" for case in cases(f, BLOCKS, every=4)],
)
def test_the_other_families(shallow_digits: Digits, family: str, name: str, block: int) -> None:
    checkpoint = shallow_digits(family)
    fails_in(checked(MUTATIONS[name].mutate(checkpoint, block), checkpoint, 4), block)


def test_an_epsilon_that_matters_in_deit_tiny(deit_tiny: Checkpoint) -> None:
    """After block 0 the tokens vary so much that it changes them by less than rounding does."""
    model = MUTATIONS["epsilon 1e-5"].mutate(deit_tiny, 0)
    fails_in(checked(model, deit_tiny, 2), 0)


@pytest.mark.parametrize(
    ("name", "block"), [c for c in cases("ltmp", DEPTH, every=4) if c[0] != "epsilon 1e-5"]
)
def test_deit_tiny(deit_tiny: Checkpoint, name: str, block: int) -> None:
    fails_in(checked(MUTATIONS[name].mutate(deit_tiny, block), deit_tiny, 2), block)


def spreads(checkpoint: Checkpoint, samples: int) -> dict[str, float]:
    """Range of the scores that each stored threshold is compared with."""
    images = inputs.load_images(None, checkpoint.vit, checkpoint.preprocessing, samples)
    reference = Reference(checkpoint.model, checkpoint.plan, torch.float64)
    traces = [reference.run(torch.from_numpy(pixels)) for pixels in images.pixels]
    found, kinds = {}, [[type(s).__name__.lower() for s in b] for b in checkpoint.plan.blocks]
    for block, kind, name, _ in taps.thresholds(checkpoint.plan):
        place = kinds[block].index(kind)
        scores = torch.cat([trace.decisions[block][place].score[1:] for trace in traces])
        found[name] = float(scores.max() - scores.min())
    return found


def moved(right: onnx.ModelProto, name: str, by: float) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(right)
    change_stored(model, name, lambda array: np.add(array, np.float32(by), out=array))
    return model


@pytest.mark.parametrize("family", ["ltmp", "ltpm"])
@pytest.mark.parametrize("share", [0.05, -0.05])
def test_a_moved_threshold_is_found_in_the_file(
    shallow_digits: Digits, family: str, share: float
) -> None:
    """By the stored number alone: whether one image has a score between both is chance."""
    checkpoint = shallow_digits(family)
    right, width = to_onnx(checkpoint, opset=17), spreads(checkpoint, 8)
    for block, kind, name, threshold in taps.thresholds(checkpoint.plan):
        report = checked(moved(right, name, share * width[name]), checkpoint, 1)
        assert report.verdict == "fail"
        assert f"block {block}: the {kind} threshold is " in report.headline()
        assert f"{threshold:.9g} in the checkpoint" in report.headline()


@pytest.mark.parametrize("family", families.learned())
def test_a_moved_threshold_is_found_by_its_decisions(shallow_digits: Digits, family: str) -> None:
    """The same with the stored number out of sight."""
    checkpoint = shallow_digits(family)
    right, width = to_onnx(checkpoint, opset=17), spreads(checkpoint, 6)
    for block, _, name, _ in taps.thresholds(checkpoint.plan):
        if (family, block) == ("ltmp", 0):
            continue  # both thresholds lie outside all scores: moved or not, nothing happens
        unnamed = renamed(moved(right, name, 0.05 * width[name]), name)
        fails_in(checked(unnamed, checkpoint, 6), block)


def test_a_moved_threshold_of_deit_tiny_is_found_by_its_decisions(deit_tiny: Checkpoint) -> None:
    right, width = to_onnx(deit_tiny, opset=17), spreads(deit_tiny, 4)
    for name in ("block_01/prune_threshold", "block_03/merge_threshold"):
        unnamed = renamed(moved(right, name, 0.05 * width[name]), name)
        fails_in(checked(unnamed, deit_tiny, 4), int(name[6:8]))


def renamed(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    other = name.replace("threshold", "constantX")
    document = model.SerializeToString().replace(name.encode(), other.encode())
    copy: onnx.ModelProto = onnx.ModelProto.FromString(document)
    return copy


def exchanged(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """The first rows of a batch in reverse order, where `tensor` was."""
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name == tensor:
                node.input[position] = "exchanged"
    names = ("last", "before_first", "axis", "back")
    for name, value in zip(names, (-1, -(2**62), 0, -1), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    node = onnx.helper.make_node("Slice", [tensor, *names], ["exchanged"])
    at = next((i for i, n in enumerate(model.graph.node) if tensor in n.output), -1)
    model.graph.node.insert(at + 1, node)
    return model


def logits_source(model: onnx.ModelProto) -> str:
    return next(str(n.input[0]) for n in model.graph.node if n.output[0] == "logits")


@pytest.mark.parametrize("place", ["embedding", "head"])
def test_exchanged_images_of_a_batch(digits: Digits, place: str) -> None:
    model = to_onnx(digits("ltmp"), opset=17)
    wrong = exchanged(model, "images" if place == "embedding" else logits_source(model))
    report = checked(wrong, digits("ltmp"), 4)
    failing = report.of("fail")
    assert {(c.batch_size, c.where) for c in failing} == {(2, place)}
    assert len(failing) == 8  # given and reversed; alone there is nothing to exchange
    assert failing[0].reason.endswith("; its logits are those of digit 16 (a 6)")
    assert {i.verdict for i in report.invariance} == {"fail"}


@pytest.mark.parametrize("family", MERGES)
def test_another_checkpoint(digits: Digits, tmp_path: Path, family: str) -> None:
    """The thresholds of another family's training, where both have the same kinds."""
    other = {"ltmp": "ltpm", "ltpm": "ltmp", "ltm": "ltmp"}[family]
    report = checked(to_onnx(digits(other), opset=17), digits(family), 3)
    assert report.verdict == "fail"


def test_other_weights(deit_tiny: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "other.pth.tar"
    make_checkpoint(path, "deit_tiny_patch16_224", mac_share=0.6, seed=1, model_kwargs=SMALL)
    report = checked(to_onnx(load_checkpoint(path), opset=17), deit_tiny, 2)
    assert report.verdict == "fail"
    assert {c.where for c in report.comparisons} == {"embedding"}


def test_a_graph_that_does_not_run(digits: Digits) -> None:
    model = to_onnx(digits("ltp"), opset=17)
    change_stored(model, "blocks.2.attn.proj.bias", lambda array: None)
    bias = next(t for t in model.graph.initializer if t.name == "blocks.2.attn.proj.bias")
    bias.CopyFrom(numpy_helper.from_array(np.zeros(7, np.float32), bias.name))
    report = checked(model, digits("ltp"), 1)
    assert report.verdict == "fail"
    assert "block_02" in report.reason


def test_a_nan_in_a_weight(digits: Digits) -> None:
    model = to_onnx(digits("ltmp"), opset=17)
    change_stored(model, "blocks.4.mlp.fc1.bias", lambda array: array.fill(np.nan))
    report = checked(model, digits("ltmp"), 2)
    fails_in(report, 4)
    assert "hold a NaN in the file" in report.headline()


def test_a_right_graph_is_equal(digits: Digits, deit_tiny: Checkpoint) -> None:
    for checkpoint in (digits("ltmp"), deit_tiny):
        report = checked(to_onnx(checkpoint, opset=17), checkpoint, 4)
        assert report.verdict == "equal", report.headline()
        assert dataclasses.replace(report, verdict="fail").headline() == ""
