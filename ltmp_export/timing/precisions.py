"""The same checkpoint in other precisions, and the dense model in int8: which saves more?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ltmp_export.calibration import halves, quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.graph import interface
from ltmp_export.images.inputs import Images
from ltmp_export.model_file import external
from ltmp_export.model_file.model import ExportedModel, to_onnx
from ltmp_export.plan.plan import dense_plan
from ltmp_export.precision.formats import FP16, INT8, KINDS, Precision
from ltmp_export.progress import Progress
from ltmp_export.timing.contenders import DENSE_INT8, REDUCED, Contender
from ltmp_export.timing.processes import filling


@dataclass(frozen=True)
class Origin:
    """What the models in other precisions are made from.

    Attributes:
        checkpoint: The checkpoint a file was exported from, under the file's budget.
        calibration: What int8 scales and float16 ranges are measured on.
    """

    checkpoint: Checkpoint
    calibration: Images


def rivals(
    exported: ExportedModel,
    origin: Origin,
    folder: Path,
    providers: tuple[str, ...],
    progress: Progress,
) -> list[Contender]:
    """Contenders beside an exported file, of the same opset, batch and outputs.

    The dense int8 model has the scales and the form that an int8 file has, static ones in products
    beside any other.

    Args:
        exported: The exported model.
        origin: Where it comes from.
        folder: For the models.
        providers: onnxruntime's execution providers.
        progress: Called with a few words as each model is begun.

    Returns:
        The file's plan in the precisions it is not in, and the dense model in int8; none of them is
        required.

    Raises:
        InputError: The folder takes no more, or the images to calibrate on lead to numbers that
            are not finite.
        ExportError: A graph is not what it must be.
    """
    others = [kind for kind in KINDS if kind != exported.precision.kind]
    wanted = {f"{REDUCED} {kind}": (origin.checkpoint, Precision(kind)) for kind in others}
    dense = replace(origin.checkpoint, plan=dense_plan(exported.geometry.depth))
    alike = exported.precision if exported.precision.kind == INT8 else Precision(INT8)
    unprotected = Precision(
        INT8, protected=False, scales=alike.scales, int8_form=alike.int8_form
    )  # nothing is decided there
    wanted[DENSE_INT8] = (dense, unprotected)
    found, given = [], exported.outputs or None
    for label, (source, precision) in wanted.items():
        progress(f"writing {label}")
        batch_size = interface.fixed_batch(exported.proto)
        if precision.kind == FP16:
            model, _ = halves.fitted(
                source, [origin.calibration], precision, opset=exported.opset,
                batch_size=batch_size, outputs=given, progress=progress,
            )  # fmt: skip
        else:
            if precision.kind == INT8:
                source, precision = quantise.prepare(
                    source, origin.calibration, precision, progress
                )
            model = to_onnx(
                source, opset=exported.opset, batch_size=batch_size, precision=precision,
                outputs=given,
            )  # fmt: skip
        path = folder / f"{label}.onnx"
        with filling(folder):
            external.store(path, model)
        found.append(Contender(label, "onnxruntime", path, providers))
    return found
