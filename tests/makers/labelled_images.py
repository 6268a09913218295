"""Small labelled images: folders of pictures, `.npz` files, sets that tell their images apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ltmp_export.images import pictures, sets
from ltmp_export.images.labelled import Arrays, Labelled
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.images.sets import Kind
from ltmp_export.plan.vit import Vit

HALF = Preprocessing((0.5,) * 3, (0.5,) * 3, 1.0, "bilinear")
THREE = Vit("vit", (8, 8), (4, 4), 3, 3, 1, 64, 64, 1, 64, 1e-6, "gelu", "token")
KIND = Kind(THREE, HALF)


def draw(folder: Path, counts: Mapping[str, int]) -> Path:
    """Pictures of noise, each another one, as `CLASS/NUMBER.png`."""
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            rng = np.random.default_rng(100 * number + index)
            pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def store(path: Path, count: int, labels: Sequence[int] | None = None) -> Path:
    """An `.npz` of different images."""
    pixels = np.random.default_rng(0).normal(size=(count, 3, 8, 8)).astype(np.float32)
    if labels is None:
        np.savez(path, images=pixels)
    else:
        np.savez(path, images=pixels, labels=np.array(labels))
    return path


def numbered(count: int, labels: Sequence[int] | None = None) -> Labelled:
    """A set whose image i is filled with i."""
    pixels = np.arange(count, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 2, 2))
    return Labelled(
        Arrays(pixels.astype(np.float32)),
        np.arange(count),
        None if labels is None else np.array(labels),
        tuple(map(str, range(count))),
        "numbers",
    )


def labels_of(images: Labelled) -> dict[str, int]:
    return dict(zip(images.names, images.require_labels().tolist(), strict=True))


def split(
    source: Path,
    kind: Kind = KIND,
    *,
    augment: str = pictures.PLAIN,
    share: float = 0.25,
    seed: int = 0,
    validation: Path | None = None,
) -> tuple[Labelled, Labelled]:
    return sets.split(source, kind, augment=augment, share=share, seed=seed, validation=validation)
