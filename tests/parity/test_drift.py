"""Pictures against a baseline: the same pass, others do not, other files' baselines are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ltmp_export import export
from ltmp_export.commands.eval import evaluate
from ltmp_export.parity import drift
from ltmp_export.precision.formats import Precision
from tests.conftest import DIGITS_LTMP
from tests.makers import digits
from tests.makers.commands import ltmp, refused, succeeded
from tests.makers.shallow import write_shallow

Pixels = NDArray[np.float32]


def write(path: Path, change: Callable[[Pixels], Any] = lambda x: x, first: int = 0) -> Path:
    """64 digits, changed."""
    images, labels = digits.arrays()
    place = slice(first, first + 128, 2)
    pixels = np.asarray(change(images[place]), np.float32)
    np.savez(path, images=pixels, labels=labels[place])
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in float32, one in int8, one under a budget, and the baselines of the first two."""
    folder = tmp_path_factory.mktemp("drift")
    write(folder / "made.npz")
    source = folder / "c.pth.tar"
    write_shallow(DIGITS_LTMP, source)
    export(source, folder / "f.onnx", check=False)
    export(
        source, folder / "i.onnx", precision=Precision("int8"), check=False,
        calibration_images=folder / "made.npz",
    )  # fmt: skip
    for name in "fi":
        to = folder / f"{name}.json"
        evaluate(folder / f"{name}.onnx", folder / "made.npz", write_baseline=to)
    return folder


def noisy(images: Pixels) -> Pixels:
    return images + np.random.default_rng(0).normal(0, 0.5, images.shape).astype(np.float32)


CHANGES: dict[str, Callable[[Pixels], Any]] = {
    "inverted": lambda images: -images,
    "bright": lambda images: np.clip(images + 0.8, -1, 1),
    "noise": noisy,
}


@pytest.mark.parametrize(
    ("name", "changes"), [("f", ["bright", "noise"]), ("i", ["inverted", "bright", "noise"])]
)
def test_pictures_that_are_alike_pass_and_others_do_not(
    place: Path, name: str, changes: list[str]
) -> None:
    def found(pictures: Path) -> dict[str, drift.Drifted]:
        report = evaluate(place / f"{name}.onnx", pictures, watch_drift=place / f"{name}.json")
        return {one.kind: one for one in report.drift}

    same = found(place / "made.npz")
    assert same.keys() == {"tokens", "margins", "answers"} | ({"ranges"} if name == "i" else set())
    assert all(one.beyond == 0 and not one.drifted for one in same.values())
    others = found(write(place / "others.npz", first=1))
    assert not [one for one in others.values() if one.drifted]
    for change in changes:
        changed = found(write(place / "changed.npz", CHANGES[change]))
        assert any(one.drifted for one in changed.values())
        assert name == "f" or changed["ranges"].drifted


def test_a_budget(place: Path) -> None:
    """It overflows in its own pictures; in blank ones it does not, and in busy ones more."""
    model = place / "b.onnx"
    export(place / "c.pth.tar", model, mode="static", keep_tokens="60,50,40", check=False)
    base = place / "b.json"
    lost = json.loads(succeeded_json(model, place / "made.npz", place))["drift"]
    assert lost == []
    evaluate(model, place / "made.npz", write_baseline=base)
    own = drift.read(base, model).kinds["budget"]
    assert own.largest == (0.0,)
    busy = write(place / "busy.npz", noisy)
    told = {one.kind: one for one in evaluate(model, busy, watch_drift=base).drift}["budget"]
    assert told.beyond > own.expected
    assert told.drifted == (told.beyond > told.allowed)


def succeeded_json(model: Path, data: Path, place: Path) -> str:
    succeeded(ltmp("eval", model, "--data", data, "--samples", 4, "--json", place / "r.json"))
    return (place / "r.json").read_text()


def test_the_command_says_what_has_drifted(place: Path, tmp_path: Path) -> None:
    changed = write(tmp_path / "n.npz", noisy)
    flags = ["--watch-drift", place / "i.json", "--json", tmp_path / "r.json"]
    told = ltmp("eval", place / "i.onnx", "--data", changed, *flags)
    assert told.exit_code == 1
    assert "drift of ranges: " in told.stdout
    stated = {one["kind"]: one for one in json.loads((tmp_path / "r.json").read_text())["drift"]}
    assert stated["ranges"]["drifted"] is True
    told = ltmp("eval", place / "i.onnx", "--data", changed, *flags, "--drift-share", 1)
    assert told.exit_code == 0


def test_what_is_refused(place: Path, tmp_path: Path) -> None:
    model, data = place / "f.onnx", place / "made.npz"
    eval_ = ("eval", model, "--data", data)
    other = "is the baseline of another file .i.onnx, sha256 "
    refused(ltmp(*eval_, "--watch-drift", place / "i.json"), other)
    (tmp_path / "x.json").write_text('{"kind": "bench"}')
    refused(ltmp(*eval_, "--watch-drift", tmp_path / "x.json"), "x.json is no baseline")
    refused(ltmp(*eval_, "--watch-drift", tmp_path / "y.json"), "y.json does not exist")
    refused(ltmp(*eval_, "--drift-share", 0.1), "is about --watch-drift")
    flags = ("--watch-drift", place / "f.json", "--drift-share", 1.5)
    refused(ltmp(*eval_, *flags), "drift share of 1.5; expected")
    changed = json.loads((place / "f.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps(changed | {"schema_version": 1}))
    refused(ltmp(*eval_, "--watch-drift", tmp_path / "x.json"), "kind 'baseline', version 1")
    (tmp_path / "x.json").write_text(json.dumps(changed | {"count": 3}))
    refused(ltmp(*eval_, "--watch-drift", tmp_path / "x.json"), "it is of 3 pictures, or held")
    changed["kinds"]["tokens"]["least"] = [1.0, 2.0]
    (tmp_path / "z.json").write_text(json.dumps(changed))
    refused(ltmp(*eval_, "--watch-drift", tmp_path / "z.json"), "of tokens, the file 3; write it")
    made = ("--write-baseline", tmp_path / "b.json")
    refused(ltmp(*eval_, *made, "--samples", 9), "a baseline of 9 pictures; give at least 16")
    source = place / "c.pth.tar"
    refused(ltmp("eval", source, "--data", data, *made), "is no exported model; drift is watched")
    assert not (tmp_path / "b.json").exists()
