"""ONNX file → the same at other token counts → times as a function of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltmp_export.graph import interface
from ltmp_export.images import inputs
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import ExportedModel, read_exported
from ltmp_export.plan.times import TimeModel
from ltmp_export.progress import Progress, silent
from ltmp_export.timing import fitted, tabulate, variants
from ltmp_export.timing.settings import Settings
from ltmp_export.timing.tables import TimeTable


@dataclass(frozen=True)
class TimeTableReport:
    """Times of a file at several token counts, and what was fitted to them.

    Attributes:
        model: The file.
        table: What was measured.
        fits: For each batch size.
        warnings: Where nothing can be told.
    """

    model: str
    table: TimeTable
    fits: tuple[TimeModel, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The table as `timing.tables.read` takes it; what was fitted follows from it."""
        return self.table.to_json()


def time_table(
    model: str | Path,
    *,
    images: str | Path | Images | None = None,
    samples: int | None = None,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> TimeTableReport:
    """Time an exported file at several token counts, for a calibration that has to meet a time.

    Args:
        model: File written by `export`, of a family with thresholds or of one with an r.
        images: As for `bench`.
        samples: Likewise.
        settings: Batch sizes, threads (a number), rounds and providers.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file cannot be used.
        UnavailableError: A provider is missing, or is not the one that runs.
        ExportError: onnxruntime does not run a model.
    """
    settings = tabulate.resolved(settings or Settings())
    exported = read_exported(Path(model))
    interface.require_batches(exported.proto, str(model), settings.sizes)
    vit = variants.require_variable(exported)
    chosen = inputs.load_images(images, vit, exported.preprocessing, samples)
    subject = tabulate.Subject(
        vit, exported.plan.family, exported.precision.kind, chosen, str(model)
    )
    others = variants.of_file(exported, subject, settings, progress)
    table = tabulate.measure(subject, others, variants.dense(exported), settings, progress)
    fits = tuple(fitted.fit_all(table.batches, vit, str(model)))
    said = (*chosen.remarks, *untimed(exported), *fitted.doubts(table.batches))
    return TimeTableReport(str(model), table, fits, tuple(dict.fromkeys(said)))


def untimed(exported: ExportedModel) -> list[str]:
    """What of a file is not timed."""
    if exported.front is None:
        return []
    return ["the preparation of pictures, which is in the file, is not timed"]
