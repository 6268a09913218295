"""`serve-config`: held to Triton's own protobuf, to onnxruntime, and to the tool's own inputs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import yaml
from google.protobuf import text_format
from numpy.typing import NDArray
from PIL import Image

from ltmp_export import Deployment, families, serve_config
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.images import pictures
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.model_file.model import read_exported, to_onnx
from ltmp_export.model_file.pictured import put_before
from ltmp_export.plan import outputs as plan_outputs
from ltmp_export.precision.formats import FP16, Precision
from ltmp_export.serving.preparation import preparation
from ltmp_export.serving.signature import signature
from tests.makers.commands import left, ltmp, refused, succeeded
from tests.makers.lower_precision import unmeasured

Digits = Callable[[str], Checkpoint]

KINDS = {
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(int64)": "TYPE_INT64",
    "tensor(uint8)": "TYPE_UINT8",
}
NUMBERS = {"TYPE_FP32": np.float32, "TYPE_FP16": np.float16, "TYPE_UINT8": np.uint8}
SINGLE = {"batch_size": 1, "precision": Precision(FP16, io=FP16)}


@pytest.fixture(scope="session")
def protobuf() -> Any:
    """Triton's messages, of its client; its package would import gRPC, too."""
    listed = importlib.metadata.files("tritonclient") or []
    (found,) = (one for one in listed if str(one).endswith("grpc/model_config_pb2.py"))
    spec = importlib.util.spec_from_file_location("model_config_pb2", found.locate())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(path: Path, checkpoint: Checkpoint, pictured: bool = False, **how: Any) -> Path:
    model = to_onnx(checkpoint, opset=17, token_counts=True, **how)
    if pictured:
        rule = Preprocessing((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 0.9, "bicubic", "center")
        put_before(model, checkpoint.geometry.input_size, rule, 17)
    onnx.save(model, path)
    return path


def agrees(protobuf: Any, model: Path, place: Path, batch: int) -> Any:
    """The configuration says what onnxruntime says of the copy, and what comes out of it."""
    made = serve_config(model, place)
    config = text_format.Parse((made.folder / "config.pbtxt").read_text(), protobuf.ModelConfig())
    assert (config.name, config.backend) == (model.stem, "onnxruntime")
    copy = made.folder / "1" / config.default_model_filename
    assert copy.read_bytes() == model.read_bytes()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(copy, options, providers=["CPUExecutionProvider"])
    (images,), skipped = session.get_inputs(), 1 if config.max_batch_size else 0
    shape = (batch, *(side if isinstance(side, int) else 40 for side in images.shape[1:]))
    pixels = np.zeros(shape, NUMBERS[KINDS[images.type]])
    given = session.run(None, {images.name: pixels})
    assert [one.name for one in config.output] == [one.name for one in session.get_outputs()]
    for one, told in zip(
        [images, *session.get_outputs()], [*config.input, *config.output], strict=True
    ):
        assert protobuf.DataType.Name(told.data_type) == KINDS[one.type]
        assert [n if isinstance(n, int) else -1 for n in one.shape[skipped:]] == list(told.dims)
    for array, told in zip(given, config.output, strict=True):
        axes = zip(array.shape[skipped:], told.dims, strict=True)
        assert all(wanted in (found, -1) for found, wanted in axes)
    for warm in config.model_warmup:
        sides = [side if side > 0 else 256 for side in config.input[0].dims]
        assert list(warm.inputs[images.name].dims) == sides
        assert warm.batch_size in {1, config.max_batch_size or 1}
    return config


@pytest.mark.parametrize("family", families.names())
def test_every_family_and_mode(
    protobuf: Any, shallow_digits: Digits, tmp_path: Path, family: str
) -> None:
    """Each mode once, several in a file: what they change of a file are different things."""
    learned = shallow_digits(family)
    inside = {at: step for at, step in learned.plan.before.items() if at < learned.vit.depth}
    learned = replace(learned, plan=replace(learned.plan, before=inside))
    outputs = plan_outputs.of(learned.geometry, learned.plan)
    modes: list[tuple[str, Checkpoint, dict[str, Any]]] = [
        ("single half outputs", learned, SINGLE | {"outputs": outputs}),
        ("int8 pictures", learned, {"precision": unmeasured(vit=learned.vit), "pictured": True}),
    ]
    if families.load(family).varies:
        static = replace(learned, plan=learned.plan.within((40, 30, 20)))
        modes.append(("budget outputs", static, {"outputs": outputs}))
    for mode, checkpoint, how in modes:
        model = written(tmp_path / f"{mode.replace(' ', '_')}.onnx", checkpoint, **how)
        single = "batch_size" in how
        config = agrees(protobuf, model, tmp_path / "r", 1 if single else 2)
        most = 0 if single else 32
        assert (config.max_batch_size, config.HasField("dynamic_batching")) == (most, most > 0)
        names = [one.name for one in config.output if one.name != "overflow"]  # of a budget
        assert names == [
            *how.get("outputs", plan_outputs.default(learned.geometry)),
            "token_counts",
        ]
        (images,) = config.input
        kind = protobuf.DataType.Name(images.data_type)
        assert kind == (
            "TYPE_UINT8" if "pictured" in how else "TYPE_FP16" if single else "TYPE_FP32"
        )
    assert len(list((tmp_path / "r").iterdir())) == len(modes)


def test_what_is_stated_stands_there(
    protobuf: Any, shallow_digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "m.onnx", shallow_digits("m"))
    told = succeeded(ltmp(
        "serve-config", "m.onnx", "--triton", "r", "--name", "ViT_1", "--max-batch-size", "8",
        "--max-queue-delay", "0", "--instances", "3", "--gpu", "--threads", "2",
        "--kserve", "k.yaml", "--storage-uri", "s3://bucket/models",
    ))  # fmt: skip
    assert "r/ViT_1: config.pbtxt, preprocessing.json, 1/model.onnx; batches of up to 8" in told
    text = Path("r/ViT_1/config.pbtxt").read_text()
    config = text_format.Parse(text, protobuf.ModelConfig())
    assert (config.name, config.max_batch_size) == ("ViT_1", 8)
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    (group,) = config.instance_group
    assert (group.count, protobuf.ModelInstanceGroup.Kind.Name(group.kind)) == (3, "KIND_GPU")
    assert config.parameters["intra_op_thread_count"].string_value == "2"
    manifest = yaml.safe_load(Path("k.yaml").read_text())
    assert manifest["metadata"]["name"] == "vit-1"
    assert manifest["spec"]["predictor"]["model"]["storageUri"] == "s3://bucket/models"


def test_refused(shallow_digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "m.onnx", shallow_digits("m"))
    written(tmp_path / "one.onnx", shallow_digits("ltmp"), batch_size=1)
    Path("full/m").mkdir(parents=True)
    Path("full/m/config.pbtxt").touch()
    Path("file").touch()
    before = left(tmp_path)
    for arguments, message in (
        (["m.onnx"], "say where the model goes: --triton REPOSITORY"),
        (["no.onnx", "--triton", "r"], "no.onnx does not exist"),
        (["file", "--triton", "r"], "file is empty"),
        (["m.onnx", "--triton", "full"], "full/m is there already"),
        (["m.onnx", "--triton", "file"], "file"),
        (["m.onnx", "--triton", "r", "--name", "../up"], "model name '../up'"),
        (["one.onnx", "--triton", "r", "--max-batch-size", "4"], "batches of 1 only"),
        (["m.onnx", "--triton", "r", "--max-batch-size", "0"], "expected 1 to 1024"),
        (["m.onnx", "--triton", "r", "--max-queue-delay", "-1"], "expected microseconds"),
        (["m.onnx", "--triton", "r", "--kserve", "k.yaml"], "needs both"),
        (["m.onnx", "--triton", "r", "--kserve", "k", "--storage-uri", "here"], "--storage-uri"),
        (["m.onnx", "--triton", "r", "--name", "1", "--kserve", "k", "--storage-uri", "s3://b"],
         "makes no name of Kubernetes"),
    ):  # fmt: skip
        refused(ltmp("serve-config", *arguments), message)
        assert left(tmp_path) == before


FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


def prepared(picture: Image.Image, steps: list[dict[str, Any]]) -> NDArray[np.float32]:
    """What a client makes of a picture that knows nothing but the JSON."""
    orient, convert, resize, crop, scale, normalise, transpose = steps
    assert (orient["by"], scale["divide_by"], transpose["to"]) == ("EXIF", 255, "CHW")
    shown = picture.convert(convert["mode"])
    width, height = shown.size
    if not resize["keep_ratio"]:
        size = (resize["width"], resize["height"])
    elif "shorter_side" in resize:
        short = resize["shorter_side"]
        longer = int(short * max(width, height) / min(width, height))
        size = (short, longer) if width <= height else (longer, short)
    else:
        ratios = (width / resize["width"], height / resize["height"])
        ratio = min(ratios) if resize["fit"] == "cover" else max(ratios)
        size = (round(width / ratio), round(height / ratio))
    whole = shown.resize(size, FILTERS[resize["interpolation"]])
    canvas = Image.new(convert["mode"], (crop["width"], crop["height"]), tuple(crop["fill"]))
    corner = [
        (wanted - side) // 2 if wanted > side else -round((side - wanted) / 2)
        for wanted, side in zip(canvas.size, size, strict=True)
    ]
    canvas.paste(whole, (corner[0], corner[1]))
    values = np.asarray(canvas, np.float32) / np.float32(255)
    mean, std = (np.array(normalise[key], np.float32) for key in ("mean", "std"))
    made: NDArray[np.float32] = ((values - mean) / std).transpose(2, 0, 1)
    return made


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0, 1.2])
def test_a_client_that_reads_the_json(
    shallow_digits: Digits, tmp_path: Path, crop_mode: str, crop_pct: float
) -> None:
    exported = read_exported(written(tmp_path / "m.onnx", shallow_digits("m")))
    rule = Preprocessing((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), crop_pct, "bicubic", crop_mode)
    exported = replace(exported, preprocessing=rule)
    told = json.loads(json.dumps(preparation(exported, signature(exported), "RGB")))
    transform = pictures.evaluation_transform(exported.geometry, rule)
    for size in ((40, 57), (61, 33), (32, 32), (9, 11)):
        noise = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
        picture = Image.fromarray(noise)
        own = prepared(picture, told["steps"])
        np.testing.assert_allclose(own, transform(picture).numpy(), rtol=0, atol=1e-6)
    assert told["input"]["shape"] == ["batch", 3, 32, 32]
    assert told["assumed"] == []


def test_a_name_that_is_none() -> None:
    with pytest.raises(InputError, match="model name ''"):
        Deployment("")
