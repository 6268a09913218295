"""Everything on the embedded example."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.commands.bench import bench
from ltmp_export.commands.check import check
from ltmp_export.commands.export import ExportReport, export
from ltmp_export.commands.report import PageReport, gathered, measured_margins, write
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.images import inputs
from ltmp_export.model_file.model import read_exported
from ltmp_export.parity.report import CheckReport
from ltmp_export.progress import Progress, silent
from ltmp_export.timing.report import BenchReport
from ltmp_export.timing.settings import AUTO, Settings

PAGE = "report.html"


@dataclass(frozen=True)
class DemoReport:
    """The three reports of the embedded example; a model of real size follows (`real_size`)."""

    export: ExportReport
    check: CheckReport
    bench: BenchReport
    page: PageReport


def demo(folder: str | Path, progress: Progress = silent) -> DemoReport:
    """Export, check and time the embedded digits checkpoint, and tell of it on a page.

    It is timed with as many threads as are best for it.

    Args:
        folder: Where `digits_ltmp.pth.tar` (a copy of the checkpoint), `model.onnx` and
            `report.html` go; it is made if it does not exist.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: The folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise InputError(f"cannot make the folder {folder}: {err.strerror}") from err
    disk.write_bytes(folder / inputs.DIGITS, inputs.fixture(inputs.DIGITS).read_bytes())
    checkpoint = load_checkpoint(folder / inputs.DIGITS)
    exported = export(checkpoint, folder / "model.onnx", progress=progress)
    checked = check(exported.output, checkpoint, samples=48, progress=progress)
    timed = bench(exported.output, settings=Settings(threads=AUTO), progress=progress)
    chosen = inputs.embedded_digits()
    known: dict[str, Any] = {
        "check": checked,
        "bench": timed,
        "margins": measured_margins(checkpoint, chosen, progress),
    }
    model = read_exported(exported.output)
    told = gathered(model, chosen, timed.threads, progress, pictures=False, **known)
    return DemoReport(exported, checked, timed, write(folder / PAGE, told))
