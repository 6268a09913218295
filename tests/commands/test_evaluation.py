"""`ltmp eval`, and what `ltmp calibrate` and `ltmp check --masked` say on the command line."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnxruntime as ort
import pytest
import torch
from ltmp_cli.main import app
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from ltmp_export import export
from ltmp_export.commands.eval import EvalReport, evaluate
from ltmp_export.errors import InputError
from ltmp_export.images import inputs
from ltmp_export.statements.choices import Choices
from tests.conftest import DIGITS_LTMP, FIXTURES, load_torch
from tests.makers import random_vits

DIGITS = inputs.fixture("digits_images.npz")
CHOICES = Choices(num_heads=2, mean=(0.5,) * 3, std=(0.5,) * 3)
Golden = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint whose outputs golden.npz has: the authors' thresholds and the weights."""
    top = load_torch(DIGITS_LTMP)
    thresholds = load_torch(FIXTURES / "digits_ltmp_thresholds.pth.tar")["state_dict"]
    path = tmp_path_factory.mktemp("tuned") / "tuned.pth.tar"
    torch.save(top | {"state_dict": top["state_dict"] | thresholds}, path)
    return path


@pytest.fixture(scope="module")
def exported(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export(tuned, path, check=False)
    return path


@pytest.fixture(scope="module")
def single(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "single.onnx"
    export(tuned, path, batch_size=1, check=False)
    return path


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_base: Path, tuned: Path, exported: Path
) -> Path:
    """Where a user stands: base.pth, tuned.pth.tar, model.onnx, digits.npz."""
    stated = argparse.Namespace(num_heads=2)
    torch.save({"state_dict": load_torch(digits_base), "args": stated}, tmp_path / "base.pth")
    shutil.copy(tuned, tmp_path / "tuned.pth.tar")
    shutil.copy(exported, tmp_path / "model.onnx")
    shutil.copy(DIGITS, tmp_path / "digits.npz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ltmp(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(result: Result, message: str, code: int = 2) -> None:
    """One clear line on stderr, nothing on stdout, no traceback."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]
    assert result.stdout == ""


def same(one: EvalReport, other: EvalReport) -> None:
    assert (one.count, one.top1, one.top5) == (other.count, other.top1, other.top5)
    assert (one.tokens, one.fewest, one.most) == (other.tokens, other.fewest, other.most)
    assert (one.gmacs, one.dense_gmacs) == (other.gmacs, other.dense_gmacs)


def ranked(logits: NDArray[np.float32], labels: NDArray[np.int64], top: int) -> float:
    """Share of the labels among the first classes; of equal ones the first comes first."""
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    return float((order == labels[:, None]).any(1).mean())


# evaluate


def test_file_checkpoint_and_labels_counted_by_hand(
    tuned: Path, exported: Path, golden: Golden
) -> None:
    """Against the authors' own logits and token counts."""
    report = evaluate(exported, DIGITS)
    same(report, evaluate(tuned, DIGITS))
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
    same(evaluate(exported, DIGITS), evaluate(exported, DIGITS, batch_size=batch_size, threads=1))


def test_single_images(exported: Path, single: Path) -> None:
    same(evaluate(exported, DIGITS), evaluate(single, DIGITS))
    with pytest.raises(InputError, match="single.onnx.*batch"):
        evaluate(single, DIGITS, batch_size=2)


@pytest.mark.parametrize("count", [1, 5, 48, 99])
def test_samples(tuned: Path, exported: Path, golden: Golden, count: int) -> None:
    chosen = np.linspace(0, 47, min(count, 48)).round().astype(int)
    logits, labels = golden["ltmp_logits"][chosen], golden["labels"][chosen]
    for model in (exported, tuned):
        report = evaluate(model, DIGITS, samples=count)
        assert report.count == len(chosen)
        assert report.top1 == ranked(logits, labels, 1)
        np.testing.assert_allclose(report.tokens, golden["ltmp_counts"][chosen].mean(0))


def test_a_dense_checkpoint(digits_base: Path) -> None:
    report = evaluate(digits_base, DIGITS, choices=CHOICES)
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
        report = evaluate(model, DIGITS)
        assert report.top1 == (labels == 0).mean()
        assert report.top5 == (labels < 5).mean()
        assert 0 < report.top1 < report.top5 < 1
        assert not any("NaN" in warning for warning in report.warnings)


def test_logits_that_are_no_numbers_count_as_wrong(tmp_path: Path) -> None:
    export(write_head(tmp_path / "c.pth.tar", infinite), tmp_path / "c.onnx", check=False)
    with np.load(DIGITS) as arrays:
        images, labels = np.repeat(arrays["images"], 3, axis=1), arrays["labels"]
    session = ort.InferenceSession(tmp_path / "c.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"images": images})[0]
    finite = np.isfinite(logits).all(1)
    assert 0 < finite.sum() < 48
    report = evaluate(tmp_path / "c.onnx", DIGITS)
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
    assert numbers.top1 >= 46 / 48  # 8 bits, and timm's crop
    named = evaluate(exported, tmp_path / "words", class_map=tmp_path / "map.txt")
    assert (named.top1, named.top5) == (numbers.top1, numbers.top5)
    assert evaluate(exported, tmp_path / "words").top1 < 0.5  # in alphabetical order


# the command `eval`


def test_eval_as_typed(folder: Path) -> None:
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


def test_eval_says_what_was_assumed_of_a_checkpoint(folder: Path) -> None:
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
}


@pytest.mark.parametrize(("line", "message"), BAD_EVALS.values(), ids=BAD_EVALS.keys())
def test_eval_refuses(folder: Path, golden: Golden, line: str, message: str) -> None:
    np.savez("bare.npz", images=golden["images"])
    for name in ("flat/a.png", "two/one/a.png", "two/other/a.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(name)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    refused(ltmp("eval", *line.split()), message)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


# the command `calibrate`


def test_calibrate_then_export_as_typed(folder: Path) -> None:
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


def test_sweep_and_its_plot(folder: Path) -> None:
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
        "no family 'ltp2'; choose from evit, ltm, ltmp, ltp, ltpm",
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
def test_calibrate_refuses(folder: Path, line: str, message: str) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    refused(ltmp("calibrate", *line.split()), message)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


# check --masked


def test_check_masked(folder: Path, golden: Golden) -> None:
    given = ("check", "model.onnx", "tuned.pth.tar", "--samples", "48", "-b", "1")
    plain, found = ltmp(*given, "--json", "p.json"), ltmp(*given, "--json", "m.json", "--masked")
    assert found.exit_code == plain.exit_code == 0, found.stderr
    schema = json.loads((resources.files("ltmp_export") / "schemas/check.schema.json").read_text())
    documents = [json.loads(Path(name).read_text()) for name in ("p.json", "m.json")]
    for document in documents:
        jsonschema.validate(document, schema)
    distances = [document.pop("masked") for document in documents]
    assert distances[0] is None
    assert documents[0]["verdict"] == documents[1]["verdict"] == "equal"
    assert documents[0]["comparisons"] == documents[1]["comparisons"]
    masked = distances[1]
    deployed, published = golden["ltmp_counts"], golden["ltmp_masked_counts"]
    np.testing.assert_allclose(masked["deployed"], deployed.mean(0), atol=1e-9)
    np.testing.assert_allclose(masked["masked"], published.mean(0), atol=1e-9)
    np.testing.assert_allclose(masked["apart"], np.abs(deployed - published).mean(0), atol=1e-9)
    assert masked["images"] == 48
    assert masked["apart"][:2] == [0.0, 0.0]  # block 0 removes nothing, block 1 is the first
    assert min(masked["apart"][2:]) > 1.0
    assert masked["counts_equal"] == (deployed == published).all(1).mean()
    logits, theirs = golden["ltmp_logits"], golden["ltmp_masked_logits"]
    assert masked["agreement"] == (logits.argmax(1) == theirs.argmax(1)).mean()
    assert masked["logit_difference"] == pytest.approx(np.abs(logits - theirs).max(), abs=1e-4)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(documents[1] | {"masked": masked | {"images": "48"}}, schema)
    assert "published masked form: same top-1 as deployed on" in found.stdout
    assert "published masked form" not in plain.stdout


def test_masked_does_not_move_a_failing_verdict(folder: Path, digits_base: Path) -> None:
    other = FIXTURES / "digits_ltpm_thresholds.pth.tar"
    given = ("check", "model.onnx", other, "--base-checkpoint", digits_base, "--samples", "2")
    plain, found = ltmp(*given, "--json", "p.json"), ltmp(*given, "--json", "m.json", "--masked")
    assert found.exit_code == plain.exit_code == 1
    verdicts = [json.loads(Path(name).read_text())["verdict"] for name in ("p.json", "m.json")]
    assert verdicts == ["fail", "fail"]


def test_masked_is_not_for_a_repro(folder: Path) -> None:
    refused(ltmp("check", "--repro", "r", "--masked"), "--repro brings its own .*; drop --masked")


@pytest.mark.parametrize("arch", ["ltmp_vit_digits", "m_vit_digits"])
def test_a_checkpoint_that_lost_its_thresholds_is_no_dense_model(
    folder: Path, digits_base: Path, arch: str
) -> None:
    torch.save({"state_dict": load_torch(digits_base), "arch": arch}, "lost.pth")
    for command in ("eval lost.pth --data digits.npz", f"calibrate lost.pth {TARGET[9:]}"):
        result = ltmp(*command.split())
        assert result.exit_code == 2
        assert f"lost.pth calls itself {arch}, but holds no thresholds" in result.stderr


def test_an_image_out_of_all_range_is_one_line(folder: Path) -> None:
    images = np.zeros((4, 3, 32, 32), np.float32)
    images[2] = 1e38
    np.savez("huge.npz", images=images)
    result = ltmp(*["calibrate", "base.pth", "--images", "huge.npz", "--reduction-target", "0.9"])
    assert result.exit_code == 2
    (line,) = (one for one in result.stderr.splitlines() if one.startswith("error"))
    assert "an image leads to NaN or infinite logits" in line
