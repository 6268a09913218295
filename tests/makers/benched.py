"""Made-up samples and reports, for what needs no measuring."""

from __future__ import annotations

from typing import Any

from ltmp_export.timing.contenders import DENSE, REDUCED
from ltmp_export.timing.machine import Environment
from ltmp_export.timing.report import BenchReport, Entry
from ltmp_export.timing.statistics import Timing

ENVIRONMENT = Environment("A CPU", 2, "Linux x86_64", "1.31.1", ("CPUExecutionProvider",))


def made_report(samples: dict[tuple[str, int], Any], **changes: Any) -> BenchReport:
    """A report of 3 images of 10, 20 and 30 tokens in each of two blocks, from samples.

    Args:
        samples: [rounds][batches] by model and batch size.
        changes: Fields that differ.
    """
    timings = [
        Timing(model, size, 3, tuple(map(tuple, rounds)))
        for (model, size), rounds in samples.items()
    ]
    labels = dict.fromkeys(timing.model for timing in timings)
    fields: dict[str, Any] = {
        "model": "m.onnx",
        "outputs": ("logits",),
        "precision": "fp32",
        "baseline": DENSE if DENSE in labels else None,
        "scenario": None,
        "provider": "CPUExecutionProvider",
        "providers": ("CPUExecutionProvider",),
        "placement": {"CPUExecutionProvider": 9},
        "threads": 2,
        "images": "made up",
        "images_sha256": "0",
        "names": ("a", "b", "c"),
        "tokens": ((10, 10), (20, 20), (30, 30)),
        "initial_tokens": 40,
        "image_gmacs": (1.0, 2.0, 3.0),
        "dense_gmacs": 4.0,
        "image_gemm_gmacs": (0.5, 1.5, 2.5),
        "accuracy": None,
        "baseline_accuracy": None,
        "calibration": None,
        "entries": tuple(Entry(label, "onnxruntime 1.31.1") for label in labels),
        "timings": tuple(timings),
        "profile": None,
        "environment": ENVIRONMENT,
    }
    return BenchReport(**fields | changes)


def steady(model: float, dense: float, rounds: int = 10) -> dict[tuple[str, int], Any]:
    """Samples of the model and the dense one that hardly differ from round to round."""
    wobble = [1 + 0.001 * (i % 3) for i in range(rounds)]
    return {
        (REDUCED, 1): [[model * w] * 3 for w in wobble],
        (DENSE, 1): [[dense * w] * 3 for w in wobble],
    }
