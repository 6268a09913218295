"""Models without a classifier: their features, as timm gives them, and what is refused of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from timm.models.vision_transformer import VisionTransformer

import ltmp_export
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.images import inputs
from ltmp_export.model_file.model import read_exported, to_onnx
from ltmp_export.plan.vit import Vit
from ltmp_export.precision.formats import FP16, INT8, Precision
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from tests.makers import random_vits
from tests.makers.checks import check
from tests.makers.commands import ltmp
from tests.makers.distilled import distilled
from tests.tolerances import DENSE_TIMM

MODELS: dict[str, Callable[[], Any]] = {
    "class token": lambda: _headless(0),
    "average": lambda: _headless(0, global_pool="avg", fc_norm=False),
    "average, normalised": lambda: _headless(0, global_pool="avg"),
    "distilled": lambda: distilled(num_classes=0),
}


def _headless(classes: int, **changed: Any) -> VisionTransformer:
    kwargs = {"num_classes": classes, "img_size": (16, 12), **changed}
    model, _ = random_vits.build(random_vits.Case("headless", 41, kwargs))
    return model


def saved(model: Any, path: Path, rate: int = 0) -> Checkpoint:
    """A model in a file, and read back, with `rate` tokens of each block merged."""
    torch.save(model.state_dict(), path)
    pool = getattr(model, "global_pool", "token")
    stated = Choices(
        num_heads=model.blocks[0].attn.num_heads, pool=pool, family="m", rate=str(rate),
        image_size=tuple(model.patch_embed.img_size),
    )  # fmt: skip
    return load_checkpoint(path, stated)


@pytest.mark.parametrize("name", MODELS)
def test_features_are_timms(tmp_path: Path, name: str) -> None:
    """With nothing reduced; and a file of them is what `check` expects, merged and in batches."""
    model = MODELS[name]()
    checkpoint = saved(model, tmp_path / "c.pth")
    assert checkpoint.geometry.classes == 0
    pixels = torch.from_numpy(_images(checkpoint).pixels[:3])
    proto = to_onnx(checkpoint, opset=17)
    (features,) = Session(proto).run(pixels.numpy())
    with torch.inference_mode():
        wanted = model.forward_head(model.forward_features(pixels), pre_logits=True)
        assert torch.equal(wanted, model(pixels))
    np.testing.assert_allclose(features, wanted, atol=DENSE_TIMM)
    merged = saved(model, tmp_path / "m.pth", rate=1)
    assert check(to_onnx(merged, opset=17), merged, _images(merged), 1, 3).verdict == "equal"


def _images(checkpoint: Checkpoint) -> inputs.Images:
    return inputs.load_images(None, checkpoint.geometry, checkpoint.preprocessing, 4)


def test_wrong_features_are_found(tmp_path: Path) -> None:
    """Also where the file says nothing else."""
    checkpoint = saved(MODELS["average, normalised"](), tmp_path / "c.pth", rate=1)
    proto = to_onnx(checkpoint, opset=17)
    for tensor in proto.graph.initializer:
        if tensor.name == "fc_norm.bias":
            array = numpy_helper.to_array(tensor) + np.float32(1e-3)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    report = check(proto, checkpoint, _images(checkpoint), 2)
    assert report.verdict == "fail"
    assert report.of("fail")[0].reason.startswith("head: with the same decisions the features dif")


@pytest.mark.parametrize("precision", [Precision(FP16, io=FP16), Precision(INT8)])
def test_lower_precision(tmp_path: Path, precision: Precision) -> None:
    saved(_headless(0), tmp_path / "c.pth")
    stated = Choices(num_heads=2, image_size=(16, 12), family="p", rate="1")
    done = ltmp_export.export(
        tmp_path / "c.pth", tmp_path / "c.onnx", precision=precision, choices=stated
    )
    assert done.check is not None
    assert done.check.fidelity is not None
    assert (done.check.verdict, done.check.fidelity.of) == ("bounded", "features")
    assert done.check.fidelity.top1 is None


def test_of_a_model_with_classifier(tmp_path: Path) -> None:
    """Features alone leave the classifier out, both may be had; the order is always the same."""
    checkpoint = saved(_headless(5), tmp_path / "c.pth", rate=1)
    pixels = _images(checkpoint).pixels[:2]
    asked = {"features": ["features"], "both": ["features", "logits"], "logits": None}
    found = {}
    for name, outputs in asked.items():
        ltmp_export.export(checkpoint, tmp_path / name, outputs=outputs)
        exported = read_exported(tmp_path / name)
        found[name] = dict(zip(exported.outputs, Session(exported.proto).run(pixels), strict=True))
        assert ltmp_export.check(tmp_path / name, checkpoint).verdict == "equal"
    alone, both, plain = found.values()
    assert (list(alone), list(both), list(plain)) == (
        ["features"], ["logits", "features"], ["logits"],
    )  # fmt: skip
    np.testing.assert_array_equal(alone["features"], both["features"])
    np.testing.assert_array_equal(plain["logits"], both["logits"])
    names = {tensor.name for tensor in read_exported(tmp_path / "features").proto.graph.initializer}
    assert "head.weight" not in names
    assert ltmp_export.inspect(tmp_path / "features")["vit"]["classes"] == 0


def test_a_file_that_cannot_give_what_it_says(tmp_path: Path) -> None:
    checkpoint = saved(_headless(0), tmp_path / "c.pth")
    proto = to_onnx(checkpoint, opset=17)
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "logits"
    onnx.save(proto, tmp_path / "c.onnx")
    with pytest.raises(InputError, match="an output logits of a model that cannot give it"):
        read_exported(tmp_path / "c.onnx")


ASKED = {
    "logits": "has no classifier, and gives no logits; choose from features, tokens",
    "feature": "--outputs feature: no output 'feature'; choose from logits, features, tokens",
    "features,features": "--outputs features,features: features is there twice",
    "": "--outputs : no output ''; choose from logits",
}


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line each, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    saved(_headless(0), Path("c.pth"))
    stated = ("--num-heads", "2", "--img-size", "16,12")
    for outputs, message in ASKED.items():
        told = ltmp("export", "c.pth", *stated, "--family", "m", "--r", "1", "--outputs", outputs)
        assert (told.exit_code, len(told.stderr.splitlines())) == (2, 1), told.stderr
        assert message in told.stderr
    np.savez("d.npz", images=np.zeros((4, 3, 16, 12), np.float32), labels=np.arange(4))
    told = ltmp("finetune", "c.pth", "--data", "d.npz", *stated)
    assert told.exit_code == 2
    assert "c.pth has no classifier, and labels are what is learned from" in told.stderr
    assert not list(tmp_path.glob("*.onnx"))


def test_a_bench_of_one_has_no_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = saved(_headless(0), Path("c.pth"), rate=1)
    ltmp_export.export(checkpoint, "c.onnx", check=False)
    told = ltmp("bench", "c.onnx", "--iterations", "1", "--samples", "2", "--json", "b.json")
    assert told.exit_code == 0, told.stderr
    report = json.loads(Path("b.json").read_text())
    assert report["accuracy"] is None
    assert isinstance(checkpoint.geometry, Vit)
