"""A made-up picture that shows whether a browser prepares pictures as this tool does."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

SIZE = 389, 283  # pixels across and down: neither even, nor those of any model
_SEED = 0


def picture() -> Image.Image:
    """Smooth fields, edges and some noise, in colours."""
    width, height = SIZE
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    rng = np.random.default_rng(_SEED)
    waves = [np.sin(2 * np.pi * (a * x + b * y)) for a, b in ((1.5, 0.5), (-0.7, 2.1), (3.3, -1.2))]
    fields = 127.5 + 90 * np.stack(waves, axis=2)
    fields[(x - 0.3) ** 2 + (y - 0.5) ** 2 < 0.04] = (250, 20, 60)
    fields[(abs(x - 0.75) < 0.12) & ((y * 40).astype(int) % 2 == 0)] = (5, 5, 5)
    noisy = fields[: height // 3, : width // 3]
    noisy += rng.integers(-40, 40, noisy.shape)
    return Image.fromarray(np.clip(fields, 0, 255).astype(np.uint8))


def encoded(shown: Image.Image) -> bytes:
    """As PNG."""
    written = io.BytesIO()
    shown.save(written, format="png")
    return written.getvalue()
