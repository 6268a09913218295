"""What was measured, on what, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ltmp_export.files.plain import plain
from ltmp_export.images.inputs import batches
from ltmp_export.timing import noise
from ltmp_export.timing.contenders import DENSE, GEMMS, REDUCED
from ltmp_export.timing.machine import Environment
from ltmp_export.timing.profiling import Profile
from ltmp_export.timing.statistics import Timing

SCHEMA_VERSION = 4


@dataclass(frozen=True)
class Entry:
    """One contender, measured or not.

    Attributes:
        label: Its name in `timings`.
        engine: Runtime and version, "" if it did not start.
        reason: Why it was not timed, else "".
        peak_mb: Largest memory of its process in MB (10^6 bytes), or None if not known.
        agreement: Share of images with the top-1 of the exported file, or None if not run.
        bytes: Size of the model with its weights, or None where there is no such file.
        accuracy: Share of images whose top-1 is the label, or None if not run, or without labels.
    """

    label: str
    engine: str
    reason: str = ""
    peak_mb: float | None = None
    agreement: float | None = None
    bytes: int | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Roofline:
    """The model against its linear layers alone, in the same runtime and rounds.

    Attributes:
        batch_size: Images in one run.
        gflops: 10^9 operations a second of the model, two for each multiply-accumulate.
        gemm_ms: Milliseconds per image of the linear layers alone, best of the rounds.
        gemm_gflops: 10^9 operations a second of these.
    """

    batch_size: int
    gflops: float
    gemm_ms: float
    gemm_gflops: float


@dataclass(frozen=True)
class Tried:
    """One number of threads in the short runs before, see `threads`.

    Attributes:
        model: Name of what was run.
        batch_size: Images in one run.
        threads: Threads of an operator.
        best: Milliseconds per image, best of the rounds.
    """

    model: str
    batch_size: int
    threads: int
    best: float


@dataclass(frozen=True)
class BenchReport:
    """What was measured, on what.

    Attributes:
        model: The exported file.
        precision: In which numbers it computes: "fp32", "fp16" or "int8".
        baseline: "dense" (made from the same weights), a file name, or None.
        scenario: "single-stream", "offline" or None.
        provider: The execution provider asked for first, which is the one that runs.
        providers: All providers of the session.
        placement: How many nodes of the exported file each provider runs.
        threads: Threads of an operator.
        images: Where the images come from.
        images_sha256: Digest of their pixels.
        names: Name of each image.
        tokens: [images][depth] tokens after each block, as run.
        initial_tokens: Tokens before the first block.
        image_gmacs: [images] executed 10^9 multiply-accumulates.
        dense_gmacs: The same without reduction.
        image_gemm_gmacs: [images] those of the linear layers alone.
        accuracy: Share of images whose top-1 is the label, or None without labels.
        baseline_accuracy: The same for the baseline.
        calibration: What int8 models beside the file are calibrated on, or None without any.
        entries: What was to be timed.
        timings: For each batch size, one for each contender.
        profile: Where the time goes, if asked for.
        environment: The machine.
        threads_tried: Short runs with other numbers of threads, where these were to be found out.
        warnings: What should be known of the images, and of figures that say little.
        outputs: What the file gives, token counts apart; all of it is read in each run.
        outgoing: Tokens of an image that go out, where the last step stands behind all blocks.
    """

    model: str
    precision: str
    baseline: str | None
    scenario: str | None
    provider: str
    providers: tuple[str, ...]
    placement: dict[str, int]
    threads: int
    images: str
    images_sha256: str
    names: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    initial_tokens: int
    image_gmacs: tuple[float, ...]
    dense_gmacs: float
    image_gemm_gmacs: tuple[float, ...]
    accuracy: float | None
    baseline_accuracy: float | None
    calibration: str | None
    entries: tuple[Entry, ...]
    timings: tuple[Timing, ...]
    profile: Profile | None
    environment: Environment
    threads_tried: tuple[Tried, ...] = ()
    warnings: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    outgoing: int | None = None

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes timed."""
        return tuple(dict.fromkeys(timing.batch_size for timing in self.timings))

    @property
    def gmacs(self) -> float:
        """Executed 10^9 multiply-accumulates, mean over images."""
        return sum(self.image_gmacs) / len(self.image_gmacs)

    @staticmethod
    def per_run(per_image: Sequence[float], batch_size: int) -> list[float]:
        """Mean of a figure of images over the images of each batch."""
        runs = batches(len(per_image), batch_size)
        return [float(np.mean([per_image[i] for i in run])) for run in runs]

    def work(self, per_image: Sequence[float], batch_size: int) -> float:
        """Mean over what was run: the last batch wraps around, so some images count twice."""
        means = self.per_run(per_image, batch_size)
        return float(np.mean([means[i // batch_size] for i in range(len(per_image))]))

    @property
    def baseline_gmacs(self) -> float | None:
        """The baseline's, None where it is a file of unknown work."""
        return self.dense_gmacs if self.baseline == DENSE else None

    @property
    def mean_tokens(self) -> tuple[float, ...]:
        """[images] tokens after a block, mean over the blocks."""
        return tuple(sum(counts) / len(counts) for counts in self.tokens)

    def timing(self, model: str, batch_size: int) -> Timing | None:
        """The times of a contender at a batch size, None if it was not timed there."""
        for timing in self.timings:
            if (timing.model, timing.batch_size) == (model, batch_size):
                return timing
        return None

    def speedup(self, batch_size: int) -> float | None:
        """Baseline time over model time at a batch size, or None without a baseline.

        Both are the best of the rounds (`Timing.best`).
        """
        model = self.timing(REDUCED, batch_size)
        baseline = None if self.baseline is None else self.timing(self.baseline, batch_size)
        if model is None or baseline is None:
            return None
        return baseline.best / model.best

    def efficiency(self, batch_size: int) -> float | None:
        """The speed-up as a share of what the saved multiply-accumulates promise.

        None where the baseline is not the dense model of the same weights.
        """
        speedup = self.speedup(batch_size) if self.baseline == DENSE else None
        if speedup is None:
            return None
        return speedup * self.work(self.image_gmacs, batch_size) / self.dense_gmacs

    def gflops(self, timing: Timing) -> float | None:
        """10^9 operations a second, two for each multiply-accumulate; None for unknown work."""
        per_image = {REDUCED: self.image_gmacs, GEMMS: self.image_gemm_gmacs}
        if timing.model == DENSE:
            return 2e3 * self.dense_gmacs / timing.best
        if timing.model not in per_image:
            return None
        return 2e3 * self.work(per_image[timing.model], timing.batch_size) / timing.best

    def roofline(self, batch_size: int) -> Roofline | None:
        """The model against its linear layers alone, None if these were not timed."""
        model, gemms = self.timing(REDUCED, batch_size), self.timing(GEMMS, batch_size)
        if model is None or gemms is None:
            return None
        gflops, gemm_gflops = self.gflops(model), self.gflops(gemms)
        if gflops is None or gemm_gflops is None:
            raise ValueError("the work of both is known")
        return Roofline(batch_size, gflops, gemms.best, gemm_gflops)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `schemas/bench.schema.json` describes."""
        sizes = self.batch_sizes
        rooflines = [self.roofline(size) for size in sizes]
        document = asdict(self) | {
            "schema_version": SCHEMA_VERSION,
            "kind": "bench",
            "unit": "milliseconds per image",
            "gmacs": self.gmacs,
            "gemm_gmacs": self.work(self.image_gemm_gmacs, 1),
            "baseline_gmacs": self.baseline_gmacs,
            "macs_share": self.gmacs / self.dense_gmacs,
            "speedup": {str(size): self.speedup(size) for size in sizes},
            "efficiency": {str(size): self.efficiency(size) for size in sizes},
            "differences": [asdict(d) | {"told": d.told} for d in noise.differences(self)],
            "roofline": [asdict(one) for one in rooflines if one is not None],
            "timings": [
                timing.to_json() | {"gflops": self.gflops(timing)} for timing in self.timings
            ],
        }
        return dict(plain(document))
