"""Exports a model beyond 2 GB in a process of its own, and says what it took.

    python -m tests.makers.huge FOLDER

ViT-huge with random weights is written to FOLDER as `model.onnx` and its data, and read by what a
user has: the ONNX checker, onnxruntime, this package. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime as ort

import ltmp_export
from ltmp_export import families
from ltmp_export.backbones.vit import describe
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.commands import export as export_command
from ltmp_export.files import disk
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.statements.choices import Choices
from tests.makers.make_checkpoint import random_vit

NAME = "vit_huge_patch14_224"
SIDE = 56  # pixels: 16 patches of ViT-huge's 256, and as many weights
THRESHOLDS = {"merge": 0.9, "prune": 0.03}
IMAGES = 2


def checkpoint(path: Path) -> Checkpoint:
    """ViT-huge as if it had been read from `path`, where next to nothing is."""
    path.write_bytes(b"stands for 2.5 GB")
    model = random_vit(NAME, 0, num_classes=1000, img_size=SIDE)
    shape = describe.describe(model, NAME)
    plan = families.load("ltmp").freeze({k: [v] * shape.depth for k, v in THRESHOLDS.items()})
    return Checkpoint(
        path=path,
        sha256=disk.sha256(path),
        base_sha256=None,
        arch=f"ltmp_{NAME}",
        plan=plan,
        geometry=shape,
        model=model,
        preprocessing=Preprocessing((0.5,) * 3, (0.5,) * 3, 0.9, "bicubic"),
        label_names=None,
        choices=Choices(),
        found=(),
        notes=(),
        warnings=(),
    )


def peak_gib() -> float:
    """The most memory this process has taken."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**20


def export(folder: Path) -> dict[str, Any]:
    """Export it with a check on few images."""
    started = time.monotonic()
    with mock.patch.object(export_command, "QUICK_SAMPLES", IMAGES):
        report = ltmp_export.export(checkpoint(folder / "ckpt"), folder / "model.onnx")
    if report.check is None or report.data is None:
        raise ValueError("neither checked nor split")
    return {
        "verdict": report.check.verdict,
        "tokens": [comparison.counts[-1] for comparison in report.check.comparisons],
        "bytes": report.bytes,
        "data": report.data.name,
        "export_seconds": round(time.monotonic() - started),
        "export_peak_gib": round(peak_gib(), 1),
    }


def use(path: Path) -> dict[str, Any]:
    """Read it as others do."""
    started = time.monotonic()
    onnx.checker.check_model(str(path), full_check=True)
    facts = ltmp_export.inspect(path)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    [logits] = session.run(None, {"images": np.zeros((2, 3, SIDE, SIDE), np.float32)})
    return {
        "depth": facts["vit"]["depth"],
        "logits": list(logits.shape),
        "use_seconds": round(time.monotonic() - started),
        "peak_gib": round(peak_gib(), 1),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    print(json.dumps(export(folder) | use(folder / "model.onnx")))


if __name__ == "__main__":
    main()
