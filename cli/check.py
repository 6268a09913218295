"""`ltmp check`: an exported model against the reference from its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import ltmp_export
from ltmp_export.errors import InputError
from ltmp_export.runtimes import listed
from ltmp_export.runtimes.listed import ONNXRUNTIME as OWN
from ltmp_export.statements.choices import Choices

from . import options, parsing
from .stated import METHOD, UNSTATED, stating
from .terminal import annotate, note, show, spinner, warn, write_json

if TYPE_CHECKING:
    from ltmp_export.parity.report import CheckReport


@stating(METHOD, UNSTATED)
def check(
    exported: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL.onnx", help="ONNX file of 'ltmp export'; not needed with --repro."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(metavar="CHECKPOINT", help="The checkpoint it was exported from; likewise."),
    ] = None,
    *,
    choices: Choices,
    images: options.Images = None,
    samples: Annotated[
        int | None, typer.Option(help="Compare at most so many images (default: 16).")
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option("-b", "--batch-size", help="Batch sizes (default: 1,2,7, or what it takes)."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 for borderline differences, too.")
    ] = False,
    masked: Annotated[
        bool,
        typer.Option("--masked", help="Also say how far the published training form is from it."),
    ] = False,
    runtime: Annotated[
        str | None,
        typer.Option(help=f"What runs it, of {', '.join(listed.runtimes())} (default: {OWN})."),
    ] = None,
    providers: Annotated[
        str | None, typer.Option(help="onnxruntime's execution providers: cuda, coreml, ….")
    ] = None,
    recorded: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz|DIR", help="Judge what ran elsewhere, on what 'ltmp inputs' wrote."
        ),
    ] = None,
    json: options.Json = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit report to this file.")] = None,
    save_repro: Annotated[
        Path | None, typer.Option(help="Save the first failing image to this new folder.")
    ] = None,
    repro: Annotated[
        Path | None, typer.Option(help="Check again what --save-repro saved in this folder.")
    ] = None,
) -> None:
    """Compare an exported model with the reference from its checkpoint.

    It runs in onnxruntime on the CPU, in another --runtime, or ran elsewhere (--recorded).

    The file's own decisions are read and forced on the reference, so that one token within
    rounding of its threshold (borderline) is told from a wrong graph (fail).
    """
    sizes = None if batch_size is None else parsing.integers("--batch-size", batch_size, "1,8")
    parsing.require_outputs([json, junit], [exported, checkpoint, choices.base_checkpoint, images])
    beside = {"--images": images, "--samples": samples, "--batch-size": batch_size}
    beside |= {"--masked": masked or None, "--recorded": recorded, "--runtime": runtime}
    beside |= {"--providers": providers}
    _require_alone("--repro", repro, beside | {"--save-repro": save_repro})
    _require_new_folder(save_repro, [json, junit])
    if runtime is not None:
        from ltmp_export.runtimes import installed

        installed.require(runtime)
    asked = _provider_names(providers, runtime or OWN)
    with spinner() as progress:
        _require_comparable(exported, checkpoint, choices, repro)
        if repro is not None:
            found = ltmp_export.replay(
                repro, exported, checkpoint, choices=choices, progress=progress
            )
        else:
            found = ltmp_export.check(
                *_both(exported, checkpoint),
                images=images,
                samples=samples,
                batch_sizes=sizes,
                choices=choices,
                save_repro=save_repro,
                strict=strict,
                masked=masked,
                runtime=runtime or OWN,
                providers=asked,
                recorded=recorded,
                progress=progress,
            )
    _report(found, strict=strict, json=json, junit=junit, save_repro=save_repro)
    raise typer.Exit(0 if found.passed(strict) else 1)


def _provider_names(asked: str | None, runtime: str) -> tuple[str, ...]:
    """Execution providers by their full names.

    Raises:
        UnavailableError: One is not installed, or the runtime has none.
    """
    if asked is None:
        return ()
    from ltmp_export.runtimes import providers

    if runtime != OWN:
        providers.require_none(runtime, asked.split(","))
    import onnxruntime

    known, there = onnxruntime.get_all_providers(), onnxruntime.get_available_providers()
    return providers.resolve(asked.split(","), known, there)


def _report(
    found: CheckReport,
    *,
    strict: bool,
    json: Path | None,
    junit: Path | None,
    save_repro: Path | None,
) -> None:
    """Show what was found, and write what was asked for."""
    from ltmp_export import reports
    from ltmp_export.files import disk

    warn(*found.warnings)
    write_json(json, found.to_json())
    if junit is not None:
        disk.write_bytes(junit, reports.to_junit(found, strict))
    show(reports.check_summary(found))
    annotate(reports.github_annotations(found, strict))
    if save_repro is not None:
        failed = found.first_failing(strict) is not None
        replay = f"the first failing image is there; again: ltmp check --repro {save_repro}"
        note(f"{save_repro}: {replay if failed else 'not written, no image to blame'}")


def _require_alone(flag: str, value: object, others: Mapping[str, object]) -> None:
    """Check that a flag, if it was given, stands without others that it makes meaningless.

    Raises:
        InputError: One of them was given, too.
    """
    given = [name for name, other in others.items() if other is not None]
    if value is not None and given:
        raise InputError(f"{flag} brings its own images and batch; drop {', '.join(given)}")


def _require_new_folder(folder: Path | None, others: Sequence[Path | None]) -> None:
    """Check before the work that a folder can be written, apart from other outputs.

    Raises:
        InputError: It holds something, cannot be made, or is one of the others.
    """
    if folder is not None:
        from ltmp_export.parity import repro

        repro.require_new(folder)
        if folder.resolve() in [path.resolve() for path in others if path is not None]:
            raise InputError(f"{folder} is also the output of another flag; choose another")


def _require_comparable(
    exported: Path | None, checkpoint: Path | None, choices: Choices, repro: Path | None
) -> None:
    """Refuse what is missing or cannot be used before what takes seconds to import.

    The model says how the checkpoint is to be taken, so that it is only looked at here.

    Raises:
        InputError: One is missing or cannot be used.
    """
    from ltmp_export.checkpoint import refusals
    from ltmp_export.files import disk

    if repro is None:
        exported, checkpoint = _both(exported, checkpoint)
    if exported is not None:
        disk.require_file(exported, "an ONNX model")
    if checkpoint is not None:
        refusals.require_readable(checkpoint, choices)


def _both(exported: Path | None, checkpoint: Path | None) -> tuple[Path, Path]:
    """Both, where both are needed.

    Raises:
        InputError: One was not given.
    """
    if exported is None or checkpoint is None:
        missing = "MODEL.onnx and CHECKPOINT" if exported is None else "CHECKPOINT"
        raise InputError(f"{missing} missing: ltmp check MODEL.onnx CHECKPOINT, or --repro DIR")
    return exported, checkpoint
