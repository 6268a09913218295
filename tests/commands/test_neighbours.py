"""`ltmp eval` and `ltmp calibrate` of models without classifier: cosines, nearest neighbours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ltmp_export import evaluate, export
from ltmp_export.calibration import neighbours
from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.reference import Reference
from tests.conftest import DIGITS_LTMP, load_torch
from tests.makers.calibrated import EMBEDDED
from tests.makers.commands import ltmp

GIVEN = ("--num-heads", "2", "--mean", "0.5", "--std", "0.5")


@pytest.fixture
def headless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The digits' fine-tuned checkpoint without its classifier, and its thresholds."""
    monkeypatch.chdir(tmp_path)
    content = load_torch(DIGITS_LTMP)
    state = content["state_dict"]
    content["state_dict"] = {k: v for k, v in state.items() if not k.startswith("head.")}
    torch.save(content, "features.pth.tar")
    return Path("features.pth.tar")


def test_votes_by_hand() -> None:
    """The nearest of its own, each with the exponential of its cosine; nobody votes on itself."""
    features = np.array([[1, 0], [2, 0.1], [0, 3], [-0.1, 1]], np.float32)
    labels = np.array([2, 2, 0, 0])
    cast = neighbours.votes(features, None, labels, 1)
    assert cast.argmax(1).tolist() == [2, 2, 0, 0]
    assert (cast > 0).sum() == 4
    assert neighbours.top1(features, labels, 3) == 1.0  # all vote, the near ones count for more
    other = neighbours.votes(features[:1], features[2:], np.array([1, 4]), 2, classes=6)
    cosine = np.array([0.0, -0.1 / np.sqrt(1.01)])
    np.testing.assert_allclose(other[0, [1, 4]], np.exp((cosine - 1) / 0.07), rtol=1e-5)
    assert other.shape == (1, 6)
    (found,) = neighbours.cosines(features[:1], features[1:2])
    assert found == pytest.approx(2 / np.hypot(2, 0.1))


def test_file_and_checkpoint_are_measured_alike(headless: Path) -> None:
    """Against what the reference gives, counted here; the dense model is the same without steps."""
    checkpoint = load_checkpoint(headless)
    export(checkpoint, "features.onnx", check=False)
    found = [evaluate(path, EMBEDDED, knn=5) for path in ("features.onnx", headless)]
    pixels = torch.from_numpy(np.load(EMBEDDED)["images"]).expand(-1, 3, -1, -1)
    labels = np.load(EMBEDDED)["labels"]
    reference = Reference(checkpoint.model, checkpoint.plan)
    features = torch.stack([reference.run(image).logits for image in pixels])
    with torch.inference_mode():
        dense = checkpoint.model(pixels)
    cosine = torch.nn.functional.cosine_similarity(features, dense)
    for report in found:
        assert (report.knn, report.references, report.count) == (5, None, 48)
        assert report.cosine == pytest.approx(float(cosine.mean()), abs=1e-5)
        assert report.least_cosine == pytest.approx(float(cosine.min()), abs=1e-5)
        assert report.top1 == neighbours.top1(features.numpy(), labels, 5) > 0.8
        assert report.mac_ratio == pytest.approx(0.4484, abs=5e-4)


def test_as_typed(headless: Path) -> None:
    """With others that vote, without labels, and from thresholds that calibrate finds."""
    images, labels = (np.load(EMBEDDED)[key] for key in ("images", "labels"))
    np.savez("half.npz", images=images[:24], labels=labels[:24])
    np.savez("bare.npz", images=images[24:32])
    told = ltmp("eval", str(headless), "--data", "half.npz", "--knn-images", str(EMBEDDED))
    assert told.exit_code == 0, told.stderr
    assert "20-NN top-1 100.00%" in told.stdout  # each is among those that vote
    assert f"neighbours from {EMBEDDED}" in " ".join(told.stdout.split())
    told = ltmp("eval", str(headless), "--data", "bare.npz", "--json", "e.json")
    assert told.exit_code == 0, told.stderr
    report = json.loads(Path("e.json").read_text())
    assert (report["top1"], report["knn"]) == (None, None)
    assert 0.5 < report["least_cosine"] <= report["cosine"] < 1
    told = ltmp(
        "calibrate", str(headless), "--images", str(EMBEDDED), "--reduction-target", "0.6",
        "--knn", "3", "-o", "c.pth.tar", "--json", "c.json",
    )  # fmt: skip
    assert told.exit_code == 0, told.stderr
    assert "cosine with dense" in told.stdout
    assert "dense 3-NN top-1 on these" in told.stdout
    (row,) = json.loads(Path("c.json").read_text())["rows"]
    assert row["mac_ratio"] == pytest.approx(0.6, rel=0.005)
    assert 0.5 < row["agreement"] < 1
    assert load_checkpoint("c.pth.tar").geometry.classes == 0


def test_refused(headless: Path) -> None:
    for options, message in (
        ({"knn": 5}, "has a classifier, which tells its classes; drop --knn"),
        ({"knn_images": EMBEDDED}, "has a classifier, which tells its classes; drop --knn-images"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(DIGITS_LTMP, EMBEDDED, **options)
    with pytest.raises(InputError, match="0 nearest neighbours; expected at least 1"):
        evaluate(headless, EMBEDDED, knn=0)
    export(headless, "tokens.onnx", outputs=["tokens", "token_map"], check=False)
    with pytest.raises(InputError, match="gives tokens, token_map; to be measured it must give lo"):
        evaluate("tokens.onnx", EMBEDDED)
