"""Prune-and-Merge: the original code's outputs, and a slow oracle (`fixtures/README.md`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export import check, export, inspect, load_checkpoint
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.plan import faces
from ltmp_export.plan.work import dense_macs, executed_macs
from ltmp_export.precision.formats import FP16, INT8, Precision
from ltmp_export.reference import Reference
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.merge_matrix.step import MergeMatrix
from tests.conftest import FIXTURES, load_torch
from tests.makers.commands import ltmp, succeeded
from tests.makers.mutations import change_stored
from tests.oracles.oracle import _Weights
from tests.oracles.oracle_pmvit import block_left, run_pmvit

PMVIT = FIXTURES / "pmvit"
COUNTS = (65, 33, 33, 65)
Array = NDArray[Any]
Changed = Callable[[Callable[[dict[str, Tensor]], object]], Path]


@pytest.fixture(scope="module")
def pmvit() -> Checkpoint:
    return load_checkpoint(PMVIT / "pruned.pth")


@pytest.fixture(scope="module")
def golden() -> Mapping[str, Array]:
    with np.load(PMVIT / "golden.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def pixels(golden: Mapping[str, Array]) -> NDArray[np.float32]:
    return golden["images"].astype(np.float32)


@pytest.fixture
def changed(tmp_path: Path) -> Changed:
    """The checkpoint with other weights."""

    def save(change: Callable[[dict[str, Tensor]], object]) -> Path:
        content = load_torch(PMVIT / "pruned.pth")
        change(content["model"])
        torch.save(content, tmp_path / "c.pth")
        return tmp_path / "c.pth"

    return save


def few(pixels: NDArray[np.float32]) -> Images:
    return Images(pixels, None, tuple(map(str, range(len(pixels)))), "test")


def test_shapes_state_the_plan(pmvit: Checkpoint) -> None:
    assert pmvit.plan.family == "pmvit"
    assert pmvit.plan.before == {b: MergeMatrix(f"blocks.{b}.attn", 33, 65) for b in (1, 2)}
    assert (pmvit.vit.heads, pmvit.plan.counts(65, 1)) == (2, COUNTS)


def test_reference_is_the_original(
    pmvit: Checkpoint, golden: Mapping[str, Array], pixels: NDArray[np.float32]
) -> None:
    reference = Reference(pmvit.model, pmvit.plan, torch.float64)
    traces = [reference.run(image) for image in torch.from_numpy(pixels)]
    logits = np.stack([trace.logits.numpy() for trace in traces])
    assert np.abs(logits - golden["logits"]).max() < 1e-12
    tokens = np.stack([block.numpy() for block in traces[0].tokens])
    assert np.abs(tokens - golden["tokens"]).max() < 1e-4  # float32 of the original
    assert {trace.counts for trace in traces} == {COUNTS}


@pytest.mark.parametrize("opset", [16, 17, opsets.newest_opset()])
@pytest.mark.parametrize("batch_size", [None, 1])
def test_graph_is_the_original(
    pmvit: Checkpoint,
    golden: Mapping[str, Array],
    pixels: NDArray[np.float32],
    opset: int,
    batch_size: int | None,
) -> None:
    session = Session(to_onnx(pmvit, opset=opset, batch_size=batch_size), threads=1)
    for size in (1, 3, 6) if batch_size is None else (1,):
        starts = range(0, len(pixels), size)
        logits = np.concatenate([session.run(pixels[at : at + size])[0] for at in starts])
        assert np.abs(logits - golden["logits"]).max() < 2e-5


def test_files_pass_the_check_in_every_precision(
    pmvit: Checkpoint, pixels: NDArray[np.float32]
) -> None:
    images = few(pixels[:3])
    for precision in (Precision(), Precision(FP16), Precision(INT8)):
        source, made = pmvit, precision
        if precision.kind == INT8:
            source, made = quantise.prepare(pmvit, images, precision)
        model = to_onnx(source, opset=17, precision=made)
        found = compare.compare(model, pmvit, images, batch_sizes=(1, 3), precision=made)
        assert found.verdict in ("equal", "bounded"), found.headline()


@pytest.mark.parametrize("part", ["merge_matrix", "recover_matrix", "token_mask"])
def test_another_matrix_is_found(pmvit: Checkpoint, pixels: NDArray[np.float32], part: str) -> None:
    """Also the shortcut of pruned tokens, whose loss moves the logits by 0.8."""
    model = to_onnx(pmvit, opset=17)
    change_stored(model, f"blocks.2.attn.{part}", lambda array: np.multiply(array, 0.5, out=array))
    found = compare.compare(model, pmvit, few(pixels[:2]), batch_sizes=(1,))
    assert found.verdict == "fail"
    assert "block 2" in found.headline() or "blocks.2" in found.headline()


def test_the_oracle_is_the_original(
    pmvit: Checkpoint, golden: Mapping[str, Array], pixels: NDArray[np.float32]
) -> None:
    """What judges other models."""
    own = pmvit.model.state_dict() | dict(pmvit.plan.parameters)
    weights = {key: value.numpy() for key, value in own.items()}
    found = run_pmvit(weights, pixels[0], heads=2)
    assert found.counts == COUNTS
    assert np.abs(found.logits - golden["logits"][0]).max() < 1e-12


def test_attention_of_another_width_than_the_tokens(changed: Changed) -> None:
    """Heads have 64 channels whatever the width; matrices trained freely, `bias` of any length."""
    generator = torch.Generator().manual_seed(3)

    def narrow(state: dict[str, Tensor]) -> None:
        cut = {"norm.weight", "norm.bias", "cls_token", "pos_embed"}
        for key, value in state.items():
            leaf = key.removeprefix("blocks.").partition(".")[2]
            if "norm" in leaf or leaf in ("attn.proj.bias", "mlp.fc2.bias") or key in cut:
                state[key] = value[..., :96].clone()
            elif leaf in ("attn.proj.weight", "mlp.fc2.weight") or "patch_embed" in key:
                state[key] = value[:96].clone()
            elif leaf in ("attn.qkv.weight", "mlp.fc1.weight") or key == "head.weight":
                state[key] = value[:, :96].clone()
            elif leaf in ("attn.merge_matrix", "attn.recover_matrix"):
                state[key] = torch.randn(value.shape, generator=generator) / 8
        state["blocks.1.attn.bias"] = torch.zeros(65)
        state["blocks.1.attn.token_mask"][5:20] = 0

    checkpoint = load_checkpoint(changed(narrow))
    assert (checkpoint.vit.width, checkpoint.vit.heads, checkpoint.vit.head_width) == (96, 2, 64)
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 32, 32)))
    trace = Reference(checkpoint.model, checkpoint.plan, torch.float64).run(image)
    own = checkpoint.model.state_dict() | dict(checkpoint.plan.parameters)
    weights = _Weights({key: value.numpy() for key, value in own.items()}, 1e-6)
    x = trace.embedded.numpy()
    for block, left in enumerate(trace.tokens):
        x, _ = block_left(weights, block, x, 2)
        assert np.abs(x - left.numpy()).max() < 1e-9
    found = compare.compare(
        to_onnx(checkpoint, opset=17), checkpoint, few(image.numpy()[None].astype(np.float32)),
        batch_sizes=(1,),
    )  # fmt: skip
    assert found.verdict == "equal", found.headline()


def test_multiply_accumulates(pmvit: Checkpoint) -> None:
    """By hand: both matrices count, the blocks between run on 33 tokens."""
    vit = pmvit.vit

    def block(n: int) -> int:
        return n * 4 * 128**2 + 2 * n**2 * 128 + n * 2 * 128 * 32

    rest = dense_macs(vit) - 4 * block(65)
    by_hand = rest + 2 * block(65) + 2 * block(33) + 2 * 2 * 33 * 65 * 128
    assert executed_macs(vit, pmvit.plan, COUNTS) == by_hand


def test_a_file_and_what_is_told_of_it(pmvit: Checkpoint, tmp_path: Path) -> None:
    made = export(pmvit, tmp_path / "m.onnx", check=False)
    assert made.tokens == COUNTS
    told = inspect(tmp_path / "m.onnx")
    assert (told["family"], told["mode"], told["tokens"]) == ("pmvit", "static", COUNTS)
    assert "tokens in it" in succeeded(ltmp("inspect", tmp_path / "m.onnx"))
    found = check(tmp_path / "m.onnx", PMVIT / "pruned.pth", samples=2, batch_sizes=[2])
    assert found.verdict == "equal"
    assert "33" in " ".join(inspect(PMVIT / "pruned.pth")["found"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("blocks.1.attn.token_mask"), r"token_mask is missing; expected \[65\]"),
        (
            lambda w: w.update({"blocks.1.attn.recover_matrix": torch.zeros(65, 32)}),
            r"recover_matrix is \[65, 32\]; expected \[65, 33\]",
        ),
        (
            lambda w: w.update({"blocks.1.attn.merge_matrix": torch.zeros(33, 64)}),
            r"merge_matrix is \[33, 64\]; expected \[33, 65\]",
        ),
        (
            lambda w: w.update({"blocks.2.attn.merge_matrix": torch.zeros(33)}),
            r"merge_matrix is \[33\]; expected \[tokens of the block, 65\]",
        ),
        (
            lambda w: w.update(
                {
                    "blocks.1.attn.merge_matrix": torch.zeros(80, 65),
                    "blocks.1.attn.recover_matrix": torch.zeros(65, 80),
                }
            ),
            "makes 80 tokens of 65; expected fewer",
        ),
        (
            lambda w: w.update({"blocks.3.attn.bias": torch.zeros(65)}),
            r"blocks.3.attn.merge_matrix is missing; expected \[tokens of the block, 65\]",
        ),
        (
            lambda w: w.update({"blocks.7.attn.merge_matrix": torch.zeros(33, 65)}),
            "merges in block 7; the model has 4 blocks",
        ),
    ],
)
def test_matrices_that_fit_no_model(
    changed: Changed, change: Callable[[dict[str, Tensor]], object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        load_checkpoint(changed(change))


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (Choices(num_heads=4), "heads of 64 channels, 2 of them; --num-heads says 4"),
        (Choices(merge_at=(1, 2)), "takes no --merge-at; drop it"),
        (Choices(family="m", rate="8"), "holds layers of pmvit"),
        (Choices(rate="8"), "--r and --reduction-target are for"),
    ],
)
def test_statements_that_contradict_it(choices: Choices, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_checkpoint(PMVIT / "pruned.pth", choices)


def test_a_plan_that_fits_no_model(pmvit: Checkpoint) -> None:
    other = replace(pmvit.plan, before={1: MergeMatrix("blocks.1.attn", 33, 64)})
    with pytest.raises(ValueError, match="block 1 cannot take"):
        other.require_possible(64, 1)
    assert type(other).from_json(other.to_json()).before == other.before


def test_it_cannot_be_trained() -> None:
    with pytest.raises(InputError, match="the step MergeMatrix cannot be trained"):
        faces.face(MergeMatrix, "masked")
