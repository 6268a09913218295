"""What a file stores or states otherwise than its checkpoint has it, whatever images show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.parity import taps, weights
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.precision.formats import Precision
from ltmp_export.runtimes.saturation import Products


def other_weights(
    model: onnx.ModelProto,
    checkpoint: Checkpoint,
    precision: Precision,
    products: Products | None,
    saturates: bool,
    beside: Mapping[str, NDArray[Any]] | None,
) -> str:
    """Which stored weights are not the checkpoint's, or not exact on every processor."""
    faults = [weights.other(model, checkpoint, precision, beside)]
    if products is not None:
        faults.insert(0, products.fault(saturates))
    return "; ".join(filter(None, faults))


def other_step(stated: Plan | None, plan: Plan) -> str:
    """Which step the file's metadata state otherwise than the checkpoint has it, or nothing.

    Thresholds are compared where they are stored; those of metadata are for people.
    """
    if stated is None or stated.thresholds() or stated == plan or stated.family != plan.family:
        return ""
    for block, (theirs, ours) in enumerate(zip(stated.blocks, plan.blocks, strict=True)):
        if theirs != ours:
            return f"block {block}: the file states {_named(theirs)}, the checkpoint {_named(ours)}"
    places = [", ".join(map(str, p.before)) or "no block" for p in (stated, plan)]
    if places[0] != places[1]:
        return f"the file mixes tokens before {places[0]}, the checkpoint before {places[1]}"
    block = next(at for at, step in plan.before.items() if stated.before[at] != step)
    told = [" ".join(one.before[block].shown()) for one in (stated, plan)]
    if told[0] == told[1]:
        return f"the file states another scale of the step before block {block} than the checkpoint"
    return f"before block {block}: the file states {told[0]}, the checkpoint {told[1]}"


def _named(steps: Sequence[Step]) -> str:
    """A block's steps in a few words."""
    return " and ".join(step.brief for step in steps) or "no step"


def other_threshold(model: onnx.ModelProto, plan: Plan) -> str:
    """Which stored threshold is not the checkpoint's, or nothing.

    The scores of these images may all lie on one side of both; those of others would not.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for block, kind, name, threshold in taps.thresholds(plan):
        if name in stored:
            array = numpy_helper.to_array(stored[name])
            if array.dtype.kind != "f" or array.size != 1:
                shape = f"{array.dtype} {list(array.shape)}"
                return f"block {block}: the file's {kind} threshold is {shape}, no number"
            found = float(array.item())
            if found != float(np.float32(threshold)):
                return (
                    f"block {block}: the {kind} threshold is {found:.9g} in the file, "
                    f"{threshold:.9g} in the checkpoint"
                )
    return ""
