"""Times of several model files in alternating rounds, each in a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltmp_export.progress import Progress
from ltmp_export.runtimes import session
from ltmp_export.timing import rounds, threads
from ltmp_export.timing.contenders import Contender
from ltmp_export.timing.processes import filling
from ltmp_export.timing.rounds import Field
from ltmp_export.timing.settings import Settings
from ltmp_export.timing.statistics import Timing


def times(
    files: Mapping[str, Path],
    pixels: NDArray[np.float32],
    settings: Settings,
    folder: Path,
    progress: Progress,
) -> list[Timing]:
    """Time model files on the same images.

    Args:
        files: What to time, by its label.
        pixels: [n, channels, H, W] images.
        settings: Batch sizes, rounds, threads and providers.
        folder: For the images and the processes.
        progress: Called at each round.

    Returns:
        For each batch size the files in their order.

    Raises:
        InputError: The folder takes no more.
        ExportError: A model does not run.
    """
    with filling(folder):
        np.save(folder / "images.npy", pixels)
    contenders = [
        Contender(label, session.ONNXRUNTIME, file, settings.providers, required=True)
        for label, file in files.items()
    ]
    shared = {"images": str(folder / "images.npy"), "threads": threads.used(settings)}
    with contextlib.ExitStack() as stack:
        progress(f"opening {len(contenders)} models")
        field = Field(contenders, shared, folder, stack)
        order = np.arange(len(pixels))
        return rounds.run(field, order, rounds.no_rows, settings, progress)
