"""`ltmp eval` and `ltmp calibrate` of models without classifier: cosines, nearest neighbours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import Result

from ltmp_export import evaluate, export
from ltmp_export.calibration import neighbours
from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.images import sets
from ltmp_export.reference import Reference
from tests.conftest import DIGITS_LTMP, load_torch
from tests.makers.calibrated import EMBEDDED
from tests.makers.commands import ltmp, refused

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


def typed(line: str) -> Result:
    """The command of a line."""
    return ltmp(*line.split())


def draw(folder: str, first: int, last: int, *digits: int) -> None:
    """Some of the embedded images, in a folder for each digit, or for these."""
    with np.load(EMBEDDED) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    for number in range(first, last):
        if digits and labels[number] not in digits:
            continue
        path = Path(folder, str(labels[number]), f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(((images[number, 0] + 1) * 127.5).round().astype(np.uint8)).save(path)


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
    voting = neighbours.Vote(1, np.array([2, 2, 1, 0]), None, labels)
    assert voting.right(features, None, (1, 5)) == [0.75, 0.75]  # nobody votes for class 1


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


def test_class_folders_are_labels(headless: Path) -> None:
    """The same as an `.npz` of the same inputs says, whatever the order of the folders."""
    draw("data", 0, 24)
    kind = sets.Kind.of(load_checkpoint(headless))
    images = sets.held_out(Path("data"), kind)
    (pixels,) = images.batches(len(images))
    labels = [int(path.split("/")[0]) for path in images.names]
    np.savez("same.npz", images=pixels.numpy(), labels=labels)
    expected = evaluate(headless, "same.npz", knn=3)
    assert expected.top1 is not None
    assert 0.2 < expected.top1 < 1
    for order in (None, "natural", "string"):
        found = evaluate(headless, "data", knn=3, class_order=order)
        assert (found.top1, found.top5, found.knn) == (expected.top1, expected.top5, 3)
        assert found.cosine == pytest.approx(expected.cosine, abs=1e-6)


def test_folders_agree_by_their_names(headless: Path) -> None:
    """Voters of other classes too, so that the same folder has another number there."""
    draw("some", 0, 48, 3, 5, 8)
    draw("all", 0, 48)
    for voters in ("all", EMBEDDED):
        report = evaluate(headless, "some", knn=1, knn_images=voters)
        assert report.top1 == 1.0, voters
    draw("others", 0, 48, 1, 2)
    with pytest.raises(InputError, match="some has the classes 3, 5, 8, others has 1, 2, and none"):
        evaluate(headless, "some", knn_images="others")


def test_what_cannot_vote_is_said(headless: Path) -> None:
    """Each in a line, before anything is computed; by default as many vote as there are."""
    with np.load(EMBEDDED) as arrays:
        np.savez("bare.npz", images=arrays["images"][:10])
        np.savez("ten.npz", images=arrays["images"][:10], labels=arrays["labels"][:10])
    draw("mixed", 0, 10)
    Image.new("L", (32, 32)).save("mixed/stray.png")
    run, target = f"eval {headless} --data", "--reduction-target 0.6"
    need = r"bare.npz has no labels, .*; give a folder for each class, or an .npz .*, or drop"
    refused(typed(f"{run} bare.npz --knn 5"), f"{need} --knn")
    refused(typed(f"{run} bare.npz --knn-images ten.npz"), f"{need} --knn-images")
    refused(typed(f"calibrate {headless} --images bare.npz {target} --knn 2"), f"{need} --knn")
    refused(typed(f"{run} ten.npz --knn-images bare.npz"), "bare.npz has no labels; expected")
    few = r"10 nearest neighbours, but each of the 10 images measured \(ten.npz\) has 9 others"
    refused(typed(f"{run} ten.npz --knn 10"), f"{few}; take --knn 9, or more images")
    refused(
        typed(f"{run} {EMBEDDED} --samples 1 --knn 1"), "has 0 others; give more, or drop --knn"
    )
    refused(
        typed(f"{run} {EMBEDDED} --knn-images ten.npz --knn 11"),
        "11 nearest neighbours, but ten.npz has 10 images that vote; take --knn 10, or more",
    )
    refused(
        typed(f"calibrate {headless} --images ten.npz {target} --knn 5"),
        r"5 nearest neighbours, but each of the 5 images measured \(ten.npz\) has 4 others",
    )
    refused(typed(f"{run} mixed --knn 2"), "mixed/stray.png stands beside the class folders")
    told = evaluate(headless, "mixed")
    assert (told.top1, told.knn) == (None, None)
    assert told.warnings[-1].startswith("no top-1: mixed/stray.png stands beside")
    assert evaluate(headless, "ten.npz").knn == 9


def test_calibrate_takes_class_folders(headless: Path) -> None:
    draw("data", 0, 48)
    for order in ("", " --class-order natural"):
        told = typed(
            f"calibrate {headless} --images data --reduction-target 0.6 --knn 3{order} "
            "-o c.pth.tar --json c.json"
        )
        assert told.exit_code == 0, told.stderr
        report = json.loads(Path("c.json").read_text())
        assert report["knn"] == 3
        assert 0.2 < report["dense_accuracy"] <= 1
        assert report["rows"][0]["accuracy"] is not None
