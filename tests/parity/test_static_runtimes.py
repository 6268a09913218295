"""A static file of no fixture, right and wrong, checked as a user does in each runtime there is."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from ltmp_export import load_checkpoint
from ltmp_export.model_file import targets
from ltmp_export.runtimes import installed, listed
from ltmp_export.statements.choices import Choices
from tests.makers import random_vits
from tests.makers.commands import ltmp
from tests.makers.mutations import MUTATIONS
from tests.makers.static_faults import FAULTS

STATED = ("--family", "m", "--r", "3", "--num-heads", "2")
WRONG = {
    "epsilon": MUTATIONS["epsilon 1e-5"].mutate,
    "mean": FAULTS["plain mean"].mutate,
    "ranking": FAULTS["least similar merge"].mutate,
    "sizes": FAULTS["no log of sizes"].mutate,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT's, and nothing else."""
    place = tmp_path_factory.mktemp("static") / "vit.pth"
    case = random_vits.Case("user", 31, {"img_size": (16, 16), "embed_dim": 32, "num_classes": 6})
    torch.save(random_vits.build(case)[0].state_dict(), place)
    return place


@pytest.mark.parametrize(
    "runtime",
    [
        "tract",
        "mnn",
        pytest.param("iree", marks=pytest.mark.slow),  # it compiles for minutes
        pytest.param("tvm", marks=pytest.mark.slow),
    ],
)
def test_right_and_wrong_files(runtime: str, weights: Path, tmp_path: Path) -> None:
    if installed.version(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    right, wrong = tmp_path / "right.onnx", tmp_path / "wrong.onnx"
    given = (weights, *STATED, "--no-check", "--for", runtime)
    assert ltmp("export", *given, "-o", right).exit_code == 0
    few = ("--samples", "2", "-b", "2", "--runtime", runtime)
    shown = ltmp("check", right, weights, *STATED, *few)
    assert shown.exit_code == 0, shown.output
    last = shown.stdout.splitlines()[-1]
    assert last.startswith("equal: every decision and every number agrees")
    assert f", in {listed.find(runtime).called} " in last
    checkpoint = load_checkpoint(weights, Choices(family="m", rate="3", num_heads=2))
    for mutate in WRONG.values():
        model = mutate(checkpoint, 1)
        targets.write_for(model, runtime, 17)
        onnx.save(model, wrong)
        shown = ltmp("check", wrong, weights, *STATED, *few)
        assert shown.exit_code == 1, shown.output
        assert "fail: the file does not compute what the checkpoint computes" in shown.stdout
