"""checkpoint file → Checkpoint → ONNX model → parity → file."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ltmp_export import external, files, inputs, onnx_export, parity, runtime
from ltmp_export.check_report import CheckReport
from ltmp_export.checkpoint import Checkpoint
from ltmp_export.choices import Choices
from ltmp_export.pipeline.stages import Progress, loaded, silent

SCHEMA_VERSION = 1
DEFAULT_OPSET = 17
QUICK_SAMPLES = 7


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        output: The file written.
        data: The file beside it with its weights, for a model beyond 2 GB, else None.
        bytes: Size of both.
        opset: Declared version of the standard domain.
        batch_size: The only batch size it takes, or None if it takes any.
        family: Token-reduction family.
        architecture: timm name, the name the file gives itself, or "vit".
        seconds: Time taken, check included.
        check: The closing check, or None if it was switched off.
        notes: What was assumed.
        warnings: What looks wrong.
    """

    output: Path
    data: Path | None
    bytes: int
    opset: int
    batch_size: int | None
    family: str
    architecture: str
    seconds: float
    check: CheckReport | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        document = asdict(replace(self, check=None)) | {"output": str(self.output)}
        document["data"] = None if self.data is None else str(self.data)
        document["check"] = None if self.check is None else self.check.to_json()
        return document | {"schema_version": SCHEMA_VERSION, "kind": "export"}


def export(
    checkpoint: str | Path | Checkpoint,
    output: str | Path = "model.onnx",
    *,
    opset: int = DEFAULT_OPSET,
    batch_size: int | None = None,
    token_counts: bool = False,
    check: bool = True,
    choices: Choices | None = None,
    progress: Progress = silent,
) -> ExportReport:
    """Export a checkpoint to an ONNX file that takes any batch, or single images.

    The file appears at `output` only after everything, the check included, has succeeded. The
    weights of a model beyond 2 GB go to a second file beside it, which must stay there.

    Args:
        checkpoint: File, or one loaded before (then `choices` must be None).
        output: The file to write.
        opset: Version of the standard domain, 16 to the newest onnxruntime loads.
        batch_size: 1 for a file that takes single images only and is somewhat faster for them.
        token_counts: Add the output `token_counts` int64 [batch, depth].
        check: Compare a batch of mixed images with the reference before writing.
        choices: What the checkpoint does not say.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: The checkpoint, the output path or the batch size cannot be used.
        ExportError: The graph could not be written as asked.
        CheckFailedError: The graph is not the checkpoint's model; nothing is written.
    """
    started = time.perf_counter()
    output = Path(output)
    runtime.require_opset(opset)
    onnx_export.require_batch_size(batch_size)
    source = loaded(checkpoint, choices, progress)
    base = source.choices.base_checkpoint
    files.require_outputs([output], [source.path, *([] if base is None else [base])])
    progress("writing the graph")
    model = onnx_export.to_onnx(
        source, opset=opset, batch_size=batch_size, token_counts=token_counts
    )
    report = None
    if check:
        images = inputs.load_images(None, source.vit, source.preprocessing, QUICK_SAMPLES)
        sizes = (1, QUICK_SAMPLES) if batch_size is None else (batch_size,)
        report = parity.compare(
            model, source, images, batch_sizes=sizes, name=output, progress=progress
        )
        report.require()
    written = external.write_model(output, model)
    return ExportReport(
        output=output,
        data=written.data,
        bytes=written.bytes,
        opset=opset,
        batch_size=batch_size,
        family=source.plan.family,
        architecture=source.vit.name,
        seconds=time.perf_counter() - started,
        check=report,
        notes=source.notes,
        warnings=source.warnings,
    )
