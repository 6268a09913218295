"""A dense or fine-tuned ViT and some images → thresholds that meet a target → checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ltmp_export.calibration.targets import (
    QUANTILES,
    SHIFT,
    Bench,
    Calibrated,
    Spread,
    by_quantiles,
    by_shift,
)
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.commands import halved
from ltmp_export.commands.stages import family_of
from ltmp_export.distributed.cluster import HERE, Place
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.images import chance
from ltmp_export.progress import Progress, silent
from ltmp_export.statements.choices import Choices
from ltmp_export.timing.goal import Latency
from ltmp_export.training import saving

SCHEMA_VERSION = 1
FEW = 16  # images are too few to take quantiles of


@dataclass(frozen=True)
class CalibrateReport:
    """What a calibration came to.

    Attributes:
        output: The checkpoint written; None for a sweep.
        family: Token-reduction family.
        method: "quantiles" of scores, or "shift" of the thresholds a checkpoint had.
        rows: One for each target.
        calibration: Images whose scores gave the thresholds; 0 for a shift.
        held_out: Images that were measured on.
        images: Where they come from.
        dense_accuracy: Of the dense model, where there are labels.
        knn: Neighbours that vote for a class, of a model without classifier; else None.
        seconds: Time taken.
        notes: What was assumed.
        warnings: What looks wrong.
        latency: Of targets that are times: what was measured.
    """

    output: Path | None
    family: str
    method: str
    rows: tuple[Calibrated, ...]
    calibration: int
    held_out: int
    images: str
    dense_accuracy: float | None
    knn: int | None
    seconds: float
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    latency: Latency | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        output = None if self.output is None else str(self.output)
        document = asdict(replace(self, latency=None)) | {"output": output}
        document["latency"] = None if self.latency is None else self.latency.to_json()
        return document | {"schema_version": SCHEMA_VERSION, "kind": "calibrate"}


def calibrate(
    checkpoint: str | Path,
    images: str | Path,
    targets: Sequence[float],
    output: str | Path | None = None,
    *,
    spread: Spread | None = None,
    name: str | None = None,
    class_map: str | Path | None = None,
    class_order: str | None = None,
    choices: Choices | None = None,
    knn: int | None = None,
    device: str = "auto",
    place: Place = HERE,
    progress: Progress = silent,
) -> CalibrateReport:
    """Find thresholds without training, so that a share of the work is left on images held out.

    Args:
        checkpoint: A dense ViT, a fine-tuned checkpoint, or `timm:NAME`.
        images: A folder of pictures or an `.npz`, labelled or not; see `images.sets`.
        targets: Shares of the dense multiply-accumulates, each in (0, 1].
        output: The checkpoint to write, for a single target.
        spread: How removals are spread over steps and blocks.
        name: What the output calls the dense model, where neither file nor timm knows it.
        class_map: See `images.sets.Kind`.
        class_order: Likewise.
        choices: What the checkpoint does not say; `family` is the one to make, ltmp by default.
        knn: Of a model without classifier, whose agreement with the dense model is the cosine of
            features: neighbours that vote for the class of a labelled image, 20 by default.
        device: See `timing.processes.device_of`.
        place: Where images run, here by default; a cluster finds the same bit for bit.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file or image cannot be used, or a target cannot be met within 0.5 %.
        UnavailableError: There is no such device, or Ray is missing.
        ExportError: Processes of a cluster do not run.
    """
    started, spread = time.perf_counter(), spread or Spread()
    output = None if output is None else Path(output)
    _require_targets(targets, output)
    place.require()
    halves = halved.opened(
        checkpoint, images, output, spread=spread, name=name, class_map=class_map, knn=knn,
        class_order=class_order, choices=choices, device=halved.device_for(place, device),
        progress=progress, suits=family_of,
    )  # fmt: skip
    source, scored, held_out = halves.source, halves.scored, halves.held_out
    family, shift = family_of(source), spread.by_shift(source)
    halved.require_splittable(family, spread)
    with halved.running(halves.subject(family.name), place, progress) as crew:
        bench = Bench(crew, progress, halves.voters)
        maker = by_shift(source) if shift else by_quantiles(crew, spread.shares)
        rows = [bench.meet(target, maker) for target in targets]
    dense = bench.accuracy(bench.dense)
    report = CalibrateReport(
        output=output,
        family=family.name,
        method=SHIFT if shift else QUANTILES,
        rows=tuple(rows),
        calibration=0 if shift else len(scored),
        held_out=len(held_out),
        images=halves.chosen.origin,
        dense_accuracy=dense,
        knn=halves.knn,
        seconds=time.perf_counter() - started,
        notes=source.notes,
        warnings=(
            *source.warnings,
            *halves.chosen.remarks,
            *chance.doubts(dense, len(held_out), source.vit.classes, "top-1 of the dense model"),
            *_doubts(rows, len(scored), shift),
        ),
    )
    if output is not None:
        disk.write_bytes(output, _content(report, source, spread, halves.name))
    return report


def _content(report: CalibrateReport, source: Checkpoint, spread: Spread, name: str) -> bytes:
    """The checkpoint of the one target.

    Raises:
        InputError: It was not met.
    """
    (row,) = report.rows
    if not row.met:
        raise InputError(f"{_missed(row)}; ask for that, or give more images")
    made = {"command": "calibrate", "method": report.method, "spread": asdict(spread)}
    measured = {"target": row.target, "mac_ratio": row.mac_ratio, "agreement": row.agreement}
    return saving.to_bytes(
        source,
        report.family,
        row.thresholds,
        name=name,
        metric=None if row.accuracy is None else 100 * row.accuracy,
        args={"reduction_target": row.target},
        provenance={**made, "result": measured},
    )


def _doubts(rows: Sequence[Calibrated], scored: int, shift: bool) -> Iterator[str]:
    if scored < FEW and not shift:
        yield f"thresholds from {scored} images only; give some hundred (--samples)"
    for row in rows:
        if not row.met:
            yield _missed(row)


def _missed(row: Calibrated) -> str:
    return (
        f"target {row.target:g} cannot be met on these images: the nearest is "
        f"{row.mac_ratio:.4f} of the multiply-accumulates"
    )


def _require_targets(targets: Sequence[float], output: str | Path | None) -> None:
    for target in targets:
        if not 0.0 < target <= 1.0:
            raise InputError(
                f"a reduction target of {target:g}; expected the share of the multiply-accumulates "
                "to be left, above 0 and at most 1"
            )
    if not targets or (output is not None and len(targets) > 1):
        raise InputError(f"{len(targets)} targets; a checkpoint is written for one")
