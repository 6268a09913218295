"""What onnxruntime gave for some images when a site was made, and a browser must give again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.drawing.owned import Owners
from ltmp_export.precision.formats import FP16
from ltmp_export.progress import Progress, silent
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.steps.decided import INT64

if TYPE_CHECKING:
    from ltmp_export.images.inputs import Images
    from ltmp_export.model_file.model import ExportedModel
    from ltmp_export.site.served import Served

# Right answers differ by rounding; how much, is measured for each file and image: onnxruntime
# without its optimisations, and with inputs of which each is changed by up to one rounding. Where
# that decides otherwise, another processor may, too. Allowed of a number is FACTOR times as much,
# and at least so much of the largest.
NUDGES, FACTOR, LEAST = 8, 8.0, 2e-5
_ROUNDING = {FP16: 2.0**-11}  # of numbers of a precision, relative; of others float32's
_SINGLE = 2.0**-23


@dataclass(frozen=True)
class Recorded:
    """Images, and what became of them.

    Attributes:
        pixels: [n, channels, H, W] float32 model inputs.
        images: Of each its name, values, counts, owners by block, and whether it is borderline:
            rounding alone decides otherwise.
        allowed: How far a value may be from a recorded one.
        by: What computed it.
    """

    pixels: NDArray[np.float32] = field(repr=False)
    images: tuple[dict[str, Any], ...]
    allowed: float
    by: str


def record(
    exported: ExportedModel,
    model: Served,
    images: Images,
    threads: int | None = None,
    progress: Progress = silent,
) -> Recorded:
    """Run images in onnxruntime.

    Args:
        exported: The file.
        model: What a site serves of it.
        images: At least one.
        threads: Of an operator.
        progress: Called with a few words as each image begins.

    Raises:
        CheckFailedError: The file's decisions are none, or not what its token_map says.
        ExportError: onnxruntime does not run it.
    """
    usual, plain = (_Asked(exported, model, threads, optimised) for optimised in (True, False))
    rounding = _ROUNDING.get(exported.precision.kind, _SINGLE)
    found, furthest, largest = [], 0.0, 0.0
    for number, name in enumerate(images.names):
        progress(f"recording image {number + 1} of {len(images)}")
        pixels = images.pixels[number]
        own, borderline = usual.of(pixels), False
        others = [plain.of(pixels), *map(usual.of, _nudged(pixels, rounding))]
        for other in others:
            if any(own[key] != other[key] for key in ("counts", "owners")):
                borderline = True
            else:
                gap = np.subtract(own["values"], other["values"])
                furthest = max(furthest, float(np.abs(gap).max(initial=0)))
        largest = max(largest, float(np.abs(own["values"]).max(initial=0)))
        found.append({"name": name, **own, "borderline": borderline})
    allowed = max(FACTOR * furthest, LEAST * largest)
    return Recorded(images.pixels, tuple(found), allowed, f"onnxruntime {version('onnxruntime')}")


def _nudged(pixels: NDArray[np.float32], rounding: float) -> Iterator[NDArray[np.float32]]:
    """The same input, each number changed by up to one rounding."""
    for seed in range(NUDGES):
        change = np.random.default_rng(seed).uniform(-rounding, rounding, pixels.shape)
        yield (pixels * (1 + change)).astype(np.float32)


class _Asked:
    """A file, opened to be asked for all that is recorded of an image."""

    def __init__(
        self, exported: ExportedModel, model: Served, threads: int | None, optimised: bool
    ) -> None:
        self._model, self._owners = model, None
        if model.owned:
            self._owners = Owners(exported, threads=threads, optimised=optimised)
            self._run = self._owners.run
            return
        taps = dict.fromkeys(model.counts, INT64)
        session = TappedSession(exported.proto, taps, threads=threads, optimised=optimised)
        self._run = lambda pixels: session.run(pixels[None])

    def of(self, pixels: NDArray[np.float32]) -> dict[str, Any]:
        """Values, counts and owners by block."""
        given: Mapping[str, NDArray[Any]] = self._run(pixels)
        owners = () if self._owners is None else self._owners.read(given)
        return {
            "values": given[self._model.answer][0].astype(float).tolist(),
            "counts": [int(given[name].reshape(-1)[0]) for name in self._model.counts],
            "owners": [one.places.tolist() for one in owners],
        }
