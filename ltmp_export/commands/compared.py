"""What methods that need no training make of a model, at targets of its work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ltmp_export.timing.machine import Environment

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Compared:
    """One method at one target.

    Attributes:
        family: The method; "dense" for the model itself, timed with those of the target.
        target: Share of the dense multiply-accumulates that was asked for.
        reason: Why there is nothing of it; then the others are empty.
        mac_ratio: Share that is executed.
        tokens: Mean tokens after each block.
        top1: Share of the images whose first class is right, where there is a classifier.
        cosine: Else the mean cosine of its features with the dense model's.
        milliseconds: An image's, by batch size.
        ratio: The same over the dense model's, in the same rounds.
        noise: How far runs of the same images are from their median, by batch size.
    """

    family: str
    target: float
    reason: str = ""
    mac_ratio: float | None = None
    tokens: tuple[float, ...] = ()
    top1: float | None = None
    cosine: float | None = None
    milliseconds: Mapping[int, float] | None = None
    ratio: Mapping[int, float] | None = None
    noise: Mapping[int, float | None] | None = None

    @property
    def worth(self) -> float:
        """What it gets right, or how near it is to the dense model; higher is better."""
        found = self.cosine if self.top1 is None else self.top1
        return -1.0 if found is None else found


@dataclass(frozen=True)
class CompareReport:
    """What was compared.

    Attributes:
        checkpoint: The file.
        images: Where they come from.
        count: How many were measured on.
        rows: Target by target the model itself, and a row for each method.
        batch_sizes: That were timed.
        threads: Of an operator.
        places: Blocks of the methods that reduce at a few, where the user did not state them.
        environment: The machine.
        seconds: Time taken.
        notes: What was assumed.
        warnings: What looks wrong.
    """

    checkpoint: str
    images: str
    count: int
    rows: tuple[Compared, ...]
    batch_sizes: tuple[int, ...]
    threads: int
    places: tuple[int, ...]
    environment: Environment
    seconds: float
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def dense(self) -> Compared:
        """The model itself."""
        return self.rows[0]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"schema_version": SCHEMA_VERSION, "kind": "compare"}
