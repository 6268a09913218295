"""`ltmp calibrate` as a user types it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import load_torch
from tests.makers.commands import ltmp, refused


def test_calibrate_then_export_as_typed(digits_folder: Path) -> None:
    given = ("--images", "digits.npz", "--reduction-target", "0.6", "--num-heads", "2")
    made = ltmp("calibrate", "base.pth", *given, "--json", "c.json", "--samples", "24")
    assert made.exit_code == 0, made.stderr
    assert made.stdout.splitlines()[-1] == "Next: ltmp export calibrated.pth.tar"
    assert "ltmp, by quantiles: scores of 12 images, measured on 12 images held out" in made.stdout
    document = json.loads(Path("c.json").read_text())
    assert (document["schema_version"], document["kind"]) == (1, "calibrate")
    assert document["output"] == "calibrated.pth.tar"
    assert document["rows"][0]["mac_ratio"] == pytest.approx(0.6, rel=0.005)
    assert ltmp("eval", "calibrated.pth.tar", "--data", "digits.npz").exit_code == 0
    again = ltmp(
        "calibrate", "calibrated.pth.tar", "--images", "digits.npz", "--reduction-target", "0.4",
        "-o", "c2.pth.tar",
    )  # fmt: skip
    assert again.exit_code == 0, again.stderr
    assert "ltmp, by shift: measured on 24 images held out (digits.npz)" in again.stdout


def test_sweep_and_its_plot(digits_folder: Path) -> None:
    made = ltmp(
        "calibrate", "base.pth", "--images", "digits.npz", "--sweep", "0.8,0.5", "--plot", "s.png",
        "--json", "s.json", "--split", "prune=0.5",
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr
    rows = [line.split() for line in made.stdout.splitlines() if re.match(r"0\.[85] ", line)]
    assert [(row[0], len(row)) for row in rows] == [("0.8", 10), ("0.5", 10)]
    with Image.open("s.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        assert len(set(picture.convert("L").tobytes())) > 20  # something is drawn
    assert json.loads(Path("s.json").read_text())["output"] is None
    assert not Path("calibrated.pth.tar").exists()


TARGET = "base.pth --images digits.npz --reduction-target 0.6"
BAD_CALIBRATIONS: dict[str, tuple[str, str]] = {
    "no target": ("base.pth --images digits.npz", "give a target, --reduction-target 0.6, or"),
    "target and sweep": (f"{TARGET} --sweep 0.8,0.5", "--sweep has its own targets; drop"),
    "sweep of words": ("base.pth --images digits.npz --sweep 0.8,x", "--sweep 0.8,x: expected num"),
    "sweep with a gap": ("base.pth --images digits.npz --sweep 0.8,", "--sweep 0.8,: expected"),
    "sweep out of range": ("base.pth --images digits.npz --sweep 0.8,2", "target of 2; expected"),
    "sweep to a file": (
        "base.pth --images digits.npz --sweep 0.8,0.5 -o c.pth.tar",
        "2 targets; a checkpoint is written for one",
    ),
    "percent": ("base.pth --images digits.npz --reduction-target 60", "target of 60; expected"),
    "split without kind": (f"{TARGET} --split 0.7", "--split 0.7: expected a share from 0 to 1"),
    "split of another kind": (f"{TARGET} --split drop=0.7", "--split drop=0.7: expected a share"),
    "split above 1": (f"{TARGET} --split merge=1.5", "--split merge=1.5: expected a share"),
    "split NaN": (f"{TARGET} --split merge=nan", "--split merge=nan: expected a share"),
    "shift of a dense model": (f"{TARGET} --method shift", "no thresholds to shift; take --method"),
    "family": (
        f"{TARGET} --family ltp2",
        "no family 'ltp2'; choose from ats, ",
    ),
    "one image": (f"{TARGET} --samples 1", "digits.npz: 1 image, expected at least 2"),
    "no images": ("base.pth --images digit.npz --reduction-target 0.6", "did you mean digits.npz?"),
    "device": (f"{TARGET} --device tpu", "no device 'tpu'; expected auto, cpu or cuda"),
    "seed": (f"{TARGET} --seed -1", "-1"),
    "workers": (f"{TARGET} --workers -1", "-1"),
    "output is the checkpoint": (f"{TARGET} -o base.pth", "is the input base.pth; choose another"),
    "output is the images": (f"{TARGET} -o digits.npz", "is the input digits.npz; choose another"),
    "plot is the output": (f"{TARGET} -o c.png --plot c.png", "c.png is also the output c.png"),
    "out of reach": (
        "base.pth --images digits.npz --reduction-target 0.01 --samples 8",
        "target 0.01 cannot be met on these images: the nearest is 0.* ask for that",
    ),
}


@pytest.mark.parametrize(("line", "message"), BAD_CALIBRATIONS.values(), ids=BAD_CALIBRATIONS)
def test_calibrate_refuses(digits_folder: Path, line: str, message: str) -> None:
    before = {path: path.read_bytes() for path in digits_folder.iterdir()}
    refused(ltmp("calibrate", *line.split()), message)
    assert {path: path.read_bytes() for path in digits_folder.iterdir()} == before


@pytest.mark.parametrize("arch", ["ltmp_vit_digits", "m_vit_digits"])
def test_a_checkpoint_that_lost_its_thresholds_is_no_dense_model(
    digits_folder: Path, digits_base: Path, arch: str
) -> None:
    torch.save({"state_dict": load_torch(digits_base), "arch": arch}, "lost.pth")
    for command in ("eval lost.pth --data digits.npz", f"calibrate lost.pth {TARGET[9:]}"):
        result = ltmp(*command.split())
        assert result.exit_code == 2
        assert f"lost.pth calls itself {arch}, but holds no thresholds" in result.stderr


def test_an_image_out_of_all_range_is_one_line(digits_folder: Path) -> None:
    images = np.zeros((4, 3, 32, 32), np.float32)
    images[2] = 1e38
    np.savez("huge.npz", images=images)
    result = ltmp(*["calibrate", "base.pth", "--images", "huge.npz", "--reduction-target", "0.9"])
    assert result.exit_code == 2
    (line,) = (one for one in result.stderr.splitlines() if one.startswith("error"))
    assert "an image leads to NaN or infinite logits" in line
