"""What the commands have in common: a checkpoint to begin with, and words on progress."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ltmp_export.checkpoint import Checkpoint, load_checkpoint
from ltmp_export.choices import Choices

Progress = Callable[[str], None]
DIGITS = "digits_ltmp.pth.tar"  # the embedded checkpoint


def silent(message: str) -> None:
    """Progress for nobody."""


def loaded(
    checkpoint: str | Path | Checkpoint, choices: Choices | None, progress: Progress
) -> Checkpoint:
    """A checkpoint read now, or one that was read before.

    Raises:
        InputError: It cannot be read or used.
        ValueError: Choices are given for one that was read before.
    """
    if not isinstance(checkpoint, Checkpoint):
        progress("reading the checkpoint")
        return load_checkpoint(checkpoint, choices)
    if choices is not None:
        raise ValueError("choices belong to load_checkpoint when a Checkpoint is given")
    return checkpoint
