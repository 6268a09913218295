"""The commands as functions: the only place that chains the stages."""

from ltmp_export.calibration.targets import Spread
from ltmp_export.pipeline.calibrating import CalibrateReport, calibrate
from ltmp_export.pipeline.checking import check, replay
from ltmp_export.pipeline.evaluating import EvalReport, evaluate
from ltmp_export.pipeline.exporting import ExportReport, export
from ltmp_export.pipeline.finetuning import FinetuneReport, finetune
from ltmp_export.pipeline.showing import DemoReport, demo
from ltmp_export.pipeline.timing import bench

__all__ = [
    "CalibrateReport",
    "DemoReport",
    "EvalReport",
    "ExportReport",
    "FinetuneReport",
    "Spread",
    "bench",
    "calibrate",
    "check",
    "demo",
    "evaluate",
    "export",
    "finetune",
    "replay",
]
