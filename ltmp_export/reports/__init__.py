"""Reports shown: tables for people, JUnit and annotations for CI, JSON for scripts."""

from ltmp_export.reports.bench import bench_summary
from ltmp_export.reports.check import check_summary
from ltmp_export.reports.ci import github_annotations, to_junit
from ltmp_export.reports.comparison import compare_summary
from ltmp_export.reports.demo import demo_summary, real_size_summary
from ltmp_export.reports.documents import to_json
from ltmp_export.reports.export import export_summary
from ltmp_export.reports.inspection import inspect_summary
from ltmp_export.reports.learning import calibrate_summary, eval_summary, finetune_summary
from ltmp_export.reports.methods import methods_plot, methods_summary
from ltmp_export.reports.models import models_summary, timm_summary
from ltmp_export.reports.pages import page_summary
from ltmp_export.reports.plots import bench_plot, sweep_plot
from ltmp_export.reports.plotted import require_plot
from ltmp_export.reports.show import show_summary
from ltmp_export.reports.sites import web_summary
from ltmp_export.reports.times import time_table_summary

__all__ = [
    "bench_plot",
    "bench_summary",
    "calibrate_summary",
    "check_summary",
    "compare_summary",
    "demo_summary",
    "eval_summary",
    "export_summary",
    "finetune_summary",
    "github_annotations",
    "inspect_summary",
    "methods_plot",
    "methods_summary",
    "models_summary",
    "page_summary",
    "real_size_summary",
    "require_plot",
    "show_summary",
    "sweep_plot",
    "time_table_summary",
    "timm_summary",
    "to_json",
    "to_junit",
    "web_summary",
]
