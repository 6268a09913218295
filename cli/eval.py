"""`ltmp eval`: accuracy, tokens and multiply-accumulates on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import ltmp_export
from ltmp_export.statements.choices import Choices

from . import options, parsing
from .stated import METHOD, UNSTATED, stating
from .terminal import show, spinner, warn_of, write_json

DRIFT = "Drift"  # a panel of --help


@stating(METHOD, UNSTATED)
def evaluate(
    subject: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL.onnx|CHECKPOINT", help="An exported model, a checkpoint, or timm:NAME."
        ),
    ],
    *,
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR|FILE|s3://…",
            help="Folders of classes (or val/ of them), .tar shards, parquet, or .npz.",
        ),
    ],
    samples: Annotated[
        int | None, typer.Option(help="Take at most so many images (default: all).")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("-b", "--batch-size", help="Images at once (default: 8).")
    ] = None,
    threads: options.Threads = None,
    providers: Annotated[
        str | None, typer.Option(help="onnxruntime's execution providers (default: cpu).")
    ] = None,
    class_map: options.ClassMap = None,
    class_order: options.ClassOrder = None,
    knn: options.Knn = None,
    knn_images: Annotated[
        Path | None,
        typer.Option(
            help="Without a classifier: labelled images that vote (default: the others in --data).",
            rich_help_panel=options.NEIGHBOURS,
        ),
    ] = None,
    workers: options.Working = 0,
    engine: options.Engine = "local",
    address: options.Address = None,
    write_baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Write what the model sees of these images, to watch for drift from.",
            rich_help_panel=DRIFT,
        ),
    ] = None,
    watch_drift: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Compare with such a file; exit 1 where more images are beyond it than may be.",
            rich_help_panel=DRIFT,
        ),
    ] = None,
    drift_share: Annotated[
        float | None,
        typer.Option(
            help="Of the images that may be, above what is expected (default: 0.05).",
            rich_help_panel=DRIFT,
        ),
    ] = None,
    choices: Choices,
    json: options.Json = None,
) -> None:
    """Measure accuracy, tokens and multiply-accumulates on labelled images.

    An exported model runs in onnxruntime, a checkpoint in the eager reference, image by image.
    """
    given = [subject, data, knn_images, choices.base_checkpoint, class_map, watch_drift]
    parsing.require_outputs([json, write_baseline], given)
    with spinner() as progress:
        _require_measurable(subject, choices)
        from ltmp_export import reports

        done = ltmp_export.evaluate(
            subject,
            data,
            samples=samples,
            batch_size=batch_size,
            threads=threads,
            providers=None if providers is None else tuple(providers.split(",")),
            class_map=class_map,
            class_order=class_order,
            knn=knn,
            knn_images=knn_images,
            choices=choices,
            place=ltmp_export.Place(engine, address, workers),
            write_baseline=write_baseline,
            watch_drift=watch_drift,
            drift_share=drift_share,
            progress=progress,
        )
    warn_of(done)
    write_json(json, done.to_json())
    show(reports.eval_summary(done))
    if any(one.drifted for one in done.drift):
        raise typer.Exit(1)


def _require_measurable(subject: Path, choices: Choices) -> None:
    """Refuse a checkpoint before what takes seconds to import; a model is only looked at.

    Raises:
        InputError: It is a checkpoint, and cannot be used.
    """
    from ltmp_export.checkpoint import hub
    from ltmp_export.files import disk

    if hub.names_a_model(subject) or subject.is_dir():
        parsing.require_takeable(subject, choices, dense=True, scripted=True)
        return
    disk.require_file(subject, "an ONNX model or a checkpoint")
    if not disk.looks_like_onnx(subject):
        parsing.require_takeable(subject, choices, dense=True, scripted=True)
