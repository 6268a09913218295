"""What a file gives of an image, and how far that is from what the reference gives.

Differences are relative: of `logits` and `features` to the largest of the image if that is above 1,
of vectors (`tokens`, `dense`) to the length of each. Whole numbers (`sizes`, `token_map`) are the
same, or infinitely far. Where the other images of a batch make an output longer than the image's
own, the rest must be 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from ltmp_export.backbones.trace import Trace
from ltmp_export.plan import outputs

Measure: TypeAlias = Callable[[NDArray[Any], NDArray[Any]], float]
Given: TypeAlias = Mapping[str, NDArray[Any]]  # what is given of one image, by name


def names(model: onnx.ModelProto) -> tuple[str, ...]:
    """The outputs of a file that say something of its images, token counts apart."""
    return tuple(value.name for value in model.graph.output if value.name in outputs.KNOWN)


def expected(trace: Trace, wanted: Iterable[str]) -> dict[str, NDArray[Any]]:
    """What the reference gives."""
    return {name: trace.output(name).numpy() for name in wanted}


def differences(given: Given, other: Given) -> dict[str, float]:
    """How far each output is from the other's of that name; NaN where one is."""
    measures = {
        outputs.TOKENS: _padded(vectors),
        outputs.DENSE: _on_grid,
        outputs.SIZES: _padded(_whole),
        outputs.TOKEN_MAP: _whole,
    }
    return {name: measures.get(name, difference)(given[name], other[name]) for name in given}


def _padded(measure: Measure) -> Measure:
    """Of the first rows, as many as there must be; the others must be 0."""

    def measured(found: NDArray[Any], wanted: NDArray[Any]) -> float:
        rows = len(wanted)
        if len(found) < rows or not (found[rows:] == 0).all():
            return np.inf
        return measure(found[:rows], wanted)

    return measured


def vectors(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Largest length of a difference of rows [n, C], divided by that of the row."""
    length = np.linalg.norm(wanted, axis=-1)
    with np.errstate(invalid="ignore"):
        off = np.linalg.norm(found - wanted, axis=-1) / np.where(length > 0, length, 1.0)
    return float(off.max(initial=0.0))


def _on_grid(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The same of vectors [C, h, w]."""
    return vectors(np.moveaxis(found, 0, -1), np.moveaxis(wanted, 0, -1))


def _whole(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """0 where all numbers are the same."""
    return 0.0 if np.array_equal(found, wanted) else np.inf


def difference(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Largest absolute difference, divided by max(1, the largest wanted number)."""
    with np.errstate(invalid="ignore"):  # infinity minus infinity is a NaN, as it should be
        return float(np.abs(found - wanted).max() / max(1.0, float(np.abs(wanted).max())))


def top1(given: Given) -> int | None:
    """The class of the largest logit, where there are logits."""
    return int(np.argmax(given[outputs.LOGITS])) if outputs.LOGITS in given else None
