"""`ltmp bench` as a user types it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.commands.conftest import CKPT
from tests.makers.commands import left, ltmp, refused
from tests.makers.make_checkpoint import small_vit


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


FEW = ("--iterations", "3", "--samples", "2", "--warmup", "1")


def test_bench_draws_and_profiles(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    ltmp("export", CKPT, "--no-check")
    result = ltmp("bench", "model.onnx", *FEW, "--plot", "b.svg", "--profile", "--roofline")
    assert result.exit_code == 0, result.stderr
    assert "<svg" in Path("b.svg").read_text()[:500]
    assert re.search(r"^block_05 +\d+ ", result.stdout, re.MULTILINE)
    assert "GFLOP/s; its linear layers alone take" in result.stdout
    assert left(folder) == ["b.svg", CKPT, "model.onnx"]


def test_bench_offline(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check")
    result = ltmp("bench", "model.onnx", *FEW, "--scenario", "offline")
    assert result.exit_code == 0, result.stderr
    sizes = [line.split()[0] for line in result.stdout.splitlines()[1:7]]
    assert sizes == ["1", "1", "8", "8", "32", "32"]


def test_bench_precisions(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check")
    result = ltmp("bench", "model.onnx", *FEW, "-b", "1", "--precisions", CKPT, "--json", "b.json")
    assert result.exit_code == 0, result.stderr
    models = [line[7:31].strip() for line in result.stdout.splitlines()[1:6]]
    assert models == [
        "reduced fp32 (this file)", "reduced fp16", "reduced int8", "dense fp32", "dense int8",
    ]  # fmt: skip
    refused(
        ltmp("bench", "model.onnx", "--precisions", CKPT, "--baseline", "none"),
        "with --precisions, the baseline is the dense model; drop the other one",
    )


def test_a_regression_exits_1(folder: Path) -> None:
    """The earlier report is edited: nobody can say here how fast this machine is."""
    rounds = (*FEW, "--iterations", "10", "-b", "1", "--threads")
    ltmp("export", CKPT, "--no-check")
    assert ltmp("bench", "model.onnx", *rounds, "1", "--json", "now.json").exit_code == 0
    for factor, code, verdict in ((0.01, 1, "slower"), (100, 0, "faster")):
        document = json.loads(Path("now.json").read_text())
        for timing in document["timings"]:
            if timing["model"] == "reduced":
                timing["samples"] = [[factor * x for x in row] for row in timing["samples"]]
        Path("then.json").write_text(json.dumps(document))
        result = ltmp("bench", "model.onnx", *rounds, "1", "--compare", "then.json")
        assert result.exit_code == code, result.stderr
        assert verdict in result.stdout.splitlines()[-2]
    other = ltmp("bench", "model.onnx", *rounds, "2", "--compare", "now.json")
    assert other.exit_code == 2
    assert "cannot be compared: threads 1 then, 2 now" in other.stderr


def test_a_file_that_tells_what_became_of_patches(folder: Path) -> None:
    """No classes are made of what are no logits, of the file or of what it is compared with."""
    once = ("--iterations", "1", "--samples", "2", "--warmup", "0")
    ltmp("export", CKPT, "--no-check", "--outputs", "tokens,token_map", "-o", "map.onnx")
    result = ltmp("bench", "map.onnx", *once, "--json", "b.json")
    assert result.exit_code == 0, result.stderr
    assert "a run gives tokens, token_map, of the dense model, too" in result.stdout
    document = json.loads(Path("b.json").read_text())
    assert document["outputs"] == ["tokens", "token_map"]
    assert document["accuracy"] is None
    assert {entry["agreement"] for entry in document["entries"]} == {None}
    ltmp("export", CKPT, "--no-check")
    ltmp("export", CKPT, "--no-check", "--outputs", "features", "-o", "features.onnx")
    other = ltmp("bench", "model.onnx", *once, "--baseline", "features.onnx", "--json", "o.json")
    assert other.exit_code == 0, other.stderr
    assert "a run gives" not in other.stdout
    document = json.loads(Path("o.json").read_text())
    assert document["accuracy"] is not None
    assert document["baseline_accuracy"] is None  # of what are no classes
    assert [entry["agreement"] for entry in document["entries"]] == [1, None]


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
    refused(ltmp("bench", "model.onnx", "--baseline", "wide.onnx"), "wide.onnx takes .*64")


def test_names_of_images_are_not_markup(folder: Path) -> None:
    from PIL import Image

    ltmp("export", CKPT, "--no-check")
    (folder / "a[").mkdir()
    Image.new("P", (32, 32)).save(folder / "a[" / "b].png")
    (folder / "a[" / "folder.png").mkdir()
    measured = ltmp("bench", "model.onnx", "--images", "a[", "--iterations", "1")
    assert measured.exit_code == 0, measured.stderr
    assert "b].png" in measured.stdout


def test_missing_provider_exits_4(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check")
    for providers, code, message in (
        ("NoProvider", 4, "no execution provider NoProvider"),
        ("rknpu", 4, "no execution provider RknpuExecutionProvider in the installed onnxruntime"),
        ("c", 2, "'c' may be .* or .*CPUExecutionProvider"),
    ):
        refused(ltmp("bench", "model.onnx", "--providers", providers), message, code)
