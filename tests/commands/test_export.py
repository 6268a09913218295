"""`ltmp export` as a user types it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import pytest

from ltmp_export.model_file import targets
from tests.commands.conftest import CKPT
from tests.conftest import FIXTURES
from tests.makers.commands import left, ltmp, refused
from tests.makers.shallow import write_shallow


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
    refused(ltmp("export", checkpoint), "thresholds only; .*--base-checkpoint")
    base = ("--base-checkpoint", digits_base)
    assert ltmp("export", checkpoint, *base).exit_code == 0
    assert ltmp("check", "model.onnx", checkpoint, *base, "--samples", "3").exit_code == 0
    assert "ltm" in ltmp("inspect", checkpoint, *base).stdout


def test_a_failing_check_leaves_what_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ltmp_export.graph.ragged import Layout

    monkeypatch.setattr(Layout, "score_bias", lambda layout, size, largest: layout.g.number(0.0))
    refused(ltmp("export", CKPT), "comparisons do not pass; the first is digit 0 .*: block 1: ", 1)
    assert left(folder) == [CKPT]
    Path("model.onnx").write_bytes(b"old")
    refused(ltmp("export", CKPT), "comparisons do not pass", 1)
    assert Path("model.onnx").read_bytes() == b"old"
    assert left(folder) == [CKPT, "model.onnx"]


def test_what_a_runtime_is_known_not_to_take_is_told(folder: Path) -> None:
    """It is written all the same: another version may take it."""
    write_shallow(Path(CKPT), Path("small.pth"), 1)
    for asked, told in {
        ("--for", "tract"): "tract 0.23.9 did not take such a file (dynamic: any batch, thresholds)"
        " when it was tried, see 'ltmp runtimes'; choose --batch-size 1, --family m or --mode "
        "static --keep-tokens",
        ("--for", "iree"): "",
    }.items():
        run = ltmp(
            "export", "small.pth", "--num-heads", "2", "--no-check", "--json", "a.json", *asked
        )
        assert run.exit_code == 0, run.stderr
        assert [one[9:] for one in run.stderr.splitlines() if "tried" in one] == [told] * bool(told)
        assert (told in json.loads(Path("a.json").read_text())["warnings"]) == bool(told)


def test_a_file_without_the_forms_that_its_runtime_needs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` says so, whatever the verdict: some only show on other images."""
    write_shallow(Path(CKPT), Path("small.pth"), 1)
    given = ("small.pth", "--num-heads", "2")
    assert ltmp("export", *given, "--no-check").exit_code == 0
    monkeypatch.setattr(targets, "doubts", lambda model, runtime: (f"unfit for {runtime}",))
    shown = ltmp("check", "model.onnx", *given, "--samples", "1", "-b", "1")
    assert shown.exit_code == 0, shown.stderr
    assert "warning: unfit for onnxruntime" in shown.stderr.splitlines()
