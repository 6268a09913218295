"""ltm_transformer of MobileViT and EfficientViT, from files through every command."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch

from ltmp_export import bench, check, export, inspect, load_checkpoint
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.dense import dense_baseline
from ltmp_export.model_file.model import read_exported, to_onnx
from ltmp_export.parity import compare
from ltmp_export.plan.plan import dense_plan
from ltmp_export.precision.formats import DYNAMIC, FP16, FP32, INT8, Precision
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.opsets import Form
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from ltmp_export.timing.settings import Settings
from tests.makers import counted_macs, hybrids
from tests.makers.commands import ltmp, refused, succeeded
from tests.makers.mutations import change_stored

SIZE = (128, 128)
RATIO = 0.56  # 6 x 6 of 8 x 8 tokens, then 2 x 2 of 3 x 3
STATED = Choices(family="ltm_transformer", compression_ratio=RATIO, image_size=SIZE, hard=False)
NAMES = ("mobilevit_xxs", "efficientvit_b0")


class Case(NamedTuple):
    """A file of weights without masks, one with masks that somebody moved, and the second read."""

    name: str
    dense: Path
    trained: Path
    checkpoint: Checkpoint


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder, name = tmp_path_factory.mktemp(request.param), request.param
    state = hybrids.named(name, num_classes=4).state_dict()
    torch.save({"state_dict": state, "arch": name}, folder / "dense.pth")
    stated = load_checkpoint(folder / "dense.pth", STATED)
    generator = torch.Generator().manual_seed(5)
    moved = {
        key: hybrids.trained(key, value, generator) for key, value in stated.plan.parameters.items()
    }
    args = {"family": "ltm_transformer", "hard": True, "img_size": list(SIZE)}
    content = {"state_dict": state | moved, "arch": f"ltm_transformer_{name}", "args": args}
    torch.save(content, folder / "trained.pth")
    return Case(name, folder / "dense.pth", folder / "trained.pth", load_checkpoint(
        folder / "trained.pth", Choices(hard=True)
    ))  # fmt: skip


def some(number: int) -> Images:
    pixels = hybrids.image(SIZE, number).numpy()
    return Images(pixels, None, tuple(map(str, range(number))), "test")


def test_masks_in_a_file_state_the_plan(case: Case) -> None:
    steps: list[Any] = [step for steps in case.checkpoint.plan.blocks for step in steps]
    assert all(step.hard and step.first for step in steps)
    assert [(step.of, step.tokens) for step in steps][:2] == [(64, 36), (9, 4)]
    stages = {place.path.split(".")[1] for place in case.checkpoint.geometry.places()}
    assert len(steps) == len(stages)
    assert {key.split(".")[-1] for key in case.checkpoint.plan.parameters} == {
        "mask0", "center", "step",
    }  # fmt: skip


def test_masks_that_are_stated_start_as_means(case: Case) -> None:
    read = load_checkpoint(case.dense, STATED)
    assert any("as training starts" in warning for warning in read.warnings)
    steps: list[Any] = [step for steps in read.plan.blocks for step in steps]
    assert [step.tokens for step in steps][:2] == [36, 4]


@pytest.mark.parametrize(
    "asked",
    [Precision(), Precision(FP16), Precision(INT8), Precision(INT8, scales=DYNAMIC)],
    ids=["fp32", "fp16", "int8", "int8 dynamic"],
)
def test_files_pass_the_check_in_every_precision(case: Case, asked: Precision) -> None:
    images = some(1)
    source, made = case.checkpoint, asked
    if asked.kind == INT8:
        source, made = quantise.prepare(case.checkpoint, images, asked)
        assert set(made.layers) == {layer.path for layer in case.checkpoint.geometry.linears()}
    model = to_onnx(source, opset=17, precision=made)
    found = compare.compare(model, case.checkpoint, images, batch_sizes=(1,), precision=made)
    assert found.verdict == ("equal" if asked.kind == FP32 else "bounded"), found.headline()


@pytest.mark.parametrize("opset", [16, 17, 20])
def test_what_opsets_are_tried_on_holds_every_operator(case: Case, opset: int) -> None:
    geometry = case.checkpoint.geometry
    form = Form(activation=geometry.activation, backbone=geometry.kind)
    tried = {node.op_type for model in opsets._models(form, opset) for node in model.graph.node}
    for batch_size in (None, 1):
        model = to_onnx(case.checkpoint, opset=opset, batch_size=batch_size, token_counts=True)
        assert {node.op_type for node in model.graph.node} <= tried


@pytest.mark.parametrize("leaf", ["mask0", "step", "conv.weight", "running_var"])
def test_another_weight_is_found(case: Case, leaf: str) -> None:
    model = to_onnx(case.checkpoint, opset=17)
    name = next(one.name for one in model.graph.initializer if one.name.endswith(leaf))
    change_stored(model, name, lambda array: np.multiply(array, 0.5, out=array))
    found = compare.compare(model, case.checkpoint, some(1), batch_sizes=(1,))
    assert found.verdict == "fail"
    assert name in found.headline()


def test_a_file_and_what_is_told_of_it(case: Case, tmp_path: Path) -> None:
    made = export(case.checkpoint, tmp_path / "m.onnx", check=False, token_counts=True)
    geometry = case.checkpoint.geometry
    dense = geometry.macs(dense_plan(geometry.depth))
    assert made.macs_share == pytest.approx(geometry.macs(case.checkpoint.plan) / dense)
    told = inspect(tmp_path / "m.onnx")
    assert (told["family"], told["mode"], told["tokens"]) == (
        "ltm_transformer", "static", made.tokens,
    )  # fmt: skip
    assert "merged by a mask" in succeeded(ltmp("inspect", tmp_path / "m.onnx"))
    found = check(tmp_path / "m.onnx", case.trained, samples=1, batch_sizes=[1])
    assert found.verdict == "equal"
    report = bench(
        tmp_path / "m.onnx", samples=1, settings=Settings(batch_sizes=(1,), warmup=0, iterations=1)
    )
    assert report.to_json()["macs_share"] == pytest.approx(made.macs_share)


def test_the_dense_model_of_an_int8_file(case: Case, tmp_path: Path) -> None:
    """Its weights are rounded ones, of convolutions of one cell, too."""
    pixels = some(2).pixels
    source, made = quantise.prepare(case.checkpoint, some(2), Precision(INT8))
    onnx.save(to_onnx(source, opset=17, precision=made), tmp_path / "m.onnx")
    model = dense_baseline(read_exported(tmp_path / "m.onnx"))
    logits = Session(model, threads=1).run(pixels)[0]
    with torch.inference_mode():
        wanted = case.checkpoint.model(torch.from_numpy(pixels)).numpy()
    assert 0 < np.abs(logits - wanted).max() < 0.2 * np.abs(wanted).max()


def test_work_of_a_named_model(case: Case) -> None:
    model = to_onnx(case.checkpoint, opset=17, batch_size=1)
    assert counted_macs.of(model) == case.checkpoint.geometry.macs(case.checkpoint.plan)


@pytest.mark.parametrize("case", NAMES[:1], indirect=True)
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--restore"], "keeps the smaller map behind a merge"),
        (["--merge-at", "1"], "the first block of each stage merges; drop it"),
        (["--compression-ratio", "1.5"], "expected a share above 0, at most 1"),
        (["--compression-ratio", "0.5", "--reduction-target", "0.9"], "say the same in two ways"),
        (["--family", "evit"], "which family evit does not take; ltm_transformer does"),
        (["--num-heads", "3"], "--num-heads is not for"),
        (["--model", "deit_tiny_patch16_224"], "is a VisionTransformer of timm's"),
    ],
    ids=str,
)
def test_what_cannot_be_asked(case: Case, flags: list[str], message: str, tmp_path: Path) -> None:
    family = [] if "--family" in flags else ["--family", "ltm_transformer"]
    refused(ltmp("export", case.dense, "-o", tmp_path / "m.onnx", *family, *flags), message)


def test_weights_alone_need_a_name(case: Case, tmp_path: Path) -> None:
    content: dict[str, Any] = torch.load(case.dense)
    torch.save(content["state_dict"], tmp_path / "bare.pth")
    with pytest.raises(InputError, match="nothing tells which; state its name of timm's"):
        load_checkpoint(tmp_path / "bare.pth", STATED)
    read = load_checkpoint(tmp_path / "bare.pth", Choices(model=case.name).over(STATED))
    assert read.geometry.name == case.name
