"""The shape of a bench report; never speed itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ltmp_export import inputs, latency, macs, onnx_export
from ltmp_export.checkpoint import Checkpoint
from ltmp_export.errors import ExportError, InputError, UnavailableError
from ltmp_export.latency import Settings
from ltmp_export.vit import Vit

DEIT_S = Vit(
    "deit_small_patch16_224",
    (224, 224), (16, 16), 3, 1000, 12, 384, 1536, 6, 64, 1e-6, "gelu", "token",
)  # fmt: skip


def test_macs_of_deit_small() -> None:
    assert macs.dense_macs(DEIT_S) == pytest.approx(4.60e9, rel=1e-3)
    counts = [197, 150, 100, 90, 80, 70, 60, 50, 40, 30, 20, 10]
    by_hand = 196 * 16 * 16 * 3 * 384 + 1000 * 384
    for before, after in zip([197, *counts[:-1]], counts, strict=True):
        by_hand += 4 * before * 384**2 + 2 * before**2 * 384 + 8 * after * 384**2
    assert macs.macs(DEIT_S, counts) == by_hand


@pytest.fixture(scope="module")
def exported(digits: Callable[[str], Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "model.onnx"
    path.write_bytes(onnx_export.to_onnx(digits("ltmp"), opset=17).SerializeToString())
    return path


def measure(exported: Path, count: int, settings: Settings) -> latency.BenchReport:
    model = onnx_export.read_exported(exported)
    images = inputs.embedded_digits().select(count)
    baseline = onnx_export.dense_baseline(model)
    return latency.measure(
        model.proto, model.vit, images, settings, name="m", baseline=baseline, baseline_name="dense"
    )


def test_report(exported: Path, golden: dict[str, np.ndarray]) -> None:
    settings = Settings(batch_sizes=(1, 4), threads=1, warmup=2, iterations=3)
    found = measure(exported, 6, settings)
    assert [(t.model, t.batch_size) for t in found.timings] == [
        ("reduced", 1), ("dense", 1), ("reduced", 4), ("dense", 4),
    ]  # fmt: skip
    assert [t.runs for t in found.timings] == [18, 18, 6, 6]  # 6 images are 2 batches of 4
    for timing in found.timings:
        assert 0 < timing.p10 <= timing.median <= timing.p90
        assert timing.images_per_second == pytest.approx(1e3 / timing.median)
        assert len(timing.per_image) == 6
    rows = np.linspace(0, 47, 6).round().astype(int)
    np.testing.assert_array_equal(found.tokens, golden["ltmp_counts"][rows])
    model = onnx_export.read_exported(exported)
    executed = np.mean([macs.macs(model.vit, row) for row in found.tokens]) / 1e9
    assert found.gmacs == pytest.approx(executed)
    assert found.gmacs < found.dense_gmacs
    assert (found.provider, found.threads) == ("CPUExecutionProvider", 1)
    assert found.accuracy is not None
    assert found.baseline_accuracy is not None
    assert found.speedup(4) == found.timings[3].median / found.timings[2].median
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["schema_version"] == latency.SCHEMA_VERSION
    assert document["speedup"].keys() == {"1", "4"}


def test_without_labels_or_baseline(exported: Path) -> None:
    model = onnx_export.read_exported(exported)
    images = inputs.synthetic(model.vit, 2)
    settings = Settings(warmup=0, iterations=1)
    found = latency.measure(model.proto, model.vit, images, settings, name="m")
    assert found.baseline is None
    assert found.accuracy is None
    assert found.speedup(1) is None
    assert len(found.timings) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_sizes": ()}, "batch size is 0"),
        ({"batch_sizes": (1, 0)}, "batch size is 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"warmup": -1}, "warmup is -1"),
    ],
)
def test_settings_are_checked(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**settings)  # type: ignore[arg-type]


def test_missing_provider(exported: Path) -> None:
    with pytest.raises(UnavailableError, match="no execution provider NoSuchProvider"):
        measure(exported, 1, Settings(providers=("NoSuchProvider",)))


def test_onnxruntime_errors_are_wrapped(exported: Path) -> None:
    model = onnx_export.read_exported(exported)
    wrong = inputs.Images(np.zeros((1, 3, 8, 8), np.float32), None, ("x",), "test")
    with pytest.raises(ExportError, match="onnxruntime fails on images of shape"):
        latency.measure(model.proto, model.vit, wrong, Settings(), name="m")
