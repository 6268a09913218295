"""Swin Transformers in files: read, exported, checked, inspected, refused in one line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer

from ltmp_export import bench, export, inspect, report
from ltmp_export.backbones import chosen
from ltmp_export.backbones.swin import build
from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.model_file.dense import dense_baseline
from ltmp_export.model_file.model import read_exported
from ltmp_export.plan.work import dense_macs
from ltmp_export.runtimes.session import Session
from ltmp_export.statements import timm_names
from ltmp_export.statements.choices import Choices
from ltmp_export.timing.settings import Settings
from tests.makers import swins
from tests.makers.commands import ltmp, refused, run_without, succeeded
from tests.makers.pages import require_valid

MERGES = ("--family", "ltm_transformer", "--soft", "--compression-ratio", "0.5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """t.pth, a checkpoint as timm's script writes it; t.onnx, exported from it."""
    made = tmp_path_factory.mktemp("swin")
    export(
        swins.save(made / "t.pth", swins.small(alike=True)), made / "t.onnx", token_counts=True,
        choices=Choices(family="ltm_transformer", compression_ratio=0.5, hard=False),
    )  # fmt: skip
    return made


def test_check_reads_what_export_wrote(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert "equal" in succeeded(ltmp("check", "t.onnx", "t.pth", "--samples", "2"))


def test_inspect_tells_both_without_pytorch(folder: Path) -> None:
    told = run_without({"torch", "timm"}, [["inspect", str(folder / "t.onnx")]])
    assert "Swin, blocks 2 2, widths 16 32" in told
    assert "4 x 16 to 9" in told
    facts = inspect(folder / "t.pth", Choices(family="ltm_transformer", hard=False))
    assert facts["backbone"]["kind"] == "swin"
    assert facts["tokens"] == (144, 144, 36, 36)
    assert facts["told_by"]["act"]["where"] == f"{swins.ARCH} (arch)"
    assert "img_size" in facts["told_by"]
    assert any("not in all as" in warning for warning in facts["warnings"])


def test_bench_times_it_beside_the_dense_model(folder: Path) -> None:
    settings = Settings(batch_sizes=(1, 2), iterations=2, warmup=1)
    report = bench(folder / "t.onnx", samples=2, baseline="dense", settings=settings)
    exported = read_exported(folder / "t.onnx")
    assert report.dense_gmacs == dense_macs(exported.geometry) / 1e9
    assert report.tokens == ((144, 144, 36, 36),) * 2


def test_the_page_has_no_pictures_and_says_why(folder: Path, tmp_path: Path) -> None:
    found = report(folder / "t.onnx", output=tmp_path / "r.html", samples=2, threads=1)
    assert require_valid((tmp_path / "r.html").read_bytes()).headings() == [
        "model", "tokens", "assumed",
    ]  # fmt: skip
    assert "pictures" not in found.to_json()
    (told,) = (line for line in found.warnings if "no pictures" in line)
    assert "a swin network makes other tokens of its tokens from stage to stage" in told


def test_the_dense_model_is_in_the_file(folder: Path) -> None:
    exported = read_exported(folder / "t.onnx")
    images = swins.images(load_checkpoint(folder / "t.pth", dense=True).geometry)
    (found,) = Session(dense_baseline(exported)).run(images.pixels)
    with torch.inference_mode():
        wanted = swins.small(alike=True)(torch.from_numpy(images.pixels)).numpy()
    assert np.abs(found - wanted).max() < 2e-4 * np.abs(wanted).max()


def test_metadata_of_another_network_are_damaged(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(str(folder / "t.onnx"))
    entry = next(e for e in model.metadata_props if e.key == "ltmp.backbone")
    whole = json.loads(entry.value)
    changes: list[dict[str, Any]] = [
        {"kind": "vit"},
        {"kind": []},
        {"depths": [2, 3]},
        {"windows": 4},
    ]
    for change in changes:
        entry.value = json.dumps(whole | change)
        (tmp_path / "t.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(InputError, match="damaged ltmp metadata"):
            read_exported(tmp_path / "t.onnx")


def test_trained_masks_are_read(tmp_path: Path) -> None:
    """A file with masks of its own is the model of these masks."""
    made = swins.small()
    wanted = swins.merging(made, hard=True)
    own = dict(wanted.plan.parameters)
    path = swins.save(
        tmp_path / "m.pth",
        made,
        state=own,
        args={"hard": True},
        arch=f"ltm_transformer_{swins.ARCH}",
    )
    found = load_checkpoint(path)
    assert found.plan == wanted.plan
    for name, value in own.items():
        assert torch.equal(found.plan.parameters[name], value)
    del own["layers.1.ltm.mask0"]
    with pytest.raises(InputError, match=r"layers.1.ltm.mask0 is missing; expected \[4, targets\]"):
        load_checkpoint(swins.save(path, made, state=own), Choices(hard=True))
    own["layers.1.ltm.mask0"] = torch.ones(4, 5)
    with pytest.raises(InputError, match="at most 4 of them"):
        load_checkpoint(swins.save(path, made, state=own), Choices(hard=True))


def test_buffers_of_older_files_are_left_out(tmp_path: Path) -> None:
    buffers = {
        "layers.0.blocks.1.attn_mask": torch.zeros(6, 16, 16),
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.long),
    }
    path = swins.save(tmp_path / "b.pth", swins.small(), state=buffers)
    found = load_checkpoint(path, dense=True)
    assert any("left out: 2 buffers" in line for line in found.found)


def test_it_may_stand_under_a_prefix(tmp_path: Path) -> None:
    state = {f"module.backbone.{k}": v for k, v in swins.small().state_dict().items()}
    torch.save({"model": state, "args": argparse.Namespace(model=swins.ARCH, img_size=[16, 24])},
               tmp_path / "p.pth")  # fmt: skip
    assert load_checkpoint(tmp_path / "p.pth", dense=True).geometry.kind == "swin"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--family ltm_transformer takes a Swin Transformer"),
        (("--family", "m", "--r", "8"), "a Swin Transformer, which family m does not take"),
        (("--family", "ltmp"), "which family ltmp does not take; ltm_transformer does"),
        ((*MERGES, "--no-restore"), "--no-restore: the windows of"),
        ((*MERGES, "--merge-at", "1"), "--merge-at: of .* all blocks merge"),
        ((*MERGES, "--img-size", "24"), "no whole number of windows of 4x4 in stage 1"),
        ((*MERGES, "--num-heads", "2"), "--num-heads is not for a Swin Transformer"),
        ((*MERGES, "--model", "deit_small_patch16_224"),
         r"but deit_small_patch16_224 \(--model\) is a VisionTransformer"),
        ((*MERGES, "--model", "swinv2_tiny_window8_256"), "is a SwinTransformerV2 of timm's"),
        ((*MERGES, "--model", "swin_tiny_patch4_window7_22"), "did you mean swin_tiny_patch4"),
        (("--family", "ltm_transformer", "--reduction-target", "0.1"), "shrink the MLPs alone"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(folder)
    refused(ltmp("export", "t.pth", *options, "-o", "x.onnx"), message)
    assert not Path("x.onnx").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": None}, "nothing tells which; state its name of timm's with --model"),
        ({"state": {"layers.0.downsample.reduction.weight": torch.ones(32, 64)}},
         "names of Microsoft's Swin Transformer"),
        ({"state": {"layers.1.blocks.2.norm1.weight": torch.ones(3)}}, "1 misshapen"),
        ({"state": {"layers.1.blocks.4.attn.relative_position_bias_table": torch.ones(9, 2)}},
         "its stages have gaps among their blocks"),
        ({"state": {"layers.0.blocks.0.attn.relative_position_bias_table": torch.ones(48, 1)}},
         "a table of 48 biases is not of square windows"),
        ({"state": {"head.fc.weight": torch.ones(5)}}, r"head.fc.weight has shape \(5,\)"),
        ({"args": {"img_size": 2**16}}, r"tokens of one image.*memory"),
    ],
    ids=str,
)  # fmt: skip
def test_files_that_are_not_whole_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    swins.save(Path("c.pth"), swins.small(), **change)
    refused(ltmp("export", "c.pth", *MERGES), message)


@pytest.mark.parametrize("command", ["calibrate", "finetune"])
def test_thresholds_are_not_made_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(folder)
    images = "--images" if command == "calibrate" else "--data"
    told = ltmp(command, "t.pth", images, "x.npz", "--reduction-target", "0.5")
    refused(told, "a Swin Transformer: .*plain ViTs alone")


def test_side_by_side_is_of_vits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    told = ltmp("bench", "t.onnx", "--side-by-side", "t.pth")
    refused(told, "--side-by-side takes plain ViTs alone")


def test_what_asks_for_a_vit_says_so(folder: Path) -> None:
    found = load_checkpoint(folder / "t.pth", dense=True)
    with pytest.raises(InputError, match="of kind swin; what is asked for takes plain ViTs alone"):
        _ = found.vit


def test_kinds_are_told_by_keys_and_classes() -> None:
    assert chosen.by_keys(swins.small().state_dict()) == chosen.by_class(swins.small()) == "swin"
    with timm_names.without_numbers():
        other = timm.create_model("swinv2_tiny_window8_256")
    assert chosen.by_keys(other.state_dict()) == chosen.by_class(other) == chosen.VIT


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swin_s3_tiny_224"])
def test_timms_own_are_built(name: str) -> None:
    torch.manual_seed(0)
    model: SwinTransformer = timm.create_model(name, num_classes=7)
    built = build.build(model.state_dict(), name, timm_name=timm_names.require(name))
    assert built.warnings == (
        f"not in all as {name} (its name) has it: classes 7 (1000); the weights decide",
    )
    pixels = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(built.model(pixels), model.eval()(pixels))
