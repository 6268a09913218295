"""`ltmp inputs`: what to feed a model where it is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import ltmp_export

from . import options, parsing
from .terminal import spinner, warn


def inputs(
    model: Annotated[Path, typer.Argument(help="ONNX file written by 'ltmp export'.")],
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="An .npz to write, or a folder for .npy files.")
    ] = Path("inputs.npz"),
    images: options.Images = None,
    samples: Annotated[
        int | None, typer.Option(help="At most so many different images (default: 14).")
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option("-b", "--batch-size", help="Batch sizes (default: 1,2,7, or what it takes)."),
    ] = None,
    tapped: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.onnx",
            help="Also write a copy of the model that gives its inner tensors, to prove decisions.",
        ),
    ] = None,
) -> None:
    """Write the images that a device, a browser or another runtime is to compute.

    What it gives, recorded, is judged by 'ltmp check MODEL.onnx CHECKPOINT --recorded FILE'.
    """
    sizes = None if batch_size is None else parsing.integers("--batch-size", batch_size, "1,8")
    with spinner() as progress:
        found = ltmp_export.inputs(
            model, output, images=images, samples=samples, batch_sizes=sizes, tapped=tapped,
            progress=progress,
        )  # fmt: skip
    warn(*found.remarks)
    shape = ", ".join(map(str, found.shape))
    typer.echo(f"{found.output}: images {found.dtype} [{shape}] ({found.images}), digest")
    told, largest = ", ".join(map(str, found.batch_sizes)), found.batch_sizes[-1]
    last = f"batch_{largest}/{found.shape[0] // largest - 1}/{found.outputs[-1]}"
    typer.echo(
        f"run them in order in batches of {told}; record what run K of batches of B gives as NAME "
        f"as batch_B/K/NAME, batch_{found.batch_sizes[0]}/0/{found.outputs[0]} to {last}, and the "
        "digest"
    )
    if found.tapped is not None:
        typer.echo(f"{found.tapped}: the model with its inner tensors as outputs")
