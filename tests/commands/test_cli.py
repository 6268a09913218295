"""The commands as a user types them: output, exit codes, files left behind."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import torch
import typer
from ltmp_cli.main import app
from typer.testing import CliRunner, Result

from ltmp_export import load_checkpoint
from ltmp_export.images import inputs
from ltmp_export.steps.prune.step import Prune
from tests.conftest import DIGITS_LTMP, FIXTURES, load_torch
from tests.makers.edge_cases import on_the_threshold
from tests.makers.make_checkpoint import random_vit
from tests.makers.mutations import change_stored


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with the authors' checkpoint as fixtures/digits_ltmp.pth.tar."""
    (tmp_path / "fixtures").mkdir()
    shutil.copy(DIGITS_LTMP, tmp_path / "fixtures")
    monkeypatch.chdir(tmp_path)
    return tmp_path


CKPT = "fixtures/digits_ltmp.pth.tar"


def ltmp(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(result: Result, code: int, message: str) -> None:
    """One clear line on stderr, nothing on stdout, no traceback."""
    assert result.exit_code == code, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]
    assert result.stdout == ""


def left(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_export_then_bench_as_typed(folder: Path) -> None:
    exported = ltmp("export", CKPT, "--opset", "17")
    assert exported.exit_code == 0, exported.stderr
    assert "model.onnx: ltmp vit_digits_patch4_32, opset 17" in exported.stdout
    assert "check: equal" in exported.stdout
    assert exported.stderr.splitlines() == [
        "warning: assumed: activation exact GELU (--act); LayerNorm epsilon 1e-06 (--norm-eps)"
    ]
    measured = ltmp("bench", "model.onnx", "--iterations", "2", "--samples", "8")
    assert measured.exit_code == 0, measured.stderr
    assert re.search(r"^1 +reduced +0\.0\d+ ", measured.stdout, re.MULTILINE)
    assert re.search(r"^1 +dense +0\.0836 +65 ", measured.stdout, re.MULTILINE)
    assert "CPUExecutionProvider" in measured.stdout
    assert left(folder) == [CKPT, "model.onnx"]


def test_export_options(folder: Path) -> None:
    result = ltmp(
        "export", CKPT, "-o", "a.onnx", "--opset", "20", "--token-counts", "--json", "a.json",
        "--family", "ltpm", "--mean", "0.4,0.5,0.6", "--std", "0.25", "--num-heads", "2",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "family ltpm as asked, though the file says ltmp" in result.stderr
    model = onnx.load("a.onnx")
    words = {entry.key: entry.value for entry in model.metadata_props}
    assert model.opset_import[0].version == 20
    assert [output.name for output in model.graph.output] == ["logits", "token_counts"]
    assert (words["mean"], words["std"]) == ("[0.4, 0.5, 0.6]", "[0.25, 0.25, 0.25]")
    document = json.loads(Path("a.json").read_text())
    assert document["schema_version"] == 1
    assert document["check"]["verdict"] == "equal"
    again = ltmp("check", "a.onnx", CKPT, "--samples", "4", "-b", "3")
    assert again.exit_code == 0, again.stdout


def test_export_without_check_says_so(folder: Path) -> None:
    result = ltmp("export", CKPT, "--no-check")
    assert result.exit_code == 0
    assert "not checked" in result.stdout


def test_thresholds_only_through_every_command(folder: Path, digits_base: Path) -> None:
    checkpoint = FIXTURES / "digits_ltm_thresholds.pth.tar"
    refused(ltmp("export", checkpoint), 2, "thresholds only; .*--base-checkpoint")
    base = ("--base-checkpoint", digits_base)
    assert ltmp("export", checkpoint, *base).exit_code == 0
    assert ltmp("check", "model.onnx", checkpoint, *base, "--samples", "3").exit_code == 0
    assert "ltm" in ltmp("inspect", checkpoint, *base).stdout


def test_check_reports(folder: Path) -> None:
    ltmp("export", CKPT)
    result = ltmp(
        "check", "model.onnx", CKPT, "--samples", "4", "-b", "1,3", "--json", "c.json",
        "--junit", "c.xml", "--strict",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("equal: every decision and every number")
    assert len(json.loads(Path("c.json").read_text())["comparisons"]) == 12
    assert ElementTree.parse("c.xml").getroot().get("tests") == "6"


def test_check_of_another_checkpoint_fails(folder: Path) -> None:
    ltmp("export", CKPT)
    top = load_torch(Path(CKPT))
    state = dict(top["state_dict"])
    state["blocks.1.prune_masker.threshold"] = torch.tensor([0.02])
    torch.save(top | {"state_dict": state}, "other.pth")
    result = ltmp("check", "model.onnx", "other.pth", "--samples", "4", "--junit", "c.xml")
    assert result.exit_code == 1
    assert "fail digit 0" in result.stdout
    assert "block 1: token" in result.stdout
    assert "block 1: the prune threshold is 0.00637" in result.stdout.splitlines()[-1]
    assert "exported from another file" in result.stderr
    assert "different thresholds" in result.stderr
    assert ElementTree.parse("c.xml").getroot().get("failures") != "0"


def test_check_of_another_family_fails(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check", "--family", "ltpm")
    assert ltmp("check", "model.onnx", CKPT, "--samples", "4").exit_code == 0  # as exported
    result = ltmp("check", "model.onnx", CKPT, "--samples", "4", "--family", "ltmp")
    assert result.exit_code == 1
    assert "model.onnx is ltpm, not ltmp" in result.stderr
    assert result.stdout.startswith("fail: the file does not compute")
    assert "the file's blocks take the steps of ltpm, the checkpoint's of ltmp" in result.stdout


def test_a_failing_check_leaves_what_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ltmp_export.graph.ragged import Layout

    monkeypatch.setattr(Layout, "score_bias", lambda layout, size, largest: layout.g.number(0.0))
    refused(ltmp("export", CKPT), 1, "comparisons do not pass; the first is digit 0 .*: block 1: ")
    assert left(folder) == [CKPT]
    Path("model.onnx").write_bytes(b"old")
    refused(ltmp("export", CKPT), 1, "comparisons do not pass")
    assert Path("model.onnx").read_bytes() == b"old"
    assert left(folder) == [CKPT, "model.onnx"]


def test_a_failing_image_is_saved_and_replayed(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check")
    model = onnx.load("model.onnx")
    change_stored(model, "block_03/merge_threshold", lambda array: array.fill(0.5))
    onnx.save(model, "wrong.onnx")
    saved = ltmp("check", "wrong.onnx", CKPT, "--samples", "3", "-b", "2", "--save-repro", "r")
    assert saved.exit_code == 1
    assert "block 3: the merge threshold is 0.5 in the file" in saved.stdout
    assert saved.stderr.splitlines()[-1].endswith("again: ltmp check --repro r")
    again = ltmp("check", "--repro", "r", "--json", "r.json")
    assert again.exit_code == 1
    assert "warning: saved as: fail at row 0: block 3: token" in again.stderr
    assert json.loads(Path("r.json").read_text())["comparisons"][0]["block"] == 3
    assert ltmp("check", "model.onnx", "--repro", "r").exit_code == 0
    fine = ltmp("check", "model.onnx", CKPT, "--samples", "2", "--save-repro", "s")
    assert fine.exit_code == 0
    assert fine.stderr.splitlines()[-1] == "s: not written, no image to blame"
    assert not Path("s").exists()


def test_borderline_passes_unless_strict(
    folder: Path, content: dict[str, Any], write: Callable[[Mapping[str, Any]], Path]
) -> None:
    """A checkpoint whose threshold is the score of a token of the first image, as float32."""
    images = inputs.embedded_digits()
    edge = on_the_threshold(load_checkpoint(CKPT), images, Prune)
    score = torch.tensor(edge.plan.thresholds()["prune"][:1])
    content["state_dict"]["blocks.0.prune_masker.threshold"] = score
    checkpoint = write(content)
    exported = ltmp("export", checkpoint)
    assert exported.exit_code == 0, exported.stderr
    assert "check: borderline on 7 images" in exported.stdout
    few = ("--samples", "2", "-b", "1,2", "--junit", "c.xml")
    checked = ltmp("check", "model.onnx", checkpoint, *few)
    assert checked.exit_code == 0
    assert "  borderline digit 0 (a 2), batches 1, 2, 2 reversed: block 0: token" in checked.stdout
    assert "\nborderline: 3 of 6 comparisons hold decisions that differ" in checked.stdout
    assert ElementTree.parse("c.xml").getroot().get("failures") == "0"
    strict = ltmp("check", "model.onnx", checkpoint, *few, "--strict", "--save-repro", "r")
    assert strict.exit_code == 1
    assert ElementTree.parse("c.xml").getroot().get("failures") == "3"
    assert ltmp("check", "--repro", "r").exit_code == 0
    assert ltmp("check", "--repro", "r", "--strict").exit_code == 1


def test_a_file_without_its_tensors_is_inconclusive(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check")
    Path("m.onnx").write_bytes(Path("model.onnx").read_bytes().replace(b"/partner", b"/destiny"))
    result = ltmp("check", "m.onnx", CKPT, "--save-repro", "r")
    assert result.exit_code == 1
    assert "inconclusive: not everything could be compared" in result.stdout
    assert "lacks the named tensor block_00/partner and 5 more" in result.stdout
    assert not Path("r").exists()


@pytest.mark.parametrize(("value", "expected"), [("true", 1), ("", 0), ("false", 0)])
def test_annotations_where_github_reads_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: str, expected: int
) -> None:
    ltmp("export", CKPT, "--no-check")
    model = onnx.load("model.onnx")
    change_stored(model, "blocks.1.mlp.fc2.bias", lambda array: array.fill(0.5))
    onnx.save(model, "wrong.onnx")
    monkeypatch.setenv("GITHUB_ACTIONS", value)
    result = ltmp("check", "wrong.onnx", CKPT, "--samples", "1", "-b", "1")
    lines = [line for line in result.stdout.splitlines() if line.startswith("::error ")]
    assert len(lines) == 2 * expected
    assert "the file's blocks.1.mlp.fc2.bias differs from the checkpoint's by" in result.stdout


def test_inspect_margins(folder: Path) -> None:
    np.savez("images.npz", images=inputs.embedded_digits().pixels)
    result = ltmp("inspect", CKPT, "--images", "images.npz", "--samples", "5")
    assert result.exit_code == 0, result.stderr
    assert "|score - threshold| on 5 images (images.npz)" in result.stdout
    assert re.search(r"^1 +prune +\d+ +\d\.\de-0\d .* \d+%$", result.stdout, re.MULTILINE)
    assert re.search(r"^any( +\d+%){4}$", result.stdout, re.MULTILINE)
    assert "float32 (scores off by 3e-06 of themselves): 0%" in result.stdout
    document = json.loads(
        ltmp("inspect", CKPT, "--images", "images.npz", "--samples", "5", "--json").stdout
    )
    assert document["margins"]["count"] == 5
    assert len(document["margins"]["steps"]) == 18
    ltmp("export", CKPT, "--no-check")
    refused(
        ltmp("inspect", "model.onnx", "--images", "images.npz"), 2, "measured on its checkpoint"
    )


def test_help_shows_defaults(folder: Path) -> None:
    """Square brackets would be taken for markup."""
    assert "default: 1,2,7" in ltmp("check", "--help").stdout


@pytest.mark.parametrize("name", sorted(typer.main.get_group(app).commands))
def test_help_names_every_option_whole_at_80_columns(name: str) -> None:
    """A name that is cut cannot be typed."""
    command = typer.main.get_group(app).commands[name]
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    words = set(re.findall(r"[^\s│,]+", shown))
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert {*parameter.opts, *parameter.secondary_opts} <= words, parameter.name
        metavar = getattr(parameter, "metavar", None)
        assert metavar is None or metavar in shown, parameter.name


def test_bench_options(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check")
    ltmp("export", CKPT, "--no-check", "-o", "other.onnx", "--opset", "18")
    np.savez("images.npz", images=np.random.default_rng(0).random((5, 3, 32, 32)))
    result = ltmp(
        "bench", "model.onnx", "--images", "images.npz", "-b", "1,2", "--threads", "1",
        "--warmup", "1", "--iterations", "2", "--baseline", "other.onnx", "--json", "b.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    document = json.loads(Path("b.json").read_text())
    assert document["threads"] == 1
    assert document["baseline"] == "other.onnx"
    assert [t["batch_size"] for t in document["timings"]] == [1, 1, 2, 2]
    assert len(document["tokens"]) == 5
    alone = ltmp("bench", "model.onnx", "--baseline", "none", "--iterations", "1", "--samples", "2")
    assert "dense " not in alone.stdout.splitlines()[2]


FEW = ("--iterations", "10", "--samples", "2")


def test_bench_draws_and_profiles(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    ltmp("export", CKPT, "--no-check")
    result = ltmp("bench", "model.onnx", *FEW, "--plot", "b.png", "--profile", "--roofline")
    assert result.exit_code == 0, result.stderr
    assert Path("b.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"^block_05 +\d+ ", result.stdout, re.MULTILINE)
    assert "GFLOP/s; its linear layers alone take" in result.stdout
    assert left(folder) == ["b.png", CKPT, "model.onnx"]


def test_bench_offline(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check")
    result = ltmp("bench", "model.onnx", *FEW, "--scenario", "offline")
    assert result.exit_code == 0, result.stderr
    sizes = [line.split()[0] for line in result.stdout.splitlines()[1:7]]
    assert sizes == ["1", "1", "8", "8", "32", "32"]


def test_bench_precisions(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check")
    result = ltmp("bench", "model.onnx", *FEW, "--precisions", CKPT, "--json", "b.json")
    assert result.exit_code == 0, result.stderr
    models = [line[7:31].strip() for line in result.stdout.splitlines()[1:6]]
    assert models == [
        "reduced fp32 (this file)", "reduced fp16", "reduced int8", "dense fp32", "dense int8",
    ]  # fmt: skip
    refused(
        ltmp("bench", "model.onnx", "--precisions", CKPT, "--baseline", "none"),
        2,
        "with --precisions, the baseline is the dense model; drop the other one",
    )


def test_a_regression_exits_1(folder: Path) -> None:
    """The earlier report is edited: nobody can say here how fast this machine is."""
    ltmp("export", CKPT, "--no-check")
    assert ltmp("bench", "model.onnx", *FEW, "--json", "now.json").exit_code == 0
    for factor, code, verdict in ((0.01, 1, "slower"), (100, 0, "faster")):
        document = json.loads(Path("now.json").read_text())
        for timing in document["timings"]:
            if timing["model"] == "reduced":
                timing["samples"] = [[factor * x for x in row] for row in timing["samples"]]
        Path("then.json").write_text(json.dumps(document))
        result = ltmp("bench", "model.onnx", *FEW, "--compare", "then.json")
        assert result.exit_code == code, result.stderr
        assert verdict in result.stdout.splitlines()[-2]
    assert ltmp("bench", "model.onnx", *FEW, "--threads", "1", "--json", "one.json").exit_code == 0
    other = ltmp("bench", "model.onnx", *FEW, "--threads", "2", "--compare", "one.json")
    assert other.exit_code == 2
    assert "cannot be compared: threads 1 then, 2 now" in other.stderr


def test_inspect(folder: Path) -> None:
    found = ltmp("inspect", CKPT)
    assert found.exit_code == 0, found.stderr
    assert "6 blocks, width 128, 2 heads" in found.stdout
    assert re.search(r"^1 +0\.907877 +0\.006371$", found.stdout, re.MULTILINE)
    ltmp("export", CKPT, "--no-check")
    document = json.loads(ltmp("inspect", "model.onnx", "--json").stdout)
    assert document["opset"] == 17
    assert document["inputs"] == [
        {"name": "images", "type": "float", "shape": ["batch", 3, 32, 32]}
    ]
    assert document["operators"]["Gemm"] == 25
    assert "opset" in ltmp("inspect", "model.onnx").stdout


def test_inspect_says_what_is_missing(folder: Path) -> None:
    found = ltmp("inspect", FIXTURES / "digits_ltm_thresholds.pth.tar")
    assert found.exit_code == 0
    assert "merge in 6 blocks" in found.stdout
    assert "give the dense model's weights with --base-checkpoint" in found.stdout
    state = load_torch(Path(CKPT))["state_dict"]
    torch.save(state, "bare.pth")
    document = json.loads(ltmp("inspect", "bare.pth", "--json").stdout)
    assert document["kind"] == "incomplete checkpoint"
    assert "--family ltmp|ltpm" in document["missing"]
    assert document["tensors"] == 80


def small_vit(path: Path, **kwargs: int) -> None:
    model = random_vit("vit", 0, img_size=32, patch_size=8, embed_dim=64, num_heads=1, **kwargs)
    thresholds = {
        f"blocks.{i}.prune_masker.threshold": torch.tensor([0.02]) for i in range(kwargs["depth"])
    }
    torch.save({"state_dict": model.state_dict() | thresholds, "arch": "ltp_small"}, path)


def test_a_model_of_another_shape_is_no_check(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check")
    for kwargs, message in {
        (7, 6): "classes 10, the checkpoint small.pth has 7",
        (10, 2): "depth 6, the checkpoint small.pth has 2",
    }.items():
        small_vit(folder / "small.pth", num_classes=kwargs[0], depth=kwargs[1])
        refused(ltmp("check", "model.onnx", "small.pth"), 2, message)


def test_digit_labels_are_for_the_digits_model_only(folder: Path) -> None:
    small_vit(folder / "small.pth", num_classes=3, depth=1)
    assert ltmp("export", "small.pth").exit_code == 0
    measured = ltmp("bench", "model.onnx", "--iterations", "1", "--samples", "2")
    assert measured.exit_code == 0
    assert "top-1" not in measured.stdout


def test_a_foreign_baseline_is_checked_and_its_work_unknown(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check")
    small_vit(folder / "small.pth", num_classes=3, depth=1)
    ltmp("export", "small.pth", "--no-check", "-o", "[bold]small.onnx")
    few = ("--iterations", "1", "--samples", "2")
    measured = ltmp("bench", "model.onnx", "--baseline", "[bold]small.onnx", *few)
    assert re.search(r"^1 +\[bold\]small.onnx +– +– ", measured.stdout, re.MULTILINE)
    model = onnx.load("model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 64
    onnx.save(model, "wide.onnx")
    refused(ltmp("bench", "model.onnx", "--baseline", "wide.onnx"), 2, "wide.onnx takes .*64")


def test_names_of_images_are_not_markup(folder: Path) -> None:
    from PIL import Image

    ltmp("export", CKPT, "--no-check")
    (folder / "a[").mkdir()
    Image.new("P", (32, 32)).save(folder / "a[" / "b].png")
    (folder / "a[" / "folder.png").mkdir()
    measured = ltmp("bench", "model.onnx", "--images", "a[", "--iterations", "1")
    assert measured.exit_code == 0, measured.stderr
    assert "b].png" in measured.stdout


def test_demo(folder: Path) -> None:
    result = ltmp("demo")
    assert result.exit_code == 0, result.stderr
    assert "equal: every decision" in result.stdout
    assert re.search(r"drops 5\d% of the multiply-accumulates", result.stdout)
    assert "97.9% of the digits right against 97.9%" in result.stdout
    assert left(folder / "ltmp-demo") == ["digits_ltmp.pth.tar", "model.onnx"]


BAD_USE: dict[str, tuple[Sequence[str], int, str]] = {
    "missing file": (["export", "no.pth"], 2, "no.pth does not exist"),
    "folder as checkpoint": (
        ["export", "fixtures"],
        2,
        "is a directory without model.safetensors",
    ),
    "old opset": (["export", CKPT, "--opset", "15"], 2, "opset 15 .* 16 to"),
    "future opset": (["export", CKPT, "--opset", "99"], 2, "opset 99 .* 16 to"),
    "output folder missing": (["export", CKPT, "-o", "no/m.onnx"], 2, "no does not exist; make it"),
    "output is a folder": (["export", CKPT, "-o", "fixtures"], 2, "fixtures is a directory"),
    "output is the input": (["export", CKPT, "-o", CKPT], 2, "is the input fixtures/dig"),
    "report onto the output": (["export", CKPT, "-o", "x", "--json", "x"], 2, "x is also the out"),
    "report onto the input": (["check", "m", CKPT, "--json", CKPT], 2, "is the input fixtures"),
    "repeated batch": (["bench", "m", "-b", "2,2"], 2, "one is there twice"),
    "allowed of nothing": (["bench", "m", "--max-regression", "5%"], 2, "is about --compare"),
    "no percentage": (
        ["bench", "m", "--compare", "o", "--max-regression", "0.05"],
        2,
        "--max-regression 0.05: expected a percentage with its sign, like 5%",
    ),
    "compare with nothing": (["bench", "m", "--compare", "o"], 2, "o does not exist; expected a r"),
    "compare with itself": (["bench", "m", "--compare", CKPT, "--json", CKPT], 2, "is the input"),
    "plot onto the report": (["bench", "m", "--plot", "x", "--json", "x"], 2, "also the output"),
    "base of nothing": (["bench", "m", "--base-checkpoint", "b"], 2, "is about --side-by-side"),
    "report onto the checkpoint": (
        ["bench", "m", "--precisions", CKPT, "--json", CKPT],
        2,
        "is the input fixtures",
    ),
    "single stream of batches": (
        ["bench", "m", "--scenario", "single-stream", "-b", "1,8"],
        2,
        "one image at a time; drop the batch sizes 1,8",
    ),
    "output unwritable": (["export", CKPT, "-o", "/proc/m.onnx"], 2, "cannot write /proc/m.onnx"),
    "report folder missing": (["export", CKPT, "--json", "no/r.json"], 2, "cannot write no/r.json"),
    "unknown family": (["export", CKPT, "--family", "tome"], 2, "no family 'tome'; choose from"),
    "unknown model": (["export", CKPT, "-m", "deit_smal"], 2, "did you mean"),
    "bad mean": (["export", CKPT, "--mean", "a,b"], 2, "--mean a,b: expected numbers"),
    "mean of two": (["export", CKPT, "--mean", "0.5,0.5"], 2, "expected 3 finite numbers"),
    "std of zero": (["export", CKPT, "--std", "0"], 2, "every value must be above 0"),
    "bad size": (["export", CKPT, "--img-size", "1,2,3"], 2, "one number, or height,width"),
    "bench a checkpoint": (["bench", CKPT], 2, "is not an ONNX model"),
    "check a checkpoint": (["check", CKPT, CKPT], 2, "is not an ONNX model"),
    "export a batch of 4": (["export", CKPT, "-b", "4"], 2, "batch size 4: a file is exported for"),
    "a report over the baseline": (
        ["bench", "m.onnx", "--baseline", "base.onnx", "--json", "base.onnx"],
        2,
        "the output base.onnx is the input base.onnx",
    ),
    "bad batches": (["check", "m", CKPT, "-b", "1,x"], 2, "--batch-size 1,x: expected whole"),
    "check nothing": (["check"], 2, "MODEL.onnx and CHECKPOINT missing: ltmp check MODEL.onnx"),
    "check without checkpoint": (["check", "m"], 2, "CHECKPOINT missing: .* or --repro DIR"),
    "repro and images": (["check", "--repro", "r", "--images", "i"], 2, "drop --images"),
    "repro saved again": (["check", "--repro", "r", "--save-repro", "s"], 2, "drop --save-repro"),
    "repro of nothing": (["check", "--repro", "fixtures"], 2, "fixtures has no repro.json"),
    "repro into a full folder": (
        ["check", "m", CKPT, "--save-repro", "fixtures"],
        2,
        "fixtures is not empty; choose",
    ),
    "repro nowhere": (["check", "m", CKPT, "--save-repro", "no/r"], 2, "no does not exist; make"),
    "samples of nothing": (["inspect", CKPT, "--samples", "3"], 2, "--samples is about --images"),
    "repro onto a report": (
        ["check", "m", CKPT, "--save-repro", "r", "--json", "r"],
        2,
        "r is also the output of",
    ),
    "margins of nothing": (["inspect", CKPT, "--images", "none"], 2, "none does not exist"),
    "inspect nothing": (["inspect", "none.onnx"], 2, "none.onnx does not exist"),
    "demo onto a file": (["demo", CKPT], 2, "cannot make the folder"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), BAD_USE.values(), ids=BAD_USE.keys())
def test_bad_use_is_one_line_and_writes_nothing(
    folder: Path, arguments: Sequence[str], code: int, message: str
) -> None:
    before = left(folder)
    refused(ltmp(*arguments), code, message)
    assert left(folder) == before


def test_missing_provider_exits_4(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check")
    for providers, code, message in (
        ("NoProvider", 4, "no execution provider NoProvider"),
        ("rknpu", 4, "no execution provider RknpuExecutionProvider in the installed onnxruntime"),
        ("c", 2, "'c' may be .* or .*CPUExecutionProvider"),
    ):
        refused(ltmp("bench", "model.onnx", "--providers", providers), code, message)


def test_usage_errors_exit_2_and_suggest(folder: Path) -> None:
    result = ltmp("export", CKPT, "--opsett", "17")
    assert result.exit_code == 2
    assert "--opset" in result.stderr
    assert ltmp("frobnicate").exit_code == 2


def run_without(heavy: set[str], commands: Sequence[Sequence[str]], code: int = 0) -> str:
    """What commands print in a process of their own that must not import any of `heavy`.

    Args:
        heavy: Names of modules.
        commands: What is typed after `ltmp`, each.
        code: The exit code of all of them.
    """
    script = (
        "import sys\n"
        "from ltmp_cli.main import app\n"
        f"for command in {[list(command) for command in commands]}:\n"
        "    try:\n        app(command)\n"
        f"    except SystemExit as done:\n        assert (done.code or 0) == {code}, command\n"
        f"found = {heavy} & set(sys.modules)\n"
        "sys.exit(f'loaded {found}' if found else 0)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


def test_help_is_instant_and_loads_nothing_heavy(folder: Path) -> None:
    shown = run_without({"torch", "timm", "onnx", "onnxruntime", "numpy"}, [["--help"]])
    for command in ("export", "check", "bench", "inspect", "demo"):
        assert command in shown


def test_exported_models_need_no_pytorch(folder: Path) -> None:
    """What is done with a model file alone does not wait for PyTorch and timm to be imported."""
    assert ltmp("export", CKPT, "--no-check").exit_code == 0
    once = ["--samples", "1", "--iterations", "1", "--warmup", "0"]
    shown = run_without(
        {"torch", "timm"}, [["inspect", "model.onnx"], ["bench", "model.onnx", *once]]
    )
    assert "opset" in shown
    assert "speed-up" in shown


@pytest.mark.parametrize("command", ["export", "check", "bench", "inspect", "demo"])
def test_every_command_has_help(command: str) -> None:
    result = ltmp(command, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 5
