"""A dense or fine-tuned ViT and some images → a model that takes a given time → checkpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ltmp_export import families
from ltmp_export.calibration.targets import QUANTILES, Calibrated, Spread
from ltmp_export.commands import halved, latency_words
from ltmp_export.commands.calibrate import CalibrateReport
from ltmp_export.commands.halved import Halves
from ltmp_export.commands.searched import FixedRate, Made, Search, Thresholds
from ltmp_export.commands.timed_search import Run
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.files.plain import plain
from ltmp_export.files.workplace import workplace
from ltmp_export.images import chance
from ltmp_export.progress import Progress, silent
from ltmp_export.reference import SMALL, single_thread
from ltmp_export.statements.choices import WAYS, Choices
from ltmp_export.timing import fitted, tables, tabulate
from ltmp_export.timing.goal import Latency, Wanted
from ltmp_export.training import saving


def calibrate_latency(
    checkpoint: str | Path,
    images: str | Path,
    wanted: Wanted,
    output: str | Path | None = None,
    *,
    spread: Spread | None = None,
    name: str | None = None,
    class_map: str | Path | None = None,
    class_order: str | None = None,
    choices: Choices | None = None,
    knn: int | None = None,
    device: str = "auto",
    workers: int = 0,
    progress: Progress = silent,
) -> CalibrateReport:
    """Reduce a model without training until its file takes a given time.

    Args:
        checkpoint: A dense ViT, a fine-tuned checkpoint, or `timm:NAME`.
        images: As for `calibrate`; of those held out, the first are also what is timed.
        wanted: The time, and how the file runs.
        output: The checkpoint to write, for a single target of a family with thresholds.
        spread: As for `calibrate`; so are the next three.
        name: What the output calls the dense model.
        class_map: See `images.sets.Kind`.
        class_order: Likewise.
        choices: What the checkpoint does not say; `family` is the one to make, ltmp by default, or
            one of which `--reduction-target` picks r or a keep rate.
        knn: As for `calibrate`.
        device: Where PyTorch measures.
        workers: Processes that read images.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file or image cannot be used, or a target cannot be reached.
        UnavailableError: There is no such device or provider.
        ExportError: onnxruntime does not run a model.
    """
    started, spread, choices = time.perf_counter(), spread or Spread(), choices or Choices()
    output = None if output is None else Path(output)
    choices, _ = choices.named()
    fixed = _fixed_rate(choices, wanted, output, spread)
    table = None if wanted.table is None else tables.read(wanted.table)
    if table is None:
        tabulate.resolved(wanted.settings())  # before anything is read
    asked = (
        replace(choices, family=None, merge_at=None, **dict.fromkeys(WAYS)) if fixed else choices
    )
    halves = halved.opened(
        checkpoint, images, output, spread=spread, name=name, class_map=class_map,
        class_order=class_order, choices=asked, knn=knn, device=device, progress=progress,
    )  # fmt: skip
    weights = sum(one.numel() for one in halves.source.model.parameters())
    with workplace() as folder, single_thread(weights <= SMALL):
        search: Search = (
            FixedRate(halves, choices, fixed, workers, progress)
            if fixed
            else Thresholds(halves, spread, workers, progress)
        )
        run = Run(halves, search, wanted, folder, progress)
        latency, made = run.timed(table)
    report = _report(halves, search, latency, made, output, time.perf_counter() - started)
    if output is not None:
        disk.write_bytes(output, _content(report, latency, made[0], halves, spread))
    return report


def _fixed_rate(
    choices: Choices, wanted: Wanted, output: Path | None, spread: Spread
) -> str | None:
    """The family, where it has no thresholds to make but a rate to pick.

    Raises:
        InputError: What is asked for does not go together.
    """
    if output is not None and len(wanted.shares) > 1:
        raise InputError(f"{len(wanted.shares)} targets; a checkpoint is written for one")
    name = choices.family
    able = [one for one in families.training_free() if not families.load(one).start]
    if name not in able:
        return None
    if output is not None:
        raise InputError(
            f"family {name} has no thresholds that a checkpoint could hold; drop --output: what to "
            "export with is printed"
        )
    if spread != Spread(samples=spread.samples, seed=spread.seed):
        raise InputError(f"family {name} has no thresholds; drop --split, --schedule and --method")
    return name


def _report(
    halves: Halves,
    search: Search,
    latency: Latency,
    made: Sequence[Made],
    output: Path | None,
    seconds: float,
) -> CalibrateReport:
    """What it came to."""
    source, bench = halves.source, search.bench
    dense = bench.accuracy(bench.dense)
    count, classes = len(halves.held_out), source.vit.classes
    rows: list[Calibrated] = [one.row for one in made]
    stated = tuple(one.stated for one in made)
    return CalibrateReport(
        output=output,
        family=search.family,
        method=search.method,
        rows=tuple(rows),
        calibration=len(halves.scored) if search.method == QUANTILES else 0,
        held_out=count,
        images=halves.chosen.origin,
        dense_accuracy=dense,
        knn=halves.knn,
        seconds=seconds,
        notes=source.notes,
        warnings=(
            *source.warnings,
            *halves.chosen.remarks,
            *chance.doubts(dense, count, classes, "top-1 of the dense model"),
            *fitted.doubts([latency.table.batch(latency.batch_size)]),
            *latency_words.doubts(latency),
        ),
        latency=replace(latency, stated=stated),
    )


def _content(
    report: CalibrateReport, latency: Latency, made: Made, halves: Halves, spread: Spread
) -> bytes:
    """The checkpoint of the one target."""
    (row,), (reached,) = report.rows, latency.rows
    method = {"command": "calibrate", "method": report.method, "spread": asdict(spread)}
    times = {
        **reached.to_json(),
        "unit": tables.UNIT,
        "batch_size": latency.batch_size,
        "precision": latency.table.precision,
        "single": latency.table.single,
        "threads": latency.table.threads,
        "runtime": latency.table.runtime,
        "machine": asdict(latency.table.environment),
        "elsewhere": latency.elsewhere,
        "model": asdict(latency.model),
    }
    measured = {"mac_ratio": row.mac_ratio, "agreement": row.agreement, "latency": times}
    return saving.to_bytes(
        made.checkpoint,
        report.family,
        row.thresholds,
        name=halves.name,
        metric=None if row.accuracy is None else 100 * row.accuracy,
        args={"reduction_target": round(row.mac_ratio, 4)},
        provenance=plain({**method, "result": measured}),
    )
