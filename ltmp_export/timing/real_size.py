"""What reduction gains on this machine in a model of real size: made-up weights, real geometry.

Dense, under a family that takes a fixed number of tokens, and under learned thresholds; each in
float32 and in int8, image by image and in batches.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.files.workplace import workplace
from ltmp_export.graph import interface
from ltmp_export.images import inputs
from ltmp_export.images.inputs import Images
from ltmp_export.model_file import external
from ltmp_export.model_file.model import to_onnx
from ltmp_export.plan import work
from ltmp_export.precision.formats import FP32, INT8, Precision
from ltmp_export.progress import Progress, silent
from ltmp_export.reference import single_thread
from ltmp_export.runtimes import providers, session
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.timing import made_up, rounds, threads
from ltmp_export.timing.contenders import DENSE, Contender
from ltmp_export.timing.environment import environment
from ltmp_export.timing.machine import Environment
from ltmp_export.timing.processes import filling
from ltmp_export.timing.rounds import Field
from ltmp_export.timing.settings import Settings
from ltmp_export.timing.statistics import Timing

OPSET = 17
RATE, SHARE = 13, 0.5
COUNTED, LEARNED = f"m r={RATE}", "ltmp"
IMAGES, SCORED, CALIBRATED = 8, 4, 2  # a larger batch has each image several times
SECONDS = 36.0  # that all of it may take; no round begins that would not end within them
SIZES = {1: 0.35, 16: 1.0}  # batch sizes, and of the seconds left what the rounds of each may take
MOST = 10  # rounds; the least is one
FEW = 4  # processors: a model of real size takes all of so few


@dataclass(frozen=True)
class Specimen:
    """A model to make up.

    Attributes:
        called: For a person.
        name: timm's.
        kwargs: For timm's model.
    """

    called: str
    name: str
    kwargs: Mapping[str, Any]


DEIT_S = Specimen("DeiT-S", "deit_small_patch16_224", {})


@dataclass(frozen=True)
class Row:
    """A model at a batch size.

    Attributes:
        model: "dense", or how it is reduced.
        precision: In which numbers it computes.
        macs_share: Executed of the dense multiply-accumulates, mean over the images.
        timing: Its times.
    """

    model: str
    precision: str
    macs_share: float
    timing: Timing


@dataclass(frozen=True)
class RealSizeReport:
    """What was measured.

    Attributes:
        called: The model, for a person.
        threads: Threads of an operator.
        rows: Batch size by batch size.
        environment: The machine.
        seconds: That all of it took.
    """

    called: str
    threads: int
    rows: tuple[Row, ...]
    environment: Environment
    seconds: float

    def speedup(self, row: Row, precision: str | None = None) -> float:
        """Time of the dense model, in the row's own or in a given precision, over the row's."""
        asked = (DENSE, precision or row.precision, row.timing.batch_size)
        for one in self.rows:
            if (one.model, one.precision, one.timing.batch_size) == asked:
                return one.timing.best / row.timing.best
        raise ValueError(f"no row {asked}")


def measure(progress: Progress, specimen: Specimen) -> RealSizeReport:
    """Make the models up, and time them in alternating rounds, each in a process of its own.

    Args:
        progress: Called with a few words as each stage begins.
        specimen: What to make up.

    Raises:
        InputError: The temporary folder takes no more.
        ExportError: onnxruntime does not run a model.
    """
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(workplace())
        with single_thread(True):  # of more, PyTorch's wait for one another on a busy machine
            images, shares = _write(folder, specimen, progress)
        contenders = {
            _label(*key): Contender(
                _label(*key), session.ONNXRUNTIME, _path(folder, *key), (providers.CPU,),
                required=True,
            )
            for key in shares
        }  # fmt: skip
        shared: dict[str, Any] = {
            "images": str(folder / "images.npy"),
            "threads": session.processor_count(),
        }
        order = np.arange(len(images))
        if shared["threads"] > FEW:
            learned = [contenders[_label(LEARNED, FP32)]]
            tried = threads.tried(learned, shared, folder, order, [1], shared["threads"], progress)
            shared["threads"] = threads.best(tried, learned[0].label)
        progress(f"opening {len(contenders)} models")
        field = Field(list(contenders.values()), shared, folder, stack)
        timings = list(_timings(field, order, specimen.called, started + SECONDS, progress))
    rows = [
        Row(model, precision, shares[model, precision], timing)
        for timing in timings
        for model, precision in shares
        if timing.model == _label(model, precision)
    ]
    seconds = time.perf_counter() - started
    return RealSizeReport(specimen.called, shared["threads"], tuple(rows), environment(), seconds)


def _label(model: str, precision: str) -> str:
    return f"{model} {precision}"


def _path(folder: Path, model: str, precision: str) -> Path:
    return folder / f"{model.replace(' ', '_')}_{precision}.onnx"


def _write(
    folder: Path, specimen: Specimen, progress: Progress
) -> tuple[Images, dict[tuple[str, str], float]]:
    """Images, and every model's share of the dense multiply-accumulates on them."""
    progress(f"making up the weights of {specimen.called}")
    dense = made_up.checkpoint(specimen.name, **specimen.kwargs)
    images = inputs.synthetic(dense.geometry, IMAGES)
    progress(f"making up thresholds for {SHARE:.0%} of the multiply-accumulates")
    learned = made_up.at_share(dense, LEARNED, SHARE, images.select(SCORED))
    models = {DENSE: dense, COUNTED: made_up.at_rate(dense, "m", RATE), LEARNED: learned}
    balanced, precision = quantise.prepare(
        learned, images.select(CALIBRATED), Precision(INT8), progress
    )
    shares = {}
    with filling(folder):
        np.save(folder / "images.npy", images.pixels)
    for kind in (FP32, INT8):
        for name, source in models.items():
            progress(f"writing {_label(name, kind)}")
            if kind == INT8:  # one calibration is enough for what only has to take its time
                source = replace(balanced, plan=source.plan)
            own = Precision() if kind == FP32 else _unprotected(precision, name)
            model = to_onnx(source, opset=OPSET, precision=own)
            with filling(folder):
                external.store(_path(folder, name, kind), model)
            shares[name, kind] = _share(source, model, images)
    return images, shares


def _unprotected(precision: Precision, name: str) -> Precision:
    """In the dense model nothing is decided, so nothing is protected."""
    if name != DENSE:
        return precision
    layers = {path: given._replace(terms=1) for path, given in precision.layers.items()}
    return replace(precision, protected=False, layers=layers)


def _share(source: Checkpoint, model: Any, images: Images) -> float:
    """Of the dense multiply-accumulates; from the tokens it keeps, where images have a say."""
    if source.plan.counted:
        return work.share(source.geometry, source.plan)
    taps = interface.count_taps(source.geometry.depth)
    found = TappedSession(model, taps).run(images.pixels)
    counts: NDArray[np.int64] = np.stack([found[name] for name in taps], 1)
    return work.executed_share(source.geometry, source.plan, counts.tolist())


def _timings(
    field: Field, order: NDArray[np.int64], called: str, end: float, progress: Progress
) -> Iterator[Timing]:
    """For each batch size the contenders, in as many rounds as there is time for."""

    def run(size: int, iterations: int) -> list[Timing]:
        settings = Settings(batch_sizes=(size,), warmup=0, iterations=iterations)
        return rounds.run(field, order, rounds.no_rows, settings, silent, rehearse=size == 1)

    for size, part in SIZES.items():
        progress(f"timing {called} at batch {size}")
        began = time.perf_counter()
        found = run(size, 1)
        each = time.perf_counter() - began
        further = min(int(part * (end - began) / each), MOST) - 1
        if further > 0:
            both = zip(found, run(size, further), strict=True)
            found = [replace(one, samples=one.samples + other.samples) for one, other in both]
        yield from found
