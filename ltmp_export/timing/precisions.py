"""The same checkpoint in other precisions, and the dense model in int8: which saves more?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ltmp_export import external, inputs, onnx_export, quantisation, runtime
from ltmp_export.checkpoint import Checkpoint
from ltmp_export.onnx_export import ExportedModel
from ltmp_export.plan import dense_plan
from ltmp_export.precision import INT8, KINDS, Precision
from ltmp_export.timing.contenders import DENSE_INT8, REDUCED, Contender
from ltmp_export.timing.processes import filling


def rivals(
    exported: ExportedModel,
    checkpoint: Checkpoint,
    folder: Path,
    providers: tuple[str, ...],
    progress: Callable[[str], None],
) -> list[Contender]:
    """Contenders beside an exported file, of the same opset and batch.

    int8 is calibrated on embedded or synthetic images, as `export` does where none are given.

    Args:
        exported: The exported model.
        checkpoint: The checkpoint it was exported from, under the file's budget.
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
    wanted = {f"{REDUCED} {kind}": (checkpoint, Precision(kind)) for kind in others}
    dense = replace(checkpoint, plan=dense_plan(checkpoint.vit.depth))
    wanted[DENSE_INT8] = (dense, Precision(INT8, protected=False))  # nothing decides there
    found = []
    for label, (source, precision) in wanted.items():
        progress(f"writing {label}")
        if precision.kind == INT8:
            images = inputs.load_images(None, source.vit, source.preprocessing)
            source, precision = quantisation.prepare(source, images, precision, progress)
        model = onnx_export.to_onnx(
            source,
            opset=exported.opset,
            batch_size=runtime.fixed_batch(exported.proto),
            precision=precision,
        )
        path = folder / f"{label}.onnx"
        with filling(folder):
            external.store(path, model)
        found.append(Contender(label, "onnxruntime", path, providers))
    return found
