"""EViT: the original code's outputs, and a slow oracle (`fixtures/README.md`)."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from ltmp_export import check, export, inspect, load_checkpoint
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.slots import Slots
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.plan import faces
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.precision.formats import FP16, INT8, Precision
from ltmp_export.reference import Reference
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.fuse import eager, slots
from ltmp_export.steps.fuse.step import Fuse
from ltmp_export.steps.tokens import Tokens
from tests.conftest import FIXTURES, load_torch
from tests.makers.exported import numpy_weights
from tests.oracles.oracle_evit import reduced, run_evit

EVIT = FIXTURES / "evit"
COUNTS = (197, 140, 100, 72, 72)
HEADS = Choices(num_heads=3)  # no file of the script says it
Array = NDArray[Any]


@pytest.fixture(scope="module")
def evit() -> Checkpoint:
    return load_checkpoint(EVIT / "fuse.pth", HEADS)


@pytest.fixture(scope="module")
def golden() -> Mapping[str, Array]:
    with np.load(EVIT / "golden.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def pixels(golden: Mapping[str, Array]) -> NDArray[np.float32]:
    return golden["images"].astype(np.float32)


def few(pixels: NDArray[np.float32]) -> Images:
    return Images(pixels, None, tuple(map(str, range(len(pixels)))), "test")


def test_the_arguments_of_the_script_state_the_plan(evit: Checkpoint) -> None:
    assert evit.plan == Plan("evit", ((), (Fuse(0.7),), (Fuse(0.7),), (Fuse(0.7),), ()))
    assert evit.plan.counts(197, 1) == COUNTS


def test_reference_is_the_original(
    evit: Checkpoint, golden: Mapping[str, Array], pixels: NDArray[np.float32]
) -> None:
    """Logits in float64, and who is kept, in the original's order."""
    reference = Reference(evit.model, evit.plan, torch.float64)
    for number, image in enumerate(torch.from_numpy(pixels)):
        trace = reference.run(image)
        assert np.abs(trace.logits.numpy() - golden["logits"][number]).max() < 1e-10
        assert trace.counts == COUNTS
        for stage, decisions in enumerate(trace.decisions[1:4]):
            assert decisions[0].order is not None
            kept = [int(place) for place in golden[f"kept{stage}"][number] if place >= 0]
            assert (decisions[0].order[1:] - 1).tolist() == kept


@pytest.mark.parametrize("opset", [16, 17, opsets.newest_opset()])
@pytest.mark.parametrize("batch_size", [None, 1])
def test_graph_is_the_original(
    evit: Checkpoint,
    golden: Mapping[str, Array],
    pixels: NDArray[np.float32],
    opset: int,
    batch_size: int | None,
) -> None:
    session = Session(to_onnx(evit, opset=opset, batch_size=batch_size), threads=1)
    for size in (1, 3, 6) if batch_size is None else (1,):
        starts = range(0, len(pixels), size)
        logits = np.concatenate([session.run(pixels[at : at + size])[0] for at in starts])
        assert np.abs(logits - golden["logits"]).max() < 5e-5


def test_the_oracle_is_the_original(
    evit: Checkpoint, golden: Mapping[str, Array], pixels: NDArray[np.float32]
) -> None:
    """What judges other models."""
    found = run_evit(
        numpy_weights(evit.model), pixels[0], heads=3, keep_rate=0.7, blocks=(1, 2, 3), fused=True
    )
    assert found.counts == COUNTS
    assert np.abs(found.logits - golden["logits"][0]).max() < 1e-10


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("rate", [0.05, 0.34, 0.5, 0.9])
def test_a_step_is_the_oracles(rate: float, fused: bool) -> None:
    rng, step = np.random.default_rng(7), Fuse(rate, fused)
    x = rng.standard_normal((2, 12, 5)).astype(np.float32)
    score = rng.choice([0.125, 0.25, 0.5], (2, 12)).astype(np.float32)  # with ties
    expected = np.stack(
        [reduced(a, b.tolist(), rate, fused)[0] for a, b in zip(x, score, strict=True)]
    )
    for image in range(2):
        own = torch.from_numpy(score[image]).clone()
        own[0] = torch.inf
        tokens = Tokens(torch.from_numpy(x[image]), torch.ones(12), {CLASS_ATTENTION: own})
        found, _ = eager.take(step, tokens, None, {})
        assert np.allclose(found.x.numpy(), expected[image], atol=1e-6)
    g = GraphBuilder(17, {})
    names = [g.stored(name, array) for name, array in (("x", x), ("score", score))]
    taken = g.input("images", onnx.TensorProto.FLOAT, (1, 1))
    left = slots.write(
        g, step, Slots(12, names[0], None, {CLASS_ATTENTION: names[1]}, None, None, 1)
    )
    zero = g.op("Mul", g.reduce("ReduceSum", taken, [0, 1]), g.number(0.0))
    g.output(g.op("Add", left.x, zero), "y", onnx.TensorProto.FLOAT, (2, left.number, 5))
    written = Session(g.build("step", {}), threads=1).run(np.zeros((1, 1), np.float32))[0]
    assert written.shape == expected.shape
    assert np.allclose(written, expected, atol=1e-6)


def test_files_pass_the_check_in_every_precision(
    evit: Checkpoint, pixels: NDArray[np.float32]
) -> None:
    images = few(pixels[:3])
    for precision in (Precision(), Precision(FP16), Precision(INT8)):
        source, made = evit, precision
        if precision.kind == INT8:
            source, made = quantise.prepare(evit, images, precision)
        model = to_onnx(source, opset=17, precision=made)
        found = compare.compare(model, evit, images, batch_sizes=(1, 3), precision=made)
        assert found.verdict in ("equal", "bounded"), found.headline()


def test_another_ranking_is_found(evit: Checkpoint, pixels: NDArray[np.float32]) -> None:
    """A file that keeps the least instead of the most important tokens of one block."""
    model = to_onnx(evit, opset=17)
    node = next(n for n in model.graph.node if "block_02/ranking" in n.output)
    node.attribute.append(onnx.helper.make_attribute("largest", 0))
    found = compare.compare(model, evit, few(pixels[:2]), batch_sizes=(1,))
    assert found.verdict == "fail"
    assert "block 2" in found.headline()


def test_another_share_is_found(evit: Checkpoint, pixels: NDArray[np.float32]) -> None:
    steps = (*evit.plan.blocks[:2], (Fuse(0.6),), *evit.plan.blocks[3:])
    model = to_onnx(replace(evit, plan=replace(evit.plan, blocks=steps)), opset=17)
    found = compare.compare(model, evit, few(pixels[:2]), batch_sizes=(1,))
    assert found.verdict == "fail"


def test_a_file_and_what_is_told_of_it(evit: Checkpoint, tmp_path: Path) -> None:
    made = export(evit, tmp_path / "m.onnx", check=False)
    assert made.tokens == COUNTS
    told = inspect(tmp_path / "m.onnx")
    assert (told["family"], told["mode"], told["tokens"]) == ("evit", "static", COUNTS)
    assert told["plan"]["blocks"][1] == [
        {"step": "Fuse", "keep_rate": 0.7, "fused": True, "keep": 0}
    ]
    assert check(tmp_path / "m.onnx", evit, samples=2, batch_sizes=[2]).verdict == "equal"


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """The checkpoint with other arguments; None takes one away."""

    def save(**others: Any) -> Path:
        content = load_torch(EVIT / "fuse.pth")
        args = {k: v for k, v in (vars(content["args"]) | others).items() if v is not None}
        torch.save(content | {"args": argparse.Namespace(**args)}, tmp_path / "c.pth")
        return tmp_path / "c.pth"

    return save


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"base_keep_rate": 1.5}, "not those of youweiliang/evit: base_keep_rate 1.5; expected"),
        ({"drop_loc": "(1, x)"}, "expected blocks, like"),
        ({"drop_loc": "(3, 9)"}, "expected rising numbers of the 5 blocks"),
        ({"fuse_token": 1}, "expected True or False"),
    ],
)
def test_other_arguments(changed: Callable[..., Path], others: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_checkpoint(changed(**others), HEADS)


def test_without_the_arguments(changed: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="state them, like --merge-at 1,2,3"):
        load_checkpoint(changed(drop_loc=None), Choices(num_heads=3, family="evit"))


def test_a_share_of_all_is_left_out(changed: Callable[..., Path]) -> None:
    found = load_checkpoint(changed(base_keep_rate=1.0), HEADS)
    assert not any(found.plan.blocks)
    assert "keeps all patches" in found.warnings[-1]


def test_it_cannot_be_trained() -> None:
    with pytest.raises(InputError, match="the step Fuse cannot be trained"):
        faces.face(Fuse, "masked")


def test_weights_are_untouched_by_the_fixture(evit: Checkpoint) -> None:
    """The stored weights are the exported ones."""
    stored = {t.name: numpy_helper.to_array(t) for t in to_onnx(evit, opset=17).graph.initializer}
    own = load_torch(EVIT / "fuse.pth")["model"]["blocks.1.attn.qkv.weight"].numpy()
    assert np.array_equal(stored["blocks.1.attn.qkv.weight"], own)
