"""`evaluate` and its command: accuracy, tokens and work on labelled images."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ltmp_export import export
from ltmp_export.commands.eval import EvalReport, evaluate
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices
from tests.conftest import DIGITS_LTMP, load_torch
from tests.makers import packed, random_vits
from tests.makers.calibrated import CHOICES, EMBEDDED
from tests.makers.commands import ltmp, refused

Golden = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="module")
def single(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "single.onnx"
    export(tuned, path, batch_size=1, check=False)
    return path


def same(one: EvalReport, other: EvalReport) -> None:
    assert (one.count, one.top1, one.top5) == (other.count, other.top1, other.top5)
    assert (one.tokens, one.fewest, one.most) == (other.tokens, other.fewest, other.most)
    assert (one.gmacs, one.dense_gmacs) == (other.gmacs, other.dense_gmacs)


def ranked(logits: NDArray[np.float32], labels: NDArray[np.int64], top: int) -> float:
    """Share of the labels among the first classes; of equal ones the first comes first."""
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    return float((order == labels[:, None]).any(1).mean())


def test_file_checkpoint_and_labels_counted_by_hand(
    tuned: Path, exported: Path, golden: Golden
) -> None:
    """Against the authors' own logits and token counts."""
    report = evaluate(exported, EMBEDDED)
    same(report, evaluate(tuned, EMBEDDED))
    logits, labels, counts = golden["ltmp_logits"], golden["labels"], golden["ltmp_counts"]
    assert (report.count, report.family) == (48, "ltmp")
    assert report.top1 == ranked(logits, labels, 1) == 47 / 48
    assert report.top5 == ranked(logits, labels, 5)
    np.testing.assert_allclose(report.tokens, counts.mean(0))
    assert report.fewest == tuple(counts.min(0))
    assert report.most == tuple(counts.max(0))
    assert report.mac_ratio == pytest.approx(0.4548, abs=5e-4)
    assert report.runtime == "onnxruntime, CPUExecutionProvider"


def test_labels_decide(exported: Path, tmp_path: Path, golden: Golden) -> None:
    """Wrong on purpose: the second of the classes for every third image."""
    order = np.argsort(-golden["ltmp_logits"], axis=1)
    labels = np.where(np.arange(48) % 3 == 0, order[:, 1], order[:, 0])
    labels[5] = order[5, -1]
    np.savez(tmp_path / "a.npz", images=golden["images"], labels=labels)
    report = evaluate(exported, tmp_path / "a.npz")
    assert report.top1 == 31 / 48
    assert report.top5 == 47 / 48


@pytest.mark.parametrize("batch_size", [1, 2, 7, 48, 64])
def test_batch_sizes(exported: Path, batch_size: int) -> None:
    same(
        evaluate(exported, EMBEDDED), evaluate(exported, EMBEDDED, batch_size=batch_size, threads=1)
    )


def test_single_images(exported: Path, single: Path) -> None:
    same(evaluate(exported, EMBEDDED), evaluate(single, EMBEDDED))
    with pytest.raises(InputError, match="single.onnx.*batch"):
        evaluate(single, EMBEDDED, batch_size=2)


@pytest.mark.parametrize("count", [1, 5, 48, 99])
def test_samples(tuned: Path, exported: Path, golden: Golden, count: int) -> None:
    chosen = np.linspace(0, 47, min(count, 48)).round().astype(int)
    logits, labels = golden["ltmp_logits"][chosen], golden["labels"][chosen]
    for model in (exported, tuned):
        report = evaluate(model, EMBEDDED, samples=count)
        assert report.count == len(chosen)
        assert report.top1 == ranked(logits, labels, 1)
        np.testing.assert_allclose(report.tokens, golden["ltmp_counts"][chosen].mean(0))


def test_shards(exported: Path, tmp_path: Path) -> None:
    """As the same pictures in folders; what is wrong with them is told in a line."""
    pictures, labels = packed.digits_pictures(20)
    packed.digits_shards(tmp_path / "s", 20, 2)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        path = tmp_path / f"folder/{label}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    same(evaluate(exported, tmp_path / "s"), evaluate(exported, tmp_path / "folder"))
    packed.tar(tmp_path / "s/digits-002.tar", [("x", {"cls": b"1"})])
    told = ltmp("eval", exported, "--data", tmp_path / "s", "--json", tmp_path / "j")
    refused(told, "digits-002.tar: x has a label and no picture")
    assert not (tmp_path / "j").exists()
    refused(ltmp("eval", exported, "--data", "memory://no/where"), "memory://no/where does not")


def test_a_dense_checkpoint(digits_base: Path) -> None:
    report = evaluate(digits_base, EMBEDDED, choices=CHOICES)
    assert (report.family, report.runtime) == ("dense", "eager reference")
    assert report.top1 == 47 / 48
    assert report.fewest == report.most == (65,) * 6
    assert report.mac_ratio == 1.0


def write_head(path: Path, head: Callable[[torch.Tensor, torch.Tensor], None]) -> Path:
    """The fine-tuned digits with another classifier."""
    top = load_torch(DIGITS_LTMP)
    state = dict(top["state_dict"])
    weight, bias = state["head.weight"].clone(), state["head.bias"].clone()
    head(weight, bias)
    torch.save(top | {"state_dict": state | {"head.weight": weight, "head.bias": bias}}, path)
    return path


def zero(weight: torch.Tensor, bias: torch.Tensor) -> None:
    weight.zero_()
    bias.zero_()


def infinite(weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Logits of class 0 beyond float32 where they were above about 3.4."""
    weight[0] *= 1e38
    bias[0] *= 1e38


def test_of_equal_classes_the_first_comes_first(tmp_path: Path, golden: Golden) -> None:
    checkpoint = write_head(tmp_path / "ties.pth.tar", zero)
    export(checkpoint, tmp_path / "ties.onnx", check=False)
    labels = golden["labels"]
    for model in (checkpoint, tmp_path / "ties.onnx"):
        report = evaluate(model, EMBEDDED)
        assert report.top1 == (labels == 0).mean()
        assert report.top5 == (labels < 5).mean()
        assert report.top1 is not None
        assert report.top5 is not None
        assert 0 < report.top1 < report.top5 < 1
        assert not any("NaN" in warning for warning in report.warnings)


def test_logits_that_are_no_numbers_count_as_wrong(tmp_path: Path) -> None:
    export(write_head(tmp_path / "c.pth.tar", infinite), tmp_path / "c.onnx", check=False)
    with np.load(EMBEDDED) as arrays:
        images, labels = np.repeat(arrays["images"], 3, axis=1), arrays["labels"]
    session = ort.InferenceSession(tmp_path / "c.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"images": images})[0]
    finite = np.isfinite(logits).all(1)
    assert 0 < finite.sum() < 48
    report = evaluate(tmp_path / "c.onnx", EMBEDDED)
    assert report.top1 == (finite & (logits.argmax(1) == labels)).mean()
    assert report.top5 == ranked(logits[finite], labels[finite], 5) * finite.sum() / 48
    assert report.warnings == (
        f"{(~finite).sum()} images lead to NaN or infinite logits; they count as wrong",
    )


def test_fewer_than_five_classes(tmp_path: Path) -> None:
    """Of three classes each is among the first five."""
    case = random_vits.Case("three", 5, {"num_classes": 3, "depth": 2})
    model, geometry = random_vits.build(case)
    torch.save(model.state_dict(), tmp_path / "three.pth")
    images = random_vits.images(geometry, 1, 9)
    np.savez(tmp_path / "a.npz", images=images.numpy(), labels=np.arange(9) % 3)
    choices = Choices(num_heads=2, mean=(0.5,), std=(0.5,))
    report = evaluate(tmp_path / "three.pth", tmp_path / "a.npz", choices=choices)
    with torch.inference_mode():
        right = model(images).argmax(1) == torch.arange(9) % 3
    assert report.top1 == float(right.double().mean())
    assert report.top5 == 1.0


def draw_digits(folder: Path, golden: Golden, name: Callable[[int], str]) -> None:
    """The digits as pictures, in a folder for each class."""
    for number, (image, label) in enumerate(zip(golden["images"], golden["labels"], strict=True)):
        (folder / name(label)).mkdir(parents=True, exist_ok=True)
        pixels = ((image[0] + 1) * 127.5).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / name(label) / f"{number}.png")


WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def test_class_folders_and_a_class_map(exported: Path, tmp_path: Path, golden: Golden) -> None:
    draw_digits(tmp_path / "numbers" / "val", golden, str)
    draw_digits(tmp_path / "words", golden, WORDS.__getitem__)
    (tmp_path / "map.txt").write_text("\n".join(WORDS))
    numbers = evaluate(exported, tmp_path / "numbers")
    assert numbers.count == 48
    assert numbers.top1 is not None
    assert numbers.top1 >= 46 / 48  # 8 bits, and timm's crop
    named = evaluate(exported, tmp_path / "words", class_map=tmp_path / "map.txt")
    assert (named.top1, named.top5) == (numbers.top1, numbers.top5)
    alphabetical = evaluate(exported, tmp_path / "words").top1
    assert alphabetical is not None
    assert alphabetical < 0.5  # in alphabetical order


# The command


def test_eval_as_typed(digits_folder: Path) -> None:
    found = ltmp("eval", "model.onnx", "--data", "digits.npz", "--json", "e.json", "-b", "5")
    assert found.exit_code == 0, found.stderr
    assert "model.onnx: ltmp, top-1 97.92%, top-5 100.00% on 48 images (digits.npz)" in found.stdout
    assert re.search(
        r"GMACs an image, 45\.\d% of the dense 0\.0836; onnxruntime, CPU", found.stdout
    )
    assert "assumed: activation exact GELU" in found.stderr
    document = json.loads(Path("e.json").read_text())
    assert (document["schema_version"], document["kind"]) == (1, "eval")
    assert (document["count"], document["top1"]) == (48, 47 / 48)
    assert document["mac_ratio"] == document["gmacs"] / document["dense_gmacs"]
    assert len(document["tokens"]) == len(document["fewest"]) == len(document["most"]) == 6


def test_eval_says_what_was_assumed_of_a_checkpoint(digits_folder: Path) -> None:
    found = ltmp("eval", "base.pth", "--data", "digits.npz", "--samples", "4")
    assert found.exit_code == 0, found.stderr
    (line,) = found.stderr.splitlines()
    assert line.startswith("warning: assumed: activation exact GELU (--act); LayerNorm")
    assert "base.pth: dense, top-1 100.00%" in found.stdout


BAD_EVALS: dict[str, tuple[str, str]] = {
    "no labels": ("model.onnx --data bare.npz", "bare.npz has no labels; expected a folder for"),
    "no labels, checkpoint": ("tuned.pth.tar --data bare.npz", "bare.npz has no labels"),
    "flat folder": ("model.onnx --data flat", "flat has no labels; expected a folder for each"),
    "other classes": ("model.onnx --data two", r"two has 2 class folders .*, the model 10 classes"),
    "no data": ("model.onnx --data digit.npz", "digit.npz does not exist;.*; did you mean digits"),
    "no model": ("mode.onnx --data digits.npz", "mode.onnx does not exist;.*; did you mean model"),
    "no samples": ("model.onnx --data digits.npz --samples 0", "0 samples asked for"),
    "batches of 0": ("model.onnx --data digits.npz -b 0", "0"),
    "batches below 0": ("model.onnx --data digits.npz -b -1", "-1"),
    "batch of a checkpoint": ("tuned.pth.tar --data digits.npz -b 2", "drop --batch-size"),
    "threads, file": ("model.onnx --data digits.npz --threads 0", "threads"),
    "threads, checkpoint": ("tuned.pth.tar --data digits.npz --threads 0", "threads"),
    "workers": ("model.onnx --data digits.npz --workers -1", "-1"),
    "json is the model": ("model.onnx --data digits.npz --json model.onnx", "is the input model"),
    "json is the data": ("model.onnx --data digits.npz --json digits.npz", "is the input digits"),
    "class map": ("model.onnx --data digits.npz --class-map no.txt", "no.txt"),
    "shard": ("model.onnx --data cut.tar --json e.json", "cut.tar is no readable tar"),
    "baseline": ("model.onnx --data digits.npz --write-baseline no/b.json", "the folder .*no does"),
    "baseline, no labels": ("model.onnx --data bare.npz --write-baseline b.json", "has no labels"),
}


@pytest.mark.parametrize(("line", "message"), BAD_EVALS.values(), ids=BAD_EVALS.keys())
def test_eval_refuses(digits_folder: Path, golden: Golden, line: str, message: str) -> None:
    np.savez("bare.npz", images=golden["images"])
    Path("cut.tar").write_bytes(b"no shard")
    for name in ("flat/a.png", "two/one/a.png", "two/other/a.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(name)
    before = {path: path.read_bytes() for path in digits_folder.iterdir() if path.is_file()}
    refused(ltmp("eval", *line.split()), message)
    assert {path: path.read_bytes() for path in digits_folder.iterdir() if path.is_file()} == before
