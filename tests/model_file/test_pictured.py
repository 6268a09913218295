"""Files that take pictures: prepared as timm does, the rest of the file as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

import ltmp_export
from ltmp_export import Deployment, check, export, serve_config
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import pictures
from ltmp_export.images.preprocessing import INTERPOLATIONS, Preprocessing
from ltmp_export.model_file import front, pictured
from ltmp_export.model_file.model import read_exported, to_onnx
from ltmp_export.parity.pictured import distance
from ltmp_export.runtimes.opsets import newest_opset
from ltmp_export.timing import fitted, tabulate
from tests.makers.commands import ltmp, refused

Digits = Callable[[str], Checkpoint]

SCHEMA = Path(ltmp_export.__path__[0]) / "schemas" / "check.schema.json"
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def session(model: onnx.ModelProto | Path) -> ort.InferenceSession:
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(given, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_every_rule(shallow_digits: Digits, interpolation: str) -> None:
    """Crops, sizes that are not square, pictures from tiny to large: a level at most."""
    opsets = (16, 17, newest_opset())
    for turn, (mode, share, size) in enumerate(
        product(("center", "squash", "border"), (0.875, 1.2), ((32, 32), (32, 48)))
    ):
        vit = replace(shallow_digits("m").vit, image_size=size)
        rule = Preprocessing(MEAN, STD, share, interpolation, mode)
        made = front.model(vit.input_size, rule, opsets[turn % 3], batch_size=None, half=False)
        found = distance(made, vit, rule)
        assert found.most <= 1.001
        assert found.mean <= (0 if interpolation == "nearest" else 0.25)


@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos"])
def test_the_side_that_pillow_resizes_first(
    shallow_digits: Digits, interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In noise, whose levels are cut in between: since Pillow 13 the height of tall pictures."""
    vit, level = shallow_digits("m").vit, 1 / 255 / 0.25
    noise = np.random.default_rng(0).integers(0, 256, (500, 33, 3), dtype=np.uint8)
    shapes = [noise[:high] for high in (500, 66, 33, 20)] + [noise.transpose(1, 0, 2)]
    for mode, batch_size in (("center", 1), ("squash", None), ("border", None)):
        rule = Preprocessing(MEAN, (0.25,) * 3, 1.0, interpolation, mode)
        transform = pictures.evaluation_transform(vit, rule)
        made = front.model(vit.input_size, rule, 17, batch_size=batch_size, half=False)
        run = session(made).run
        for picture in shapes:
            (given,) = run(None, {"pictures": picture[None]})
            expected = transform(Image.fromarray(picture)).numpy()
            np.testing.assert_allclose(given[0], expected, rtol=0, atol=1.001 * level)
    monkeypatch.setattr(front, "height_first", lambda: False)
    rule = Preprocessing(MEAN, (0.25,) * 3, 1.0, interpolation, "squash")
    run = session(front.model(vit.input_size, rule, 17, batch_size=1, half=False)).run
    narrow = Image.fromarray(noise[:66, :20])
    widened = narrow.resize((32, 66), Image.Resampling[interpolation.upper()])
    transform = pictures.evaluation_transform(vit, rule)
    expected = transform(widened).numpy()
    (given,) = run(None, {"pictures": noise[None, :66, :20]})
    np.testing.assert_allclose(given[0], expected, rtol=0, atol=1.001 * level)
    assert np.abs(expected - transform(narrow).numpy()).max() > 4 * level


def test_one_channel_and_batches(shallow_digits: Digits) -> None:
    vit = replace(shallow_digits("m").vit, in_chans=1)
    rule = Preprocessing((0.4,), (0.3,), 0.9, "bicubic")
    run = session(front.model(vit.input_size, rule, 17, batch_size=None, half=False)).run
    noise = np.random.default_rng(0).integers(0, 256, (3, 50, 41, 1), dtype=np.uint8)
    together = run(None, {"pictures": noise})[0]
    transform = pictures.evaluation_transform(vit, rule)
    for row, picture in zip(together, noise, strict=True):
        expected = transform(Image.fromarray(picture[..., 0])).numpy()
        np.testing.assert_allclose(row, expected, rtol=0, atol=1.001 / 255 / 0.3)


def test_of_a_line_a_pixel_is_left(shallow_digits: Digits) -> None:
    """Where timm rounds the short side to 0, and then has no picture."""
    vit = shallow_digits("m").vit
    line = np.full((1, 5000, 1, 3), 255, np.uint8)
    for interpolation in ("nearest", "bicubic"):
        rule = Preprocessing((0.0,) * 3, (1.0,) * 3, 0.9, interpolation, "border")
        with pytest.raises(ValueError, match="height and width must be > 0"):
            pictures.evaluation_transform(vit, rule)(Image.fromarray(line[0]))
        made = front.model(vit.input_size, rule, 17, batch_size=None, half=False)
        (given,) = session(made).run(None, {"pictures": line})
        assert sorted({*given.ravel().tolist()}) == [0.0, 1.0]
        assert given.sum() == 3 * 32  # a column of it, on the border's black


@pytest.fixture
def made(shallow_digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    report = export(shallow_digits("ltmp"), "p.onnx", with_preprocessing=True)
    assert report.check is not None
    assert report.check.pictures is not None
    return tmp_path / "p.onnx"


def test_a_file_and_what_comes_after(
    made: Path, shallow_digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures in give what timm's transform and the plain file give; commands know both."""
    checkpoint = shallow_digits("ltmp")
    plain = session(to_onnx(checkpoint, opset=17))
    transform = pictures.evaluation_transform(checkpoint.vit, checkpoint.preprocessing)
    whole = session(made)
    for size in ((32, 32), (50, 41), (200, 90)):
        picture = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
        (given,) = whole.run(None, {"pictures": picture[None]})
        (expected,) = plain.run(None, {"images": transform(Image.fromarray(picture)).numpy()[None]})
        np.testing.assert_allclose(given, expected, rtol=0, atol=0.02)
        assert given.argmax() == expected.argmax()
    exported = read_exported(made)
    assert [value.name for value in exported.proto.graph.input] == ["images"]
    report = check(made, checkpoint, samples=2, batch_sizes=[2])
    assert (report.verdict, report.pictures is not None) == ("equal", True)
    jsonschema.validate(report.to_json(), json.loads(SCHEMA.read_text()))
    (told,) = ltmp_export.inspect(made)["inputs"]
    assert told == {"name": "pictures", "type": "uint8", "shape": ["batch", "height", "width", 3]}
    served = serve_config(made, "r", Deployment("p"))
    steps = json.loads((served.folder / "preprocessing.json").read_text())["steps"]
    assert [step["do"] for step in steps] == ["orient", "convert"]
    assert "dims: [-1, -1, 3]" in (served.folder / "config.pbtxt").read_text()
    monkeypatch.setattr(tabulate, "measure", lambda *_: SimpleNamespace(batches=()))
    monkeypatch.setattr(fitted, "fit_all", lambda *_: ())
    (said,) = ltmp_export.time_table(made, samples=1).warnings
    assert said == "the preparation of pictures, which is in the file, is not timed"
    refused(ltmp("inputs", made, "-o", "i.npz"), "takes pictures, and 'ltmp inputs' feeds")


def test_apart_it_is_the_file_that_it_was(shallow_digits: Digits) -> None:
    for batch_size in (None, 1):
        checkpoint = shallow_digits("ltmp")
        model = to_onnx(checkpoint, opset=17, batch_size=batch_size)
        before = onnx.ModelProto.FromString(model.SerializeToString())
        size, rule = checkpoint.vit.input_size, checkpoint.preprocessing
        pictured.put_before(model, size, rule, 17)
        onnx.checker.check_model(model, full_check=True)
        rest = pictured.take_apart(model).rest
        assert list(rest.graph.node) == list(before.graph.node)
        assert list(rest.graph.input) == list(before.graph.input)
        weights = {tensor.name for tensor in before.graph.initializer}
        assert {tensor.name for tensor in rest.graph.initializer} == weights


def changed(model: onnx.ModelProto, name: str, value: Any) -> None:
    (tensor,) = (one for one in model.graph.initializer if one.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(value), name))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pictures/mean", np.full((3, 1, 1), 0.45, np.float32)),
        ("pictures/std", np.full((3, 1, 1), 0.45, np.float32)),
        ("const/f64[1.0]", 0.5),
    ],
)
def test_a_wrong_preparation_fails(
    made: Path, shallow_digits: Digits, name: str, value: Any
) -> None:
    model = onnx.load(made)
    changed(model, name, value)
    onnx.save(model, "w.onnx")
    report = check("w.onnx", shallow_digits("ltmp"), samples=1, batch_sizes=[1])
    assert report.verdict == "fail"
    assert "of 255 levels from timm's" in report.headline()


def test_a_damaged_front_is_refused(made: Path) -> None:
    model = onnx.load(made)
    del model.graph.value_info[:]
    onnx.save(model, "d.onnx")
    refused(ltmp("inspect", "d.onnx"), "damaged ltmp metadata .*of a graph that does not take")
