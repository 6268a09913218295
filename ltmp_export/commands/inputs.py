"""Exported model → what to feed it where it is deployed, so that its answers can be judged here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import TensorProto

from ltmp_export.commands.pictured import require_images
from ltmp_export.errors import InputError
from ltmp_export.files import disk, folders
from ltmp_export.graph import interface
from ltmp_export.images import fed
from ltmp_export.model_file.model import ExportedModel, read_exported
from ltmp_export.progress import Progress, silent

BATCH_SIZES = (1, 2, 7)


@dataclass(frozen=True)
class InputsReport:
    """What was written.

    Attributes:
        output: The `.npz`, or the folder.
        shape: Of the images.
        dtype: Their numbers.
        images: Where they come from.
        digest: SHA-256 of them, in hexadecimal.
        batch_sizes: Batches that a recording must have.
        outputs: What the model gives.
        tapped: The copy of the model that also gives its inner tensors, if one was written.
        remarks: What a person should know of the images.
    """

    output: Path
    shape: tuple[int, ...]
    dtype: str
    images: str
    digest: str
    batch_sizes: tuple[int, ...]
    outputs: tuple[str, ...]
    tapped: Path | None
    remarks: tuple[str, ...]


def inputs(
    model: str | Path,
    output: str | Path,
    *,
    images: str | Path | None = None,
    samples: int | None = None,
    batch_sizes: Sequence[int] | None = None,
    tapped: str | Path | None = None,
    progress: Progress = silent,
) -> InputsReport:
    """Write what to feed an exported model on a device, for `check(recorded=…)`.

    Args:
        model: File written by `export`.
        output: An `.npz` to write, or a folder for `.npy` files: `images` and their `digest`.
        images: As for `check`.
        samples: At most so many different images, 14 by default.
        batch_sizes: Batches that will be run, 1, 2 and 7 by default, or the only one it takes.
        tapped: Where to write a copy of the model that also gives its inner tensors.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file cannot be used or written.
    """
    output, copy = Path(output), None if tapped is None else Path(tapped)
    exported = read_exported(Path(model))
    sizes = tuple(batch_sizes or sizes_of(exported))
    interface.require_batches(exported.proto, str(model), sizes)
    require_images(exported, "'ltmp inputs'")
    if copy is not None:
        disk.require_outputs([copy], [Path(model), output])
    half = takes_half(exported)
    progress("reading images")
    chosen = fed.images(
        None if images is None else Path(images), exported.geometry, exported.preprocessing,
        samples, sizes, half,
    )  # fmt: skip
    named = fed.arrays(chosen, half)
    if output.suffix == ".npz":
        disk.require_outputs([output], [Path(model)])
        disk.write_bytes(output, fed.archive(named))
    else:
        folders.require_folder(output)
        folders.write(output, fed.files(named))
    if copy is not None:
        progress("writing the copy with inner tensors")
        _write_tapped(exported, copy)
    return InputsReport(
        output=output,
        shape=named[fed.IMAGES].shape,
        dtype=str(named[fed.IMAGES].dtype),
        images=chosen.origin,
        digest=named[fed.DIGEST].tobytes().hex(),
        batch_sizes=sizes,
        outputs=tuple(value.name for value in exported.proto.graph.output),
        tapped=copy,
        remarks=chosen.remarks,
    )


def sizes_of(exported: ExportedModel) -> tuple[int, ...]:
    """The batches that a recording must have."""
    fixed = interface.fixed_batch(exported.proto)
    return BATCH_SIZES if fixed is None else (fixed,)


def takes_half(exported: ExportedModel) -> bool:
    """Whether a model takes float16 images."""
    kind: int = exported.proto.graph.input[0].type.tensor_type.elem_type
    return kind == TensorProto.FLOAT16


def _write_tapped(exported: ExportedModel, path: Path) -> None:
    """A copy of the model with all inner tensors that a check reads as outputs.

    Raises:
        InputError: The file lacks one of them, or the copy cannot be written.
    """
    from ltmp_export.model_file import external
    from ltmp_export.parity import taps
    from ltmp_export.plan.linears import rounded

    wanted = taps.names(exported.plan, exported.precision, rounded(exported.geometry))
    if missing := interface.missing_tensors(exported.proto, wanted):
        raise InputError(
            f"{exported.path} has no tensor {missing[0]}; export it again with this version"
        )
    external.write_model(path, interface.tapped(exported.proto, wanted, shaped=True))
