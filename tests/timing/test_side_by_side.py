"""What one would pick instead: the method word for word, and rows that are timed or explained."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from ltmp_export import InputError, bench, export, families, runtimes
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.reference import Reference
from ltmp_export.runtimes import installed
from ltmp_export.timing import elsewhere, literal
from ltmp_export.timing.contenders import EAGER, LITERAL
from ltmp_export.timing.settings import Settings
from tests.conftest import DIGITS_LTMP, FIXTURES
from tests.makers.make_checkpoint import random_vit

OPENVINO_DENSE, OPENVINO_REDUCED = "OpenVINO dense", "OpenVINO reduced"
ONCE = Settings(batch_sizes=(1, 2), warmup=0, iterations=1)


@pytest.mark.parametrize("family", families.learned())
def test_the_literal_translation_is_the_reference(
    digits: Callable[[str], Checkpoint], digit_images: Tensor, family: str
) -> None:
    checkpoint = digits(family)
    model = literal.LiteralViT(checkpoint.model, checkpoint.plan).eval()
    reference = Reference(checkpoint.model, checkpoint.plan)
    with torch.inference_mode():
        for image in digit_images[:4]:
            torch.testing.assert_close(model(image[None])[0], reference.run(image).logits)


def test_wrong_logits_are_told(digits: Callable[[str], Checkpoint], digit_images: Tensor) -> None:
    checkpoint = digits("ltmp")
    reference = Reference(checkpoint.model, checkpoint.plan)
    pixels = digit_images[:3].numpy()
    logits = [reference.run(image).logits.tolist() for image in digit_images[:3]]
    assert literal.disagreement(checkpoint, pixels, logits) == ""
    one_flipped = [logits[0][::-1], *logits[1:]]
    assert literal.disagreement(checkpoint, pixels, one_flipped) == ""
    wrong = [(np.array(row) * 1.01).tolist() for row in logits]
    assert "not the reference's: off by 0.01" in literal.disagreement(checkpoint, pixels, wrong)


def test_a_thresholds_only_checkpoint_loads_with_its_base(digits_base: Path) -> None:
    path = FIXTURES / "digits_ltm_thresholds.pth.tar"
    stated = {"family": "ltm", "num_heads": 2}
    assert literal.load(str(path), stated, str(digits_base)).plan.family == "ltm"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two blocks: torch's exporter takes seconds for each."""
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "num_heads": 1, "num_classes": 5}
    model = random_vit("vit", 0, depth=2, **shape)
    thresholds = {
        f"blocks.{block}.{kind}_masker.threshold": torch.tensor([value])
        for block in range(2)
        for kind, value in {"merge": 0.8, "prune": 0.03}.items()
    }
    path = tmp_path_factory.mktemp("small") / "small.pth"
    torch.save({"state_dict": model.state_dict() | thresholds, "arch": "ltmp_small"}, path)
    return path


def test_literal_export(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digit_images: Tensor
) -> None:
    """As `torch.onnx.export` writes it, in this process; `bench` does it in another one."""
    pytest.importorskip("onnxscript")
    monkeypatch.setattr("logging.disable", lambda: None)
    literal.export(str(small), {}, None, str(tmp_path / "literal.onnx"))
    model = onnx.load(tmp_path / "literal.onnx")
    assert [entry.version for entry in model.opset_import if not entry.domain] == [literal.OPSET]
    session = onnxruntime.InferenceSession(tmp_path / "literal.onnx")
    eager = literal.load(str(small), {}, None)
    with torch.inference_mode():
        for image in digit_images[:5]:
            wanted = eager(image[None]).numpy()
            found = session.run(None, {"images": image[None].numpy()})[0]
            np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_every_runtime_but_onnxruntime_has_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime is a file in `runtimes/`, and needs no word here."""
    told = 'NAME = "Third"\nMODULES = ("sys",)\nEXTRA = ""\n\ndef open_engine(): ...\n'
    (tmp_path / "third.py").write_text(told)
    monkeypatch.setattr(runtimes, "__path__", [*runtimes.__path__, str(tmp_path)])
    files = {"dense": tmp_path / "dense.onnx", "reduced": tmp_path / "model.onnx"}
    monkeypatch.setattr(installed, "_there", lambda module: module == "sys")
    labels = ["OpenVINO dense", "OpenVINO reduced", "Third dense", "Third reduced"]
    others = elsewhere.others()
    assert [one.label for one in elsewhere.contenders(others, files)] == labels
    without = files | {"dense": None}
    assert [one.label for one in elsewhere.contenders(others, without)] == labels[1::2]


def test_every_row_is_timed_or_has_a_reason(small: Path, tmp_path: Path) -> None:
    model = export(small, tmp_path / "model.onnx", check=False).output
    found = bench(model, samples=3, side_by_side=small, settings=ONCE)
    rows = {entry.label: entry for entry in found.entries if not entry.label.startswith("tract")}
    assert list(rows)[:3] == ["reduced", "dense", EAGER]
    assert set(rows) == {"reduced", "dense", EAGER, LITERAL, OPENVINO_DENSE, OPENVINO_REDUCED}
    for label, entry in rows.items():
        timed = [size for size in (1, 2) if found.timing(label, size) is not None]
        if entry.reason:
            assert timed == []
            continue
        assert timed == ([1] if label in (EAGER, LITERAL) else [1, 2])
        assert entry.agreement == 1 or label in ("dense", OPENVINO_DENSE)
    assert rows[EAGER].engine.startswith("PyTorch ")
    assert rows[EAGER].reason == ""
    for label, package in ((LITERAL, "onnxscript"), (OPENVINO_REDUCED, "openvino")):
        try:
            __import__(package)
        except ImportError:
            assert re.search(f"[Nn]o module (named ')?{package}", rows[label].reason)
        else:
            assert rows[label].reason == ""


def test_another_checkpoint_is_refused(tmp_path: Path, digits_base: Path) -> None:
    model = export(DIGITS_LTMP, tmp_path / "model.onnx", check=False).output
    with pytest.raises(InputError, match="was exported from another file than"):
        bench(model, side_by_side=digits_base)
    with pytest.raises(InputError, match="side by side, the baseline is the dense model"):
        bench(model, side_by_side=DIGITS_LTMP, baseline=None)
