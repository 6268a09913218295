"""A model timed at several token counts, beside the dense one, in the same alternating rounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from ltmp_export.errors import InputError
from ltmp_export.files.workplace import workplace
from ltmp_export.graph import interface
from ltmp_export.images.inputs import Images
from ltmp_export.model_file import external
from ltmp_export.plan import times, work
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.plan import Plan
from ltmp_export.progress import Progress
from ltmp_export.runtimes import providers
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.timing import many, threads
from ltmp_export.timing.contenders import DENSE
from ltmp_export.timing.environment import environment
from ltmp_export.timing.handover import Handover
from ltmp_export.timing.processes import filling
from ltmp_export.timing.settings import AUTO, Settings
from ltmp_export.timing.statistics import Timing
from ltmp_export.timing.tables import Batch, Point, TimeTable, shape

AGAIN = "dense again"  # the same file in another process: how far identical files are apart
TOGETHER = 16  # images whose tokens are counted at once


class Variant(NamedTuple):
    """A model at some token counts."""

    label: str
    plan: Plan
    model: onnx.ModelProto


@dataclass(frozen=True)
class Subject:
    """What is timed.

    Attributes:
        geometry: Of the model.
        family: How it is reduced.
        precision: In which numbers it computes.
        images: That it is timed on.
        name: For messages.
    """

    geometry: Geometry
    family: str
    precision: str
    images: Images
    name: str


def resolved(settings: Settings) -> Settings:
    """The same with providers by their full names.

    Raises:
        InputError: A provider has a name that fits several, or the threads are to be found out.
        UnavailableError: One is missing.
    """
    if settings.threads == AUTO:
        raise InputError(f"--threads {AUTO}: times by token counts are those of one number; say it")
    asked = providers.resolve(
        settings.providers, ort.get_all_providers(), ort.get_available_providers()
    )
    return replace(settings, providers=asked)


def measure(
    subject: Subject,
    variants: Iterable[Variant],
    dense: onnx.ModelProto,
    settings: Settings,
    progress: Progress,
) -> TimeTable:
    """Time a model at several token counts.

    Args:
        subject: The model and the images.
        variants: It at different counts; each is written to a file before the next is asked for.
        dense: The dense model in the same numbers and form.
        settings: Batch sizes, rounds, threads and providers, `resolved`.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: The temporary folder takes no more.
        UnavailableError: The first provider runs nothing.
        ExportError: onnxruntime does not run a model.
    """
    single = interface.fixed_batch(dense) is not None
    with workplace() as folder:
        require_provider(subject, dense, settings, folder)
        files = {name: _stored(folder, "dense", dense) for name in (DENSE, AGAIN)}
        counts = {}
        for label, plan, model in variants:
            progress(f"counting tokens at {label}")
            counts[label] = plan, counted(subject, plan, model, settings)
            files[label] = _stored(folder, f"model{len(files)}", model)
        timings = many.times(files, subject.images.pixels, settings, folder, progress)

    def batch(size: int) -> Batch:
        found = {one.model: one for one in timings if one.batch_size == size}
        points = [
            Point(label, tuple(times.loads(subject.geometry, *of, size)), found[label].best)
            for label, of in counts.items()
        ]
        dense_ms, twins = of_dense(found[DENSE], found[AGAIN])
        return Batch(size, dense_ms, twins, tuple(points))

    return TimeTable(
        geometry=shape(subject.geometry),
        family=subject.family,
        precision=subject.precision,
        single=single,
        runtime=f"onnxruntime {ort.__version__}",
        providers=settings.providers,
        threads=threads.used(settings),
        rounds=settings.iterations,
        images=subject.images.described,
        batches=tuple(batch(size) for size in settings.sizes),
        environment=environment(),
        versions={package: version(package) for package in ("ltmp", "onnx", "onnxruntime")},
    )


def of_dense(one: Timing, again: Timing) -> tuple[float, float]:
    """The dense model's time, and how far two files of it are apart, as a share."""
    low, high = sorted((one.best, again.best))
    return (low + high) / 2, high / low - 1


def require_provider(
    subject: Subject, model: onnx.ModelProto, settings: Settings, folder: Path
) -> None:
    """Check that the first provider runs some of a model; the CPU's always does.

    Raises:
        UnavailableError: It does not.
    """
    if settings.providers[0] != providers.CPU:
        with filling(folder):
            files = Handover(folder, model, subject.geometry, subject.images, None, settings)
        files.profile(settings, subject.name)


def counted(
    subject: Subject, plan: Plan, model: onnx.ModelProto, settings: Settings
) -> Sequence[Sequence[int]]:
    """Tokens [n, depth] that each block's MLP runs on, of each image."""
    pixels: NDArray[np.float32] = subject.images.pixels
    if plan.counted:
        return [work.counts(subject.geometry, plan)] * len(pixels)
    taps = interface.count_taps(subject.geometry.depth)
    session = TappedSession(
        model, taps, providers=settings.providers, threads=settings.stated_threads
    )
    step = interface.fixed_batch(model) or TOGETHER
    parts = [session.run(pixels[at : at + step]) for at in range(0, len(pixels), step)]
    found: list[list[int]] = np.concatenate(
        [np.stack([part[name].reshape(-1) for name in taps], 1) for part in parts]
    ).tolist()
    return found


def _stored(folder: Path, name: str, model: onnx.ModelProto) -> Path:
    path = folder / f"{name}.onnx"
    if not path.exists():
        with filling(folder):
            external.store(path, model)
    return path
