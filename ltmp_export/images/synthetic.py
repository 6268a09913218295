"""Pictures with structure, where nobody gives any."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ltmp_export.plan.geometry import Geometry


def picture(rng: np.random.Generator, vit: Geometry, busyness: float) -> NDArray[np.float32]:
    """Smooth colour fields, shapes with edges, fine texture.

    Args:
        rng: Draws it.
        vit: What it must have.
        busyness: How much there is on it, in [0, 1].

    Returns:
        [channels, H, W], roughly of mean 0 and deviation 1.
    """
    channels, height, width = vit.input_size
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    image = np.zeros((channels, height, width))
    for _ in range(3):
        wave = np.sin(2 * np.pi * (rng.uniform(-1.5, 1.5) * x + rng.uniform(-1.5, 1.5) * y))
        image += rng.normal(0, 0.4, (channels, 1, 1)) * wave
    for _ in range(int(1 + 14 * busyness)):
        cx, cy, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.04, 0.25)
        if rng.random() < 0.5:
            inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        else:
            inside = (abs(x - cx) < radius) & (abs(y - cy) < radius * rng.uniform(0.3, 1.5))
        texture = 0.5 * np.sin(2 * np.pi * rng.uniform(4, 24) * (x + rng.uniform(-1, 1) * y))
        colour = rng.normal(0, 1.2, (channels, 1, 1))
        image = np.where(inside, colour + texture * rng.random(), image)
    image += rng.normal(0, 0.03, image.shape)
    return np.asarray(image, dtype=np.float32)
