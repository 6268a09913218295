"""What the manuals show is run here; what installs, tests and lints is run by `.ci/run`."""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ltmp_cli.main import app
from PIL import Image
from typer.testing import CliRunner

import ltmp_export
from ltmp_export import check, demo, export, load_checkpoint
from ltmp_export.timing import literal, many, real_size
from tests.conftest import DIGITS_LTMP, cluster_layers
from tests.documents import manuals
from tests.makers import digits, make_checkpoint, packed
from tests.makers.clock import Clock
from tests.makers.commands import left, ltmp, succeeded
from tests.makers.examples import DIFFRATE
from tests.makers.mutations import MUTATIONS
from tests.makers.shallow import write_shallow

DOCUMENTS = manuals.documents()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, digits_base: Path) -> Path:
    """Where a user stands, the front page read.

    A checkpoint of three blocks and what `ltmp export` made of it, a dense ViT, one with
    PatchMerger's layers, some photos, images in folders of ten classes, and the digits in
    `digits/`, as pictures also in `shards/` and `table/`.
    """
    place = tmp_path_factory.mktemp("user")
    write_shallow(DIGITS_LTMP, place / "ckpt.pth.tar")
    export(place / "ckpt.pth.tar", place / "model.onnx", check=False)
    shutil.copy(digits_base, place / "base.pth")
    layers = cluster_layers(128, 24, 9)
    torch.save(torch.load(digits_base) | layers, place / "deit_patchmerger.pth")
    (place / "compression_rate.json").write_text(DIFFRATE)
    (place / "photos").mkdir()
    for grey in (0, 90, 200):
        Image.new("RGB", (40, 36), (grey, 90, 255 - grey)).save(place / f"photos/{grey}.png")
    images, labels = digits.arrays()
    for number, (image, label) in enumerate(zip(images[:200], labels[:200], strict=True)):
        folder = place / "imagenet" / ("train" if number < 140 else "val") / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (127.5 * (image[0] + 1)).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    write_few_digits(place / "digits")
    packed.digits_shards(place / "shards", 12, 2)
    for number in range(2):
        shard = place / f"shards/digits-{number:03d}.tar"
        shard.rename(shard.with_name(f"val-{number:03d}.tar"))
    packed.parquet(place / "table/val-0.parquet", *packed.digits_pictures(12))
    return place


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in a folder of a test's own, where it stands."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_commands() -> None:
    lines = [line for document in DOCUMENTS for line in manuals.commands(document)]
    names = {shlex.split(line)[1] for line in lines if line.startswith("ltmp ")}
    assert names == {
        "export",
        "bench",
        "check",
        "inspect",
        "calibrate",
        "finetune",
        "eval",
        "models",
        "show",
        "report",
        "web",
        "inputs",
        "runtimes",
        "serve-config",
        "compare",
    }


# The same commands on less: what stands for a model of timm, and runs that take a while.
SMALLER = {
    "timm:deit_small_patch16_224": "base.pth --num-heads 2 --mean 0.5 --std 0.5",
    "--reduction-target 0.45 --epochs 3": "--reduction-target 0.45 --epochs 1",
    "--distil 0.5 --epochs 2": "--distil 0.5 --epochs 1",
    "0.9,0.8,0.7,0.6,0.5,0.4,0.3": "0.9,0.5",
    "--latency-target 0.75": "--latency-target 0.75 --samples 16",
    "val.npz --samples 48": "val.npz --samples 6",
    "--samples 8 --iterations 3": "--samples 2 --iterations 2",
    "report model.onnx --bench": "report model.onnx --bench --samples 3",
    "0.7,0.5,0.35": "0.5 --methods p,topk -b 1 --iterations 1",
    "--engine ray --workers 2": "--workers 2",  # a cluster is started in `tests/distributed`
    "5%": "100000%",  # how fast this machine is today is nobody's guess
    "deit_small_patch16_224 --mac-share 0.52 -o ckpt.pth.tar": (
        "deit_tiny_patch16_224 --mac-share 0.52 -o made.pth"
    ),
}

# Images and first runs of `ltmp bench`; what is compared with an earlier report needs its rounds.
FEWER = ("--samples=3", "--warmup=1")


# Some of what the commands leave, by document.
MADE = {
    "README.md": {"single.onnx", "tome.onnx", "int8.onnx", "calibrated.pth.tar"},
    ".github/CONTRIBUTING.md": {"made.pth"},
    "ltmp_export/calibration/README.md": {
        "sweep.png",
        "calibrated.pth.tar",
        "finetuned.pth.tar",
        "latency.json",
    },
    "ltmp_export/distributed/README.md": {"digits"},
    "ltmp_export/drawing/README.md": {"pictures"},
    "ltmp_export/families/README.md": {
        "pm.onnx",
        "mp.onnx",
        "patchmerger.onnx",
        "budget.onnx",
        "mm.onnx",
        "mm50.onnx",
        "compare.png",
    },
    "ltmp_export/images/README.md": {"shards", "table"},
    "ltmp_export/model_file/README.md": {"pictures.onnx"},
    "ltmp_export/parity/README.md": {"parity.xml", "parity.json", "baseline.json"},
    "ltmp_export/precision/README.md": {
        "int8.onnx",
        "dynamic.onnx",
        "qdq.onnx",
        "fp16.onnx",
        "half.onnx",
    },
    "ltmp_export/reports/page/README.md": {"report.html"},
    "ltmp_export/serving/README.md": {"repository"},
    "ltmp_export/site/README.md": {"site"},
    "ltmp_export/runtimes/README.md": {"fed"},
    "ltmp_export/timing/README.md": {"bench.json", "bench.png"},
    "ltmp_export/training/README.md": {
        "digits_ltmp.pth.tar",
        "digits_ltmp.pth.tar.csv",
        "reduced.pth.tar",
        "mergence.pth.tar",
        "masks.onnx",
    },
}


def test_commands_stand_where_they_did() -> None:
    assert {manuals.name(one) for one in DOCUMENTS if manuals.commands(one)} == set(MADE)


@pytest.mark.parametrize(
    "document", [one for one in DOCUMENTS if manuals.commands(one)], ids=manuals.name
)
def test_every_command_runs(document: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch's exporter beside the others: `test_side_by_side` waits for it, once."""
    monkeypatch.setattr(literal, "untranslated", lambda *_: "left out")
    for line in manuals.commands(document):
        given = line
        for long, short in SMALLER.items():
            given = given.replace(long, short)
        given = given.replace("$PWD", str(folder))
        program, *arguments = shlex.split(given)
        if arguments[0] == "bench":
            fewer = FEWER if "bench.json" in arguments else (*FEWER, "--iterations=2")
            arguments += [flag for flag in fewer if flag.split("=")[0] not in arguments]
        if program in ("python", "torchrun"):
            run_module(program, arguments, monkeypatch)
            continue
        assert program == "ltmp"
        if {"--latency-target", "--table"} & {*arguments}:
            monkeypatch.setattr(many, "times", Clock().times)  # this machine may be busy
        if "--repro" in arguments:
            save_a_repro(Path(arguments[-1]))
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}: {result.output}"
    assert MADE[manuals.name(document)] <= {path.name for path in folder.iterdir()}


def run_module(program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs that are not `ltmp`."""
    if program == "torchrun":
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", *arguments]
        done = subprocess.run(run, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return
    modules = {
        "tests.makers.make_checkpoint": make_checkpoint.main,
        "tests.makers.digits": digits.main,
    }
    dash, module, *rest = arguments
    assert dash == "-m"
    monkeypatch.setattr("sys.argv", [module, *rest])
    modules[module]()
    if module == "tests.makers.digits":
        write_few_digits(Path("digits"))


def write_few_digits(place: Path) -> None:
    """What `python -m tests.makers.digits digits` writes, with fewer images."""
    digits.write(place)
    for part, count in (("train", 120), ("val", 48)):
        with np.load(place / f"{part}.npz") as arrays:
            few = {name: arrays[name][:count] for name in arrays}
        np.savez(place / f"{part}.npz", **few)


def save_a_repro(folder: Path) -> None:
    """What a check of a wrong file leaves; the file is mended since."""
    onnx.save(MUTATIONS["mlp.fc2 times 1.01"].mutate(load_checkpoint("ckpt.pth.tar"), 0), "w.onnx")
    check("w.onnx", "ckpt.pth.tar", samples=2, save_repro=folder)


@pytest.mark.parametrize(
    "document", [one for one in DOCUMENTS if manuals.blocks(one, "python")], ids=manuals.name
)
def test_python_runs(document: Path, folder: Path) -> None:
    Path("model.onnx").unlink()
    for source in manuals.blocks(document, "python"):
        exec(compile(source, manuals.name(document), "exec"), {})
    assert Path("model.onnx").exists()


# Where the demo's output is shown, and what its part there begins with.
DEMO = {
    "README.md": "ltmp-demo/model.onnx: ltmp",
    "ltmp_export/parity/README.md": "check: equal on 7 images",
    "ltmp_export/timing/README.md": "batch  model     GMACs",
}


def test_the_shown_demo_is_what_the_demo_prints(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word for word, apart from times, rounding errors and the machine; "…" is left out.

    The model of real size is none here. With --quick it prints the same without that.
    """
    kwargs = {"img_size": 128, "depth": 3, "embed_dim": 64, "num_heads": 2, "num_classes": 10}
    small = real_size.Specimen("DeiT-S", "deit_tiny_patch16_224", kwargs)
    monkeypatch.setattr(real_size, "DEIT_S", small)
    monkeypatch.setattr(real_size, "IMAGES", 4)
    monkeypatch.setattr(real_size, "SECONDS", 4.0)
    once = functools.cache(demo)
    monkeypatch.setattr(ltmp_export, "demo", lambda folder, _: once(folder))
    whole = succeeded(ltmp("demo"))
    assert re.search(r"drops 5\d% of the multiply-accumulates", whole)
    assert left(folder / "ltmp-demo") == ["digits_ltmp.pth.tar", "model.onnx", "report.html"]
    assert whole.startswith(succeeded(ltmp("demo", "--quick")))
    printed = without_figures(whole)
    for name, beginning in DEMO.items():
        texts = manuals.blocks(manuals.ROOT / name, "text")
        shown = next(text for text in texts if text.startswith(beginning))
        rest = printed
        for part in shown.split("\n…"):
            words = without_figures(part)
            fitting = (at for at in range(len(rest)) if rest[at : at + len(words)] == words)
            at = next(fitting, None)
            assert at is not None, f"{name}: {part}"
            rest = rest[at + len(words) :]


def without_figures(text: str) -> list[str]:
    varying = r"\d\.\de[-+]\d+|\d+\.\d+ s\b|\d+ threads|[\d.]+ times|(?<=[\d)])( +±?[\d.]+[x%]?)+$"
    lines = [re.sub(varying, " _", line) for line in text.strip().splitlines()]
    return " ".join(lines).split()
