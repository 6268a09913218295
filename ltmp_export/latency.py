"""How long an exported model takes per image, and what it saves against the dense model.

Nothing is removed from the samples: the figures are quantiles over every run of every image. The
reduced model and its baseline are timed one after the other, each with a session of its own that
is gone before the next is opened, so that their threads never compete.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ltmp_export import runtime
from ltmp_export.errors import InputError
from ltmp_export.inputs import Images, batches
from ltmp_export.macs import dense_macs, macs
from ltmp_export.vit import Vit

SCHEMA_VERSION = 1
ITERATIONS = 10
WARMUP = 10


@dataclass(frozen=True)
class Timing:
    """One model at one batch size; times are milliseconds per image (of a batch, its share).

    Attributes:
        model: "reduced", "dense" or the baseline's file name.
        batch_size: Images in one run.
        median: Median over all images and runs.
        p10: 10th percentile.
        p90: 90th percentile.
        runs: Number of samples behind them.
        images_per_second: From the median.
        per_image: [images] median of each image (of the batch it was in).
    """

    model: str
    batch_size: int
    median: float
    p10: float
    p90: float
    runs: int
    images_per_second: float
    per_image: tuple[float, ...]


@dataclass(frozen=True)
class BenchReport:
    """What was measured, on what.

    Attributes:
        model: The exported file.
        baseline: "dense" (made from the same weights), a file name, or None.
        provider: Execution providers of the session, the one asked for first.
        threads: Threads of an operator.
        images: Where the images come from.
        names: Name of each image.
        tokens: [images][depth] tokens after each block, as run.
        initial_tokens: Tokens before the first block.
        gmacs: Executed 10^9 multiply-accumulates, mean over images.
        dense_gmacs: The same without reduction.
        baseline_gmacs: The baseline's, or None where it is a file of unknown work.
        accuracy: Share of images whose top-1 is the label, or None without labels.
        baseline_accuracy: The same for the baseline.
        timings: For each batch size, the model and then the baseline.
    """

    model: str
    baseline: str | None
    provider: str
    threads: int
    images: str
    names: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    initial_tokens: int
    gmacs: float
    dense_gmacs: float
    baseline_gmacs: float | None
    accuracy: float | None
    baseline_accuracy: float | None
    timings: tuple[Timing, ...]

    def speedup(self, batch_size: int) -> float | None:
        """Baseline median over model median at a batch size, or None without a baseline."""
        pair = [timing for timing in self.timings if timing.batch_size == batch_size]
        return pair[1].median / pair[0].median if len(pair) == 2 else None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        sizes = dict.fromkeys(timing.batch_size for timing in self.timings)
        return asdict(self) | {
            "schema_version": SCHEMA_VERSION,
            "kind": "bench",
            "unit": "milliseconds per image",
            "macs_share": self.gmacs / self.dense_gmacs,
            "speedup": {str(size): self.speedup(size) for size in sizes},
        }


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        batch_sizes: Images per run, one row of figures for each.
        threads: Threads of an operator; all processors by default.
        warmup: Runs before the first counted one, spread over images of few and many tokens.
        iterations: Counted runs of every image.
        providers: Execution providers by onnxruntime's names.
    """

    batch_sizes: tuple[int, ...] = (1,)
    threads: int | None = None
    warmup: int = WARMUP
    iterations: int = ITERATIONS
    providers: tuple[str, ...] = (runtime.CPU,)

    def __post_init__(self) -> None:
        least = {"batch size": min(self.batch_sizes, default=0), "iterations": self.iterations}
        least["threads"] = 1 if self.threads is None else self.threads
        for what, value in least.items():
            if value < 1:
                raise InputError(f"{what} is {value}; expected at least 1")
        if len(set(self.batch_sizes)) < len(self.batch_sizes):
            raise InputError(f"batch sizes {list(self.batch_sizes)}: one is there twice")
        if self.warmup < 0:
            raise InputError(f"warmup is {self.warmup}; expected 0 or more")


def measure(
    model: onnx.ModelProto,
    vit: Vit,
    images: Images,
    settings: Settings,
    *,
    name: str,
    baseline: onnx.ModelProto | None = None,
    baseline_name: str | None = None,
) -> BenchReport:
    """Time a model, and a baseline on the same images.

    Args:
        model: The exported model.
        vit: Its geometry.
        images: Images to run; every one is run `settings.iterations` times at each batch size.
        settings: How to measure.
        name: The model's file.
        baseline: What to compare with.
        baseline_name: Its name in the report.

    Raises:
        UnavailableError: A provider is missing.
        ExportError: onnxruntime does not run the model.
    """
    logits, counts = _observe(model, vit, images, settings)
    order = np.argsort(counts.sum(axis=1), kind="stable")
    contenders = [(model, "reduced")]
    if baseline is not None:
        contenders.append((baseline, baseline_name or "dense"))
    timings: list[Timing] = []
    baseline_logits = None
    for index, (contender, label) in enumerate(contenders):
        session = _open(contender, settings)
        if index == 1:
            baseline_logits = np.concatenate([_logits(session, p[None]) for p in images.pixels])
        timings += [
            _time(session, images.pixels, b, order, settings, label) for b in settings.batch_sizes
        ]
        provider, threads = session.provider, session.threads
        del session
    timings.sort(key=lambda timing: settings.batch_sizes.index(timing.batch_size))
    return BenchReport(
        model=name,
        baseline=baseline_name if baseline is not None else None,
        provider=provider,
        threads=threads,
        images=images.origin,
        names=images.names,
        tokens=tuple(tuple(int(n) for n in row) for row in counts),
        initial_tokens=vit.patches + 1,
        gmacs=float(np.mean([macs(vit, row) for row in counts])) / 1e9,
        dense_gmacs=dense_macs(vit) / 1e9,
        baseline_gmacs=dense_macs(vit) / 1e9 if baseline_name == "dense" else None,
        accuracy=_accuracy(logits, images),
        baseline_accuracy=None if baseline_logits is None else _accuracy(baseline_logits, images),
        timings=tuple(timings),
    )


def _open(model: onnx.ModelProto, settings: Settings) -> runtime.Session:
    return runtime.Session(model, providers=settings.providers, threads=settings.threads)


def _logits(session: runtime.Session, pixels: NDArray[np.float32]) -> NDArray[Any]:
    return session.run(pixels)[0]


def _observe(
    model: onnx.ModelProto, vit: Vit, images: Images, settings: Settings
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Logits [n, classes] and token counts [n, depth] of each image, untimed."""
    taps = runtime.count_taps(vit.depth)
    session = runtime.TappedSession(
        model, taps, providers=settings.providers, threads=settings.threads
    )
    found = [session.run(pixels[None]) for pixels in images.pixels]
    counts = [np.concatenate([outputs[name] for name in taps]) for outputs in found]
    return np.concatenate([outputs["logits"] for outputs in found]), np.stack(counts)


def _time(
    session: runtime.Session,
    pixels: NDArray[np.float32],
    batch_size: int,
    by_tokens: NDArray[np.int64],
    settings: Settings,
    label: str,
) -> Timing:
    """Run every batch in turn, `iterations` times over; milliseconds per image."""
    groups = batches(len(pixels), batch_size)
    inputs = [np.ascontiguousarray(pixels[index]) for index in groups]
    spread = np.linspace(0, len(by_tokens) - 1, max(settings.warmup, 1)).round().astype(int)
    for image in by_tokens[spread][: settings.warmup]:
        session.run(inputs[int(image) // batch_size])
    samples = np.empty((settings.iterations, len(inputs)))
    for iteration in range(settings.iterations):
        for column, batch in enumerate(inputs):
            start = time.perf_counter()
            session.run(batch)
            samples[iteration, column] = time.perf_counter() - start
    samples *= 1e3 / batch_size
    median, p10, p90 = (float(np.quantile(samples, q)) for q in (0.5, 0.1, 0.9))
    per_batch = np.median(samples, axis=0)
    per_image = tuple(float(per_batch[i // batch_size]) for i in range(len(pixels)))
    return Timing(label, batch_size, median, p10, p90, samples.size, 1e3 / median, per_image)


def _accuracy(logits: NDArray[Any], images: Images) -> float | None:
    if images.labels is None:
        return None
    return float((logits.argmax(axis=1) == images.labels).mean())
