"""VisionZip: the original code's outputs, a slow oracle, wrong graphs, and wrong statements.

Source: dvlab-research/VisionZip@3151f6d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
import torch

from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.precision.formats import FP16, INT8, Precision
from ltmp_export.reference import Reference
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.contextual import slots
from ltmp_export.steps.contextual.step import Contextual
from tests.makers import towers
from tests.makers.commands import ltmp, refused, succeeded
from tests.makers.distilled import distilled
from tests.makers.golden_sets import golden
from tests.oracles.oracle_visionzip import run_visionzip

STATED = Choices(num_heads=2, act="quick_gelu", norm_eps=1e-5, dominant=8, contextual=4)


def test_it_is_the_original() -> None:
    """Tokens, and where each goes; the file at batches and opsets."""
    one = golden("visionzip-a", Choices(dominant=20, contextual=6))
    wanted, owner = one.arrays["tokens64"], one.arrays["owner"][:, 1:]
    for number, trace in enumerate(one.traces(outputs=("tokens", "token_map"))):
        assert np.abs(trace.final["tokens"].numpy() - wanted[number]).max() < 1e-10
        assert np.array_equal(trace.final["token_map"], owner[number])
    for opset, sizes in {16: (3,), 17: (1, 3, 6), opsets.newest_opset(): (6,)}.items():
        session = Session(to_onnx(one.checkpoint, opset=opset, outputs=["tokens", "token_map"]))
        for size in sizes:
            found = [session.run(one.pixels[at : at + size]) for at in range(0, 6, size)]
            tokens, went = (np.concatenate(part) for part in zip(*found, strict=True))
            assert np.abs(tokens - wanted).max() < 5e-5
            assert np.array_equal(went, owner)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = towers.renamed(towers.tower(towers.CLIP_HF), towers.CLIP_HF, ())
    return towers.saved(tmp_path_factory.mktemp("zip") / "clip.pth", weights)


@pytest.fixture(scope="module")
def tower(path: Path) -> Checkpoint:
    return load_checkpoint(path, STATED)


@pytest.fixture(scope="module")
def images() -> Images:
    pixels = np.random.default_rng(0).standard_normal((3, 3, 20, 20)).astype(np.float32)
    return Images(pixels, None, ("0", "1", "2"), "drawn")


def test_it_is_the_oracle(tower: Checkpoint, images: Images) -> None:
    """Of a tower whose last block is not used; every number of the file."""
    assert (tower.plan.family, tower.vit.depth, tower.vit.classes) == ("visionzip", 2, 0)
    weights = {key: value.numpy() for key, value in towers.tower(towers.CLIP_HF).items()}
    outputs = ("tokens", "sizes", "token_map", "dense")
    reference = Reference(tower.model, tower.plan, torch.float64, outputs)
    for image in images.pixels:
        trace = reference.run(torch.from_numpy(image))
        tokens, owner = run_visionzip(weights, image, heads=2, dominant=8, contextual=4)
        assert np.abs(trace.final["tokens"].numpy() - tokens).max() < 1e-10
        assert trace.final["token_map"].tolist() == owner
    model = to_onnx(tower, opset=17, outputs=outputs)
    report = compare.compare(model, tower, images, batch_sizes=(1, 3))
    assert report.verdict == "equal", report.headline()
    assert not {"NonZero", "Compress", "Loop"} & {node.op_type for node in model.graph.node}


def test_lower_precision(tower: Checkpoint, images: Images) -> None:
    for precision in (Precision(FP16), Precision(INT8)):
        source, own = tower, precision
        if precision.kind == INT8:
            source, own = quantise.prepare(tower, images, precision)
        model = to_onnx(source, opset=17, precision=own, outputs=("tokens",))
        found = compare.compare(model, tower, images, batch_sizes=(3,), precision=own)
        assert found.verdict == "bounded", found.headline()


def without_targets(checkpoint: Checkpoint) -> onnx.ModelProto:
    """A contextual token is the mean of its sources alone."""
    write, op = slots.write, GraphBuilder.op

    def wrong(g: GraphBuilder, step: Any, tokens: Any) -> Any:
        def changed(own: GraphBuilder, kind: str, *given: Name, **named: Any) -> Name:
            if kind == "Add" and "Div" in given[1]:
                return op(own, "Identity", given[1], **named)
            return op(own, kind, *given, **named)

        with mock.patch.object(GraphBuilder, "op", changed):
            return write(g, step, tokens)

    with mock.patch.object(slots, "write", wrong):
        return to_onnx(checkpoint, opset=17, outputs=("tokens",))


def last_targets(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Those at the end of each stretch."""
    split = Contextual.split

    def wrong(step: Contextual, patches: int) -> tuple[list[int], list[int]]:
        targets = [row + 1 for row in split(step, patches)[0]]
        return targets, sorted(set(range(patches - step.keep)) - set(targets))

    with mock.patch.object(Contextual, "split", wrong):
        return to_onnx(checkpoint, opset=17, outputs=("tokens",))


def another_number(checkpoint: Checkpoint) -> onnx.ModelProto:
    """One patch more stays, one contextual token fewer."""
    plan = checkpoint.plan
    other = replace(plan, blocks=(*plan.blocks[:-1], (Contextual(8, 3),)))
    return to_onnx(replace(checkpoint, plan=other), opset=17, outputs=("tokens",))


@pytest.mark.parametrize("mutate", [without_targets, last_targets, another_number])
def test_a_wrong_graph_is_found(
    tower: Checkpoint, images: Images, mutate: Callable[[Checkpoint], onnx.ModelProto]
) -> None:
    report = compare.compare(mutate(tower), tower, images, batch_sizes=(1,))
    assert report.verdict == "fail", report.reason
    assert "block 1" in report.headline()


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"contextual": None}, "state it, like --dominant 54 --contextual 10"),
        ({"dominant": 1}, "--dominant 1 --contextual 4 of 26 tokens; expected 2 or more"),
        ({"dominant": 22}, "--dominant 22 --contextual 4 of 26 tokens"),
        ({"contextual": 0}, "expected 2 or more and 1 or more"),
        ({"merge_at": (1,)}, "takes no --merge-at"),
    ],
)
def test_numbers_that_cannot_be(path: Path, stated: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_checkpoint(path, replace(STATED, **stated))


def test_commands(path: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    stated = ("--num-heads", 2, "--act", "quick_gelu", "--dominant", 8, "--contextual", 4)
    told = succeeded(ltmp("export", path, *stated, "-o", model))
    goes = "12 of 26 tokens go out, which is less for what reads them"
    assert f"{goes}; the MLP of each block runs on 26 26" in told
    assert "12 tokens" in succeeded(ltmp("inspect", path, *stated))
    shown = succeeded(ltmp("inspect", model))
    assert "tokens float[batch, 12, 32]" in shown
    assert all(part in shown for part in (goes, "tokens in it"))
    timed = succeeded(ltmp("bench", model, "--samples", 1, "-b", 1, "--iterations", 1))
    assert all(part in timed for part in (goes, "tokens in each block"))
    assert not any("gain" in text for text in (told, shown, timed))
    pixels = np.random.default_rng(0).standard_normal((9, 3, 20, 20)).astype(np.float32)
    np.savez(tmp_path / "i.npz", images=pixels, labels=np.arange(9))
    lower = ("-o", tmp_path / "h.onnx", "--precision", "fp16", "--calibration-images")
    told = succeeded(ltmp("export", path, *stated, *lower, tmp_path / "i.npz"))
    assert f"check: bounded on 7 images ({tmp_path / 'i.npz'})" in " ".join(told.split())
    for subject in ((model,), (path, *stated)):
        refused(ltmp("eval", *subject, "--data", tmp_path / "i.npz"), "measure the model that read")
    assert "equal" in succeeded(ltmp("check", model, path, "--samples", 2, "-b", 2))
    refused(ltmp("export", path, *stated[:4], "--contextual", 4), "state it, like --dominant 54")


def test_heads_of_a_distilled_model_are_not_used(tmp_path: Path) -> None:
    """None of the two is, as the one of others."""
    model = distilled(depth=3)
    torch.save({"model": model.state_dict()}, tmp_path / "d.pth")
    stated = Choices(family="visionzip", num_heads=4, dominant=4, contextual=2)
    one = load_checkpoint(tmp_path / "d.pth", stated)
    assert (one.vit.depth, one.plan.counts(11, 2)) == (2, (11, 11))
