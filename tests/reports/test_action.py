"""The composite GitHub Action: its commands are run here as a runner would run them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

from tests.conftest import DIGITS_LTMP
from tests.makers.mutations import change_stored
from tests.makers.shallow import write_shallow

GITHUB = Path(__file__).parent.parent.parent / ".github"


@pytest.fixture(scope="module")
def action() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((GITHUB / "actions/parity/action.yml").read_text())
    return loaded


def run(
    action: dict[str, Any], name: str, folder: Path, inputs: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """One step of the action in a folder, with the flags GitHub gives bash."""
    step = next(step for step in action["runs"]["steps"] if step["name"] == name)
    values = {key: entry.get("default", "") for key, entry in action["inputs"].items()} | inputs

    def filled(text: str) -> str:
        return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: values[m[1]], text)

    environment = {key: filled(text) for key, text in step.get("env", {}).items()}
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", filled(step["run"])],
        cwd=folder,
        env={**os.environ, "PATH": path, "GITHUB_ACTIONS": "true", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


INPUTS = {"checkpoint": "ckpt.pth.tar", "opset": "18", "arguments": "--num-heads 2"}


@pytest.fixture(scope="module")
def exported(action: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, and what the action exported."""
    folder = tmp_path_factory.mktemp("exported")
    write_shallow(DIGITS_LTMP, folder / "ckpt.pth.tar")
    done = run(action, "Export", folder, INPUTS)
    assert done.returncode == 0, done.stderr
    return folder


def test_exports_and_checks(action: dict[str, Any], exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    assert onnx.load(tmp_path / "model.onnx").opset_import[0].version == 18
    checked = run(action, "Check", tmp_path, INPUTS | {"strict": "true", "batch-size": "3"})
    assert checked.returncode == 0, checked.stderr
    assert "::" not in checked.stdout
    reports = {p.name for p in (tmp_path / "ltmp-parity").iterdir()}
    assert reports == {"parity.xml", "parity.json"}


def test_a_wrong_file_fails_the_step(
    action: dict[str, Any], exported: Path, tmp_path: Path
) -> None:
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    inputs = {"checkpoint": "ckpt.pth.tar", "reports": "mine"}
    model = onnx.load(tmp_path / "model.onnx")
    change_stored(model, "block_02/prune_threshold", lambda array: array.fill(0.5))
    onnx.save(model, tmp_path / "model.onnx")
    checked = run(action, "Check", tmp_path, inputs)
    assert checked.returncode == 1
    annotations = [line for line in checked.stdout.splitlines() if line.startswith("::error ")]
    assert "block 2: the prune threshold is 0.5 in the file" in annotations[0]
    assert (tmp_path / "mine" / "repro" / "repro.json").is_file()


def test_the_workflow_uses_the_action_as_it_is(action: dict[str, Any]) -> None:
    workflow = yaml.safe_load((GITHUB / "workflows/parity.yml").read_text())
    step = workflow["jobs"]["parity"]["steps"][-1]
    assert (GITHUB.parent / step["uses"] / "action.yml").is_file()
    assert set(step["with"]) <= set(action["inputs"])
    assert (GITHUB.parent / step["with"]["checkpoint"]).is_file()
