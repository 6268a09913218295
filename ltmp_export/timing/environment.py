"""The machine that times were taken on."""

from __future__ import annotations

import platform
from pathlib import Path

import onnxruntime as ort

from ltmp_export.runtimes import session
from ltmp_export.timing.machine import Environment


def environment() -> Environment:
    """The machine this process runs on."""
    return Environment(
        processor=_processor(),
        processors=session.processor_count(),
        system=f"{platform.system()} {platform.machine()}",
        onnxruntime=ort.__version__,
        available_providers=tuple(ort.get_available_providers()),
    )


def _processor() -> str:
    """The CPU's name; Linux tells it in /proc/cpuinfo only."""
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        for line in listed.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
