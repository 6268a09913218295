"""A clock that is made up: what a file takes follows from the tokens it keeps, and from nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ltmp_export.graph import interface
from ltmp_export.progress import Progress
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.timing.contenders import DENSE, REDUCED
from ltmp_export.timing.settings import Settings
from ltmp_export.timing.statistics import Timing
from ltmp_export.timing.tabulate import AGAIN

FIXED, TOKEN = 0.2, 0.002  # milliseconds of an image, and of each token of each block


_BLOCK = re.compile(r"^blocks\.(\d+)\.")


@dataclass
class Clock:
    """It stands in the place of `timing.many.times`.

    Attributes:
        tokens: Of the models' images, before the first block.
        slower: What a file takes when it is verified, as a multiple of what it took before.
        twins: How much longer the second of two identical files takes, as a share.
        timed: The labels that were timed together, in order.
        batches: Of each file: the only batch it takes, or None.
    """

    tokens: int = 65
    slower: float = 1.0
    twins: float = 0.0
    timed: list[tuple[str, ...]] = field(default_factory=list)
    batches: list[int | None] = field(default_factory=list)

    def times(
        self,
        files: Mapping[str, Path],
        pixels: NDArray[np.float32],
        settings: Settings,
        folder: Path,
        progress: Progress,
    ) -> list[Timing]:
        """As `many.times`."""
        self.timed.append(tuple(files))
        return [
            Timing(label, size, len(pixels), ((self._of(label, file, pixels),) * batches,))
            for size in settings.sizes
            for batches in [-(-len(pixels) // size)]
            for label, file in files.items()
        ]

    def _of(self, label: str, file: Path, pixels: NDArray[np.float32]) -> float:
        model = onnx.load(file)
        self.batches.append(interface.fixed_batch(model))
        depth = 1 + max(int(n) for one in model.graph.initializer for n in _BLOCK.findall(one.name))
        dense, taps = FIXED + TOKEN * depth * self.tokens, interface.count_taps(depth)
        if label in (DENSE, AGAIN):
            return dense * (1 + (self.twins if label == AGAIN else 0.0))
        if interface.missing_tensors(model, taps):
            return dense
        session, step = TappedSession(model, taps), interface.fixed_batch(model) or len(pixels)
        runs = [session.run(pixels[at : at + step]) for at in range(0, len(pixels), step)]
        parts = [[np.broadcast_to(run[name], step) for name in taps] for run in runs]
        counts = np.concatenate(parts, axis=1)
        received = np.concatenate([np.full_like(counts[:1], self.tokens), counts[:-1]])
        left = FIXED + TOKEN * float((received + 2 * counts).mean(1).sum()) / 3
        return left * (self.slower if label == REDUCED else 1.0)
