"""From a timm model or an LTMP checkpoint to an exact, dynamic ONNX model.

    from ltmp_export import load_checkpoint, export, check, bench

    export("checkpoint.pth.tar", "model.onnx", opset=17)
    report = check("model.onnx", "checkpoint.pth.tar")
    print(report.verdict, bench("model.onnx").speedup(1))

`ltmp_export.finetune` holds the function of that name: `python -m` starts it, too.
Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltmp_export.calibration.targets import Spread
    from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
    from ltmp_export.commands.bench import bench
    from ltmp_export.commands.calibrate import CalibrateReport, calibrate
    from ltmp_export.commands.check import check, replay
    from ltmp_export.commands.compare import compare
    from ltmp_export.commands.compared import CompareReport
    from ltmp_export.commands.demo import demo
    from ltmp_export.commands.eval import EvalReport, evaluate
    from ltmp_export.commands.export import ExportReport, export
    from ltmp_export.commands.inputs import InputsReport, inputs
    from ltmp_export.commands.inspect import inspect
    from ltmp_export.commands.latency import calibrate_latency
    from ltmp_export.commands.models import models
    from ltmp_export.commands.report import PageReport, report
    from ltmp_export.commands.runtime_table import runtime_table
    from ltmp_export.commands.serve_config import ServeConfigReport, serve_config
    from ltmp_export.commands.show import show
    from ltmp_export.commands.time_table import time_table
    from ltmp_export.commands.web import WebReport, web
    from ltmp_export.distributed.cluster import Place
    from ltmp_export.drawing.report import ShowReport
    from ltmp_export.errors import (
        CheckFailedError,
        ExportError,
        InputError,
        LtmpError,
        UnavailableError,
    )
    from ltmp_export.files.memory import memory_limit
    from ltmp_export.parity.report import CheckReport
    from ltmp_export.serving.triton import Deployment
    from ltmp_export.statements.choices import Choices
    from ltmp_export.timing.goal import Wanted
    from ltmp_export.timing.report import BenchReport
    from ltmp_export.timing.settings import Settings

_HOME = {
    "checkpoint.load": ("Checkpoint", "load_checkpoint"),
    "statements.choices": ("Choices",),
    "files.memory": ("memory_limit",),
    "errors": ("CheckFailedError", "ExportError", "InputError", "LtmpError", "UnavailableError"),
    "commands.inputs": ("InputsReport", "inputs"),
    "commands.inspect": ("inspect",),
    "commands.latency": ("calibrate_latency",),
    "commands.models": ("models",),
    "commands.report": ("PageReport", "report"),
    "commands.runtime_table": ("runtime_table",),
    "commands.serve_config": ("ServeConfigReport", "serve_config"),
    "commands.show": ("show",),
    "commands.time_table": ("time_table",),
    "commands.web": ("WebReport", "web"),
    "distributed.cluster": ("Place",),
    "drawing.report": ("ShowReport",),
    "parity.report": ("CheckReport",),
    "calibration.targets": ("Spread",),
    "commands.calibrate": ("CalibrateReport", "calibrate"),
    "commands.check": ("check", "replay"),
    "commands.compare": ("compare",),
    "commands.compared": ("CompareReport",),
    "commands.eval": ("EvalReport", "evaluate"),
    "commands.export": ("ExportReport", "export"),
    "commands.demo": ("demo",),
    "commands.bench": ("bench",),
    "serving.triton": ("Deployment",),
    "timing.goal": ("Wanted",),
    "timing.report": ("BenchReport",),
    "timing.settings": ("Settings",),
}

__all__ = [
    "BenchReport",
    "CalibrateReport",
    "CheckFailedError",
    "CheckReport",
    "Checkpoint",
    "Choices",
    "CompareReport",
    "Deployment",
    "EvalReport",
    "ExportError",
    "ExportReport",
    "InputError",
    "InputsReport",
    "LtmpError",
    "PageReport",
    "Place",
    "ServeConfigReport",
    "Settings",
    "ShowReport",
    "Spread",
    "UnavailableError",
    "Wanted",
    "WebReport",
    "bench",
    "calibrate",
    "calibrate_latency",
    "check",
    "compare",
    "demo",
    "evaluate",
    "export",
    "inputs",
    "inspect",
    "load_checkpoint",
    "memory_limit",
    "models",
    "replay",
    "report",
    "runtime_table",
    "serve_config",
    "show",
    "time_table",
    "web",
]


def __getattr__(name: str) -> Any:
    for module, exported in _HOME.items():
        if name in exported:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
