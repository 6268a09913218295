"""`ltmp serve-config`: a model of a Triton repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import ltmp_export
from ltmp_export.errors import InputError

from . import options, parsing
from .terminal import spinner, warn_of


def serve_config(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="ONNX file written by 'ltmp export'.")
    ],
    *,
    triton: Annotated[
        Path | None,
        typer.Option(metavar="REPOSITORY", help="Folder of models that Triton is started with."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the server calls the model (default: the file's).")
    ] = None,
    max_batch_size: Annotated[
        int | None,
        typer.Option(help="Most images in one run (default: 32; a fixed batch stays as it is)."),
    ] = None,
    max_queue_delay: Annotated[
        int, typer.Option(metavar="US", help="Microseconds to wait for others to fill a batch.")
    ] = 500,
    instances: Annotated[int, typer.Option(help="Copies of the model that run at once.")] = 1,
    gpu: Annotated[bool, typer.Option("--gpu", help="Run them on every GPU.")] = False,
    threads: options.Threads = None,
    kserve: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="Also write a manifest for KServe."),
    ] = None,
    storage_uri: Annotated[
        str | None, typer.Option(metavar="URI", help="Where the cluster finds the repository.")
    ] = None,
) -> None:
    """Add the model to a model repository of Triton Inference Server.

    Its configuration is told from the file, and how pictures are prepared stands beside it.
    """
    if triton is None:
        raise InputError("say where the model goes: --triton REPOSITORY")
    parsing.require_outputs([kserve], [model])
    with spinner() as progress:
        made = ltmp_export.serve_config(
            model,
            triton,
            ltmp_export.Deployment(
                model.stem if name is None else name,
                max_batch_size=max_batch_size,
                max_queue_delay=max_queue_delay,
                instances=instances,
                gpu=gpu,
                threads=threads,
            ),
            manifest=kserve,
            storage_uri=storage_uri,
            progress=progress,
        )
    warn_of(made)
    most = made.max_batch_size
    told = f"batches of up to {most}" if most else "the file's own batch alone (max_batch_size 0)"
    typer.echo(f"{made.folder}: {', '.join(made.files)}; {told}")
    if made.manifest is not None:
        typer.echo(f"{made.manifest}: KServe's InferenceService")
    typer.echo(f"Next: tritonserver --model-repository={triton}")
