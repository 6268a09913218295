"""Writes ONNX files from checkpoints, with whichever build of `ltmp_export` Python finds.

`tests.speed_table` calls it for its own build, and runs its text in the folder of another checkout
for that one's. So it imports little, and nothing that came only lately.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ltmp_export import load_checkpoint
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs
from ltmp_export.model_file import external
from ltmp_export.model_file.model import to_onnx
from ltmp_export.plan.plan import dense_plan
from ltmp_export.precision.formats import INT8, Precision
from ltmp_export.statements.choices import Choices

OPSET = 17
CALIBRATED = 4  # synthetic images: scales need not be good, they only have to be there
MEASURED = 16  # what needs protection is measured on more


class Order(NamedTuple):
    """A file to write.

    Attributes:
        checkpoint: Its path.
        choices: What is to be stated about it.
        dense: Whether nothing is reduced.
        precision: In which numbers the file computes.
        batch_size: Of the file, None for any.
        output: The file.
        auto: Whether in int8 only what is measured to need it is protected; a build that cannot
            measure it protects everything.
    """

    checkpoint: str
    choices: Mapping[str, Any]
    dense: bool
    precision: str
    batch_size: int | None
    output: str
    auto: bool = False


def write(order: Order) -> tuple[Checkpoint, Any]:
    """Write it; what it was made from, and the model."""
    source = load_checkpoint(order.checkpoint, Choices(**order.choices))
    if order.dense:
        source = replace(source, plan=dense_plan(source.geometry.depth))
    precision = Precision(order.precision)
    if order.precision == INT8:
        auto = order.auto and not order.dense and hasattr(Precision, "auto")
        images = inputs.synthetic(source.geometry, MEASURED if auto else CALIBRATED)
        asked = Precision(INT8, protected=not order.dense)
        asked = replace(asked, auto=True) if auto else asked
        source, precision = quantise.prepare(source, images, asked)
    model = to_onnx(source, opset=OPSET, batch_size=order.batch_size, precision=precision)
    external.store(Path(order.output), model)
    return source, model


def main(orders: Sequence[Sequence[Any]]) -> None:
    for order in orders:
        write(Order(*order))


if __name__ == "__main__":
    main(json.load(sys.stdin))
