"""The dense digits ViT to calibrate: what is said of it, and its images in halves."""

from __future__ import annotations

from pathlib import Path

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs, sets
from ltmp_export.images.labelled import Labelled
from ltmp_export.images.sets import Kind
from ltmp_export.statements.choices import Choices

CHOICES = Choices(num_heads=2, mean=(0.5,) * 3, std=(0.5,) * 3)
EMBEDDED = inputs.fixture("digits_images.npz")
FAMILIES = families.learned()


def halves(source: Checkpoint, images: Path, samples: int, seed: int = 0) -> tuple[Labelled, ...]:
    """The images whose scores count, and those measured on."""
    chosen = sets.held_out(images, Kind.of(source)).select(samples)
    return sets.halves(chosen, seed)
