"""What a run is after: all that tells one kind of training from another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ltmp_export.plan.plan import Plan
from ltmp_export.training.processes import Process
from ltmp_export.training.record import Part, Record


class Goal(ABC):
    """Something to be learned, which `loop.Trainer` takes through its steps.

    Attributes:
        figures: How many numbers `loss` tells beside it.
        terms: The names of `Record.terms`.
        model: What learns; what it gives for images [B, channels, height, width] has `logits`.
        optimizers: Of what learns; each group has its `initial_lr`.
        plan: What the model does to tokens, beside the thresholds that it learns.
        target: Share of the blocks' multiply-accumulates asked for, or of time, where there is one.
    """

    figures: int
    terms: tuple[str, ...] = ()
    model: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    plan: Plan
    target: float | None = None

    @abstractmethod
    def watched(self) -> Iterable[nn.Parameter]:
        """Parameters of which a gradient that is not finite ends the run."""

    @abstractmethod
    def loss(
        self, output: Any, entropy: Tensor, part: Part, ahead: Tensor | None, place: Process
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss of a part, and what is told of it.

        Args:
            output: What the model gave for the part.
            entropy: Its cross-entropy.
            part: The part.
            ahead: What `ahead` gave for the step.
            place: This process.

        Returns:
            A scalar to differentiate, and so many detached scalars as `figures`, whose mean over
            all parts and processes `record` gets.
        """

    @abstractmethod
    def record(
        self, epoch: int, number: int, rate: float, entropy: float, accuracy: float,
        told: Sequence[float],
    ) -> Record:  # fmt: skip
        """What a step gave.

        Args:
            epoch: Its epoch.
            number: Its number.
            rate: The schedule's factor.
            entropy: Its cross-entropy.
            accuracy: Share of its images with the right top-1.
            told: Means of what `loss` told.
        """

    def begin(self, epoch: int, step: int) -> None:
        """Told before the steps of an epoch, and from which of them on they are taken."""
        return None

    def share(self, kept: Tensor) -> Tensor:
        """What the target is one of, from the mean mask after each block [depth].

        Raises:
            ValueError: There is no target.
        """
        raise ValueError("nothing is asked for")

    def state(self) -> Mapping[str, Tensor]:
        """What is kept from step to step beside what learns, by name, to be copied from and to."""
        return {}

    def ahead(self, outputs: Iterable[Any]) -> Tensor | None:
        """What all parts of a step have to know of each other, from their outputs, if anything."""
        return None

    def limit(self, scaler: torch.amp.GradScaler) -> None:
        """Bound the gradients before a step, where they are bounded."""
        return None

    def settle(self) -> None:
        """Put what a step moved back to where it may be."""
        return None

    @abstractmethod
    def thresholds(self) -> dict[str, list[float]]:
        """The thresholds as they are, per kind one for each block."""

    @abstractmethod
    def own(self) -> Mapping[str, Tensor]:
        """The reduction's own weights, by their names in a checkpoint."""

    @abstractmethod
    def deployed(self) -> nn.Module:
        """What is deployed of it: a module that takes images and gives `logits` and `counts`."""
