"""Times as they are measured: the shape of a report, never speed itself."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from torch import Tensor

from ltmp_export import bench, load_checkpoint
from ltmp_export.errors import ExportError, InputError, UnavailableError
from ltmp_export.images import inputs
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import read_exported, to_onnx
from ltmp_export.plan import work
from ltmp_export.reference import Reference
from ltmp_export.timing.measure import measure
from ltmp_export.timing.profiling import Profile
from ltmp_export.timing.report import BenchReport
from ltmp_export.timing.settings import Settings
from ltmp_export.timing.threads import best
from tests.conftest import DIGITS_LTMP

ONCE = Settings(warmup=0, iterations=1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "model.onnx"
    model = to_onnx(load_checkpoint(DIGITS_LTMP), opset=17)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def found(exported: Path) -> BenchReport:
    """A report with everything that is measured on one file."""
    settings = Settings(
        batch_sizes=(1, 4), threads=1, warmup=2, iterations=3, profile=True, roofline=True
    )
    return bench(exported, samples=6, settings=settings)


def silent(message: str) -> None:
    """Progress for nobody."""


def test_timings(found: BenchReport) -> None:
    labels = ("reduced", "dense", "linear layers")
    assert [(t.model, t.batch_size) for t in found.timings] == [
        (label, size) for size in (1, 4) for label in labels
    ]
    for timing in found.timings:
        batches = 6 if timing.batch_size == 1 else 2
        assert np.shape(timing.samples) == (3, batches)
        assert len(timing.per_image) == 6
        assert 0 < timing.best <= timing.quantile(0.99)
        assert timing.noise is not None
    assert found.speedup(4) == found.timings[4].best / found.timings[3].best


def test_work_is_counted_from_the_tokens_seen(
    exported: Path, found: BenchReport, digit_images: Tensor
) -> None:
    rows = np.linspace(0, 47, 6).round().astype(int)
    checkpoint = load_checkpoint(DIGITS_LTMP)
    reference = Reference(checkpoint.model, checkpoint.plan)
    counts = [reference.run(image).counts for image in digit_images[rows]]
    np.testing.assert_array_equal(found.tokens, counts)
    vit = read_exported(exported).vit
    executed = np.array([work.macs(vit, row) for row in found.tokens]) / 1e9
    assert found.image_gmacs == pytest.approx(executed)
    assert found.gmacs == pytest.approx(executed.mean())
    assert 0 < np.mean(found.image_gemm_gmacs) < found.gmacs < found.dense_gmacs


def test_conditions(found: BenchReport) -> None:
    assert (found.provider, found.threads) == ("CPUExecutionProvider", 1)
    assert set(found.placement) == {"CPUExecutionProvider"}
    assert found.accuracy is not None
    assert found.baseline_accuracy is not None
    assert [entry.label for entry in found.entries] == ["reduced", "dense", "linear layers"]
    for entry in found.entries:
        assert entry.reason == ""
        assert entry.engine.startswith("onnxruntime ")
        assert entry.peak_mb is None or 20 < entry.peak_mb < 500  # no torch in there


def test_profile(found: BenchReport) -> None:
    profile = found.profile
    assert isinstance(profile, Profile)
    assert profile.images == 6
    assert [share.name for share in profile.blocks][:3] == ["embed", "block_00", "block_01"]
    assert {"Gemm", "LayerNormalization"} <= {share.name for share in profile.operators}
    for shares in (profile.operators, profile.blocks):
        assert sum(share.share for share in shares) == pytest.approx(1)
        assert sum(share.calls for share in shares) == sum(found.placement.values())


def test_json_is_as_the_schema_says(found: BenchReport, exported: Path) -> None:
    path = resources.files("ltmp_export") / "schemas" / "bench.schema.json"
    schema = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    plain = bench(exported, samples=2, baseline=None, settings=ONCE)
    for report in (found, plain):
        document = json.loads(json.dumps(report.to_json(), allow_nan=False))
        jsonschema.validate(document, schema)
    for key in schema["required"]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({k: v for k, v in document.items() if k != key}, schema)


def test_threads_are_tried(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltmp_export.timing.threads.ROUNDS", 1)
    monkeypatch.setattr("ltmp_export.timing.measure.session.processor_count", lambda: 2)
    settings = Settings(threads="auto", batch_sizes=(1, 2), warmup=0, iterations=1)
    found = bench(exported, samples=2, settings=settings)
    assert [(t.model, t.batch_size, t.threads) for t in found.threads_tried] == [
        (model, size, count)
        for model in ("reduced", "dense")
        for size in (1, 2)
        for count in (1, 2)
    ]
    assert found.threads == best(found.threads_tried)
    assert all(one.best > 0 for one in found.threads_tried)
    schema = resources.files("ltmp_export") / "schemas" / "bench.schema.json"
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    jsonschema.validate(document, json.loads(schema.read_text()))
    assert len(document["threads_tried"]) == 8


def test_without_labels_or_baseline(exported: Path) -> None:
    model = read_exported(exported)
    found = measure(model, inputs.synthetic(model.vit, 2), ONCE, progress=silent)
    assert (found.baseline, found.accuracy, found.speedup(1)) == (None, None, None)
    assert (found.efficiency(1), found.roofline(1), found.profile) == (None, None, None)
    assert len(found.timings) == 1


def test_a_baseline_named_as_the_model(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "reduced").write_bytes(exported.read_bytes())
    with pytest.MonkeyPatch.context() as here:
        here.chdir(tmp_path)
        found = bench(exported, samples=2, baseline="reduced", settings=ONCE)
    assert found.baseline == "./reduced"
    assert [timing.model for timing in found.timings] == ["reduced", "./reduced"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_sizes": ()}, "batch size is 0"),
        ({"batch_sizes": (1, 0)}, "batch size is 0"),
        ({"batch_sizes": (2, 2)}, "one is there twice"),
        ({"iterations": 0}, "iterations is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": 10**30}, "expected at most 4096"),
        ({"threads": "all"}, "threads 'all'; expected a number, or auto"),
        ({"warmup": -1}, "warmup is -1"),
        ({"providers": ()}, "no execution provider given"),
        ({"scenario": "server"}, "no scenario 'server'; choose single-stream or offline"),
        ({"scenario": "single-stream", "batch_sizes": (1, 8)}, "drop the batch sizes 1,8"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**settings)


@pytest.mark.parametrize(
    ("scenario", "sizes"), [(None, (1,)), ("single-stream", (1,)), ("offline", (1, 8, 32))]
)
def test_sizes_of_a_scenario(scenario: Any, sizes: tuple[int, ...]) -> None:
    assert Settings(scenario=scenario).sizes == sizes


def test_missing_provider(exported: Path) -> None:
    with pytest.raises(UnavailableError, match="no execution provider NoSuchProvider"):
        bench(exported, settings=Settings(providers=("NoSuchProvider",)))


def test_a_provider_that_runs_nothing(exported: Path) -> None:
    import onnxruntime

    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no provider that runs nothing")
    settings = Settings(providers=("azure", "cpu"))
    with pytest.raises(UnavailableError, match=r"Azure.* runs none .*: CPUExecutionProvider runs"):
        bench(exported, samples=1, settings=settings)


def test_onnxruntime_errors_are_wrapped(exported: Path) -> None:
    model = read_exported(exported)
    wrong = Images(np.zeros((1, 3, 8, 8), np.float32), None, ("x",), "test")
    with pytest.raises(ExportError, match="onnxruntime fails on images of shape"):
        measure(model, wrong, ONCE, progress=silent)


def test_a_baseline_that_does_not_run(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    weight = next(t for t in model.graph.initializer if t.name == "blocks.2.mlp.fc2.weight")
    weight.dims[:] = [weight.dims[0] // 2, weight.dims[1] * 2]
    onnx.save(model, tmp_path / "broken.onnx")
    with pytest.raises(ExportError, match=r"broken.onnx does not run: .*ONNXRuntimeError"):
        bench(exported, samples=1, baseline=tmp_path / "broken.onnx", settings=ONCE)


def fix_batch(source: Path, target: Path) -> Path:
    model = onnx.load(source)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, target)
    return target


def test_a_file_for_single_images(exported: Path, tmp_path: Path) -> None:
    single = fix_batch(exported, tmp_path / "single.onnx")
    assert bench(single, samples=2, settings=ONCE).speedup(1) is not None
    assert bench(exported, samples=2, baseline=single, settings=ONCE).speedup(1) is not None
    message = "single.onnx takes batches of 1 only, asked for 2, 8; give --batch-size 1"
    sizes = Settings(batch_sizes=(1, 2, 8))
    with pytest.raises(InputError, match=message):
        bench(single, settings=sizes)
    with pytest.raises(InputError, match=message):
        bench(exported, baseline=single, settings=sizes)
