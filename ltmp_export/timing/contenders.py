"""What can be timed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REDUCED = "reduced"
DENSE = "dense"
GEMMS = "linear layers"
EAGER = "eager PyTorch"
LITERAL = "literal export"
DENSE_INT8 = "dense int8"

_NO_MODEL_FILE = ("gemms", "eager")


@dataclass(frozen=True)
class Contender:
    """One model in one runtime.

    Attributes:
        label: Its name in reports, one of its own for each.
        kind: What runs it: an ONNX file in one of the `runtimes`, by its name; "gemms" for matrix
            products alone (see `roofline`), "eager" for a checkpoint in eager PyTorch.
        file: What is run; a path that holds from any folder.
        providers: onnxruntime's execution providers.
        choices: What was stated about a checkpoint (`Choices.to_json`).
        base_checkpoint: The weights of a thresholds-only checkpoint.
        single: Whether it takes one image at a time only.
        required: Whether nothing is measured when this one does not run.
    """

    label: str
    kind: str
    file: Path
    providers: tuple[str, ...] = ()
    choices: dict[str, Any] = field(default_factory=dict)
    base_checkpoint: Path | None = None
    single: bool = False
    required: bool = False

    @property
    def bytes(self) -> int | None:
        """Size of the model with its weights; None where what is run is no model file.

        Weights beside a model begin with its name, and nothing else does.
        """
        if self.kind in _NO_MODEL_FILE:
            return None
        own = (p for p in self.file.parent.iterdir() if p.name.startswith(self.file.name))
        return sum(path.stat().st_size for path in own)

    def start(self) -> dict[str, Any]:
        """What its process is told first."""
        return {
            "kind": self.kind,
            "file": str(self.file),
            "providers": self.providers,
            "choices": self.choices,
            "base_checkpoint": None if self.base_checkpoint is None else str(self.base_checkpoint),
        }
