"""What a machine is to times that were taken on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Environment:
    """The machine and what ran on it.

    Attributes:
        processor: Name of the CPU as the system gives it.
        processors: How many of them the process may use.
        system: Operating system and architecture.
        onnxruntime: Version.
        available_providers: Execution providers of that onnxruntime.
    """

    processor: str
    processors: int
    system: str
    onnxruntime: str
    available_providers: tuple[str, ...]
