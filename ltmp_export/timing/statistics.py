"""What samples say: the best, the quantiles, how images differ, and how runs differ.

A sample is the time of one run of one batch, divided by its images: milliseconds per image. All
samples are kept. Two figures answer two questions:

* `best`, the mean over images of the fastest round, is the cost of the work itself: whatever else
  the machine does only adds time. Speed-ups, efficiencies and images per second come from it.
* The quantiles over all samples are what a user sees, image after image.

How much images differ from each other (they keep different numbers of tokens) is kept apart from
how much runs of the same image differ (noise).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Timing:
    """One model at one batch size; times are milliseconds per image (of a batch, its share).

    Attributes:
        model: Name of what was timed, for example "reduced" or "dense".
        batch_size: Images in one run.
        images: Number of images; the last batch wraps around to the first ones.
        samples: [rounds][batches] time of each run.
    """

    model: str
    batch_size: int
    images: int
    samples: tuple[tuple[float, ...], ...]

    @property
    def best(self) -> float:
        """Mean over the images of the fastest round of each."""
        return float(np.mean(self.per_image))

    @property
    def median(self) -> float:
        """Median over all samples."""
        return self.quantile(0.5)

    @property
    def images_per_second(self) -> float:
        """All images over their total time, from `best`."""
        return 1e3 / self.best

    @property
    def per_image(self) -> tuple[float, ...]:
        """[images] fastest round of each image (of the batch it was in)."""
        return self._of_images(np.min(self.samples, axis=0))

    @property
    def image_spread(self) -> tuple[float, float]:
        """10th and 90th percentile of the images' medians, relative to the middle one.

        (-0.1, 0.2) says: of ten images one takes 10 % less than usual, or even less, and one takes
        20 % more, or even more.
        """
        medians = np.median(self.samples, axis=0)
        low, middle, high = np.quantile(medians, (0.1, 0.5, 0.9))
        return float(low / middle - 1), float(high / middle - 1)

    @property
    def noise(self) -> float | None:
        """How far a run usually is from the median of the same images, relative to it.

        The median of all such distances; None of a single round.
        """
        if len(self.samples) < 2:
            return None
        return float(np.median(abs(self.samples / np.median(self.samples, axis=0) - 1)))

    def quantile(self, q: float) -> float:
        """A quantile over all samples, q from 0 to 1."""
        return float(np.quantile(self.samples, q))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.model,
            "batch_size": self.batch_size,
            "best": self.best,
            **{f"p{q}": self.quantile(q / 100) for q in (10, 50, 90, 99)},
            "images_per_second": self.images_per_second,
            "image_spread": self.image_spread,
            "noise": self.noise,
            "per_image": self.per_image,
            "samples": self.samples,
        }

    def _of_images(self, per_batch: Sequence[float]) -> tuple[float, ...]:
        return tuple(float(per_batch[i // self.batch_size]) for i in range(self.images))
