"""ONNX file → sessions → latency → report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx

from ltmp_export import files, inputs, latency, onnx_export, runtime
from ltmp_export.latency import BenchReport, Settings
from ltmp_export.pipeline.stages import DIGITS, Progress, silent


def bench(
    model: str | Path,
    *,
    images: str | Path | None = None,
    samples: int | None = None,
    baseline: str | Path | None = "dense",
    settings: Settings | None = None,
    progress: Progress = silent,
) -> BenchReport:
    """Time an exported file per image, against the dense model of the same weights.

    Args:
        model: File written by `export`.
        images: A folder of pictures or an `.npz`, see `inputs.load_images`.
        samples: Time at most so many images; all by default.
        baseline: "dense" for the dense model of the same weights, an ONNX file, or None.
        settings: Batch sizes, threads, runs and providers.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file cannot be used.
        UnavailableError: A provider is missing.
        ExportError: onnxruntime does not run a model.
    """
    exported = onnx_export.read_exported(Path(model))
    source = None if images is None else Path(images)
    chosen = inputs.load_images(source, exported.vit, exported.preprocessing, samples)
    if source is None and exported.checkpoint_sha256 != files.sha256(inputs.fixture(DIGITS)):
        chosen = replace(chosen, labels=None)  # another model's classes need not be digits
    other: onnx.ModelProto | None = None
    if baseline == "dense":
        progress("writing the dense model of the same weights")
        other = onnx_export.dense_baseline(exported)
    elif baseline is not None:
        other = onnx_export.read_onnx(Path(baseline))
        runtime.require_images(other, str(baseline), exported.vit.input_size)
    progress(f"timing {len(chosen)} images")
    return latency.measure(
        exported.proto,
        exported.vit,
        chosen,
        settings or Settings(),
        name=str(model),
        baseline=other,
        baseline_name=None if baseline is None else str(baseline),
    )
