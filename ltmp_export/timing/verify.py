"""A file against the dense one: is its time what was asked for?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltmp_export.progress import Progress
from ltmp_export.timing import many
from ltmp_export.timing.contenders import DENSE, REDUCED
from ltmp_export.timing.settings import Settings
from ltmp_export.timing.tables import TWINS
from ltmp_export.timing.tabulate import AGAIN, of_dense

ATTEMPTS = 3  # at rounds in which two identical files are as fast as each other


@dataclass(frozen=True)
class Verified:
    """What was measured.

    Attributes:
        milliseconds: Per image of the file, best of the rounds.
        dense: Of the dense model, mean of two identical files.
        twins: How far these are apart, as a share.
        runs_by: How far runs of the same images usually are apart, see `Timing.noise`.
        rounds: Runs of each image.
    """

    milliseconds: float
    dense: float
    twins: float
    runs_by: float | None
    rounds: int

    @property
    def share(self) -> float:
        """Of the dense model's time."""
        return self.milliseconds / self.dense

    @property
    def conclusive(self) -> bool:
        """Whether identical files are equally fast, within 2 %."""
        return self.twins <= TWINS


def against_dense(
    dense: Path,
    reduced: Path,
    pixels: NDArray[np.float32],
    settings: Settings,
    folder: Path,
    progress: Progress,
) -> Verified:
    """Time a file, the dense one and this once more, in alternating rounds.

    Where the two identical files differ by more than 2 %, it is done again, three times at most,
    and the time with the least difference counts.

    Args:
        dense: The dense model's file.
        reduced: The file.
        pixels: [n, channels, H, W] images.
        settings: One batch size, rounds, threads, and providers by their full names.
        folder: For the images and the processes.
        progress: Called at each round.

    Raises:
        InputError: The folder takes no more.
        ExportError: A model does not run.
    """
    files = {DENSE: dense, REDUCED: reduced, AGAIN: dense}
    found: list[Verified] = []
    for _ in range(ATTEMPTS):
        one, own, again = many.times(files, pixels, settings, folder, progress)
        middle, twins = of_dense(one, again)
        found.append(Verified(own.best, middle, twins, own.noise, settings.iterations))
        if found[-1].conclusive:
            break
    return min(found, key=lambda one: one.twins)
