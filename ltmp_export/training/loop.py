"""The steps of a run: the same result from one process, several, or a step in parts.

Which images a step takes, and how each is augmented, depends on the seed, the epoch and the image
alone. A step's loss is that of all its images together. What is learned, and by which loss, is the
goal's.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ltmp_export.errors import InputError
from ltmp_export.images.labelled import Labelled, load
from ltmp_export.training.goal import Goal
from ltmp_export.training.processes import Process
from ltmp_export.training.record import Part, Record
from ltmp_export.training.settings import Running

G = TypeVar("G", bound=Goal)


@dataclass(frozen=True)
class Course:
    """Which images each step takes.

    Attributes:
        images: How many there are.
        settings: Epochs, batch size, parts and seed.
        rank: Number of this process.
        count: How many processes there are.
    """

    images: int
    settings: Running
    rank: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        size, parts = self.settings.batch_size, self.settings.accumulate * self.count
        if size % parts:
            raise InputError(
                f"a batch of {size} images cannot be shared by {self.count} processes in "
                f"{self.settings.accumulate} parts each; give a multiple of {parts}"
            )
        if self.images < size:
            raise InputError(
                f"{self.images} images to train on, fewer than a batch of {size}; give more, or a "
                "smaller --batch-size"
            )

    @property
    def steps(self) -> int:
        """Steps of an epoch; images that do not fill a batch wait for another epoch."""
        return self.images // self.settings.batch_size

    @property
    def total(self) -> int:
        """Steps of all epochs."""
        return self.steps * self.settings.epochs

    def parts(self, epoch: int, first: int = 0) -> Iterator[list[list[int]]]:
        """The images of this process in the steps of an epoch from `first` on, part by part."""
        size, parts = self.settings.batch_size, self.settings.accumulate
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(self.images)
        for start in range(first * size, self.steps * size, size):
            shares = np.split(order[start : start + size], parts * self.count)
            yield [share.tolist() for share in shares[self.rank :: self.count]]

    def rate(self, step: int) -> float:
        """Cosine schedule from 1 to 0 over all steps."""
        return 0.5 * (1 + math.cos(math.pi * step / self.total))


class Trainer(Generic[G]):
    """A run and its state.

    Args:
        goal: What is learned.
        data: What it is trained on.
        settings: How.
        process: This process.
        workers: Processes that read images.
    """

    def __init__(
        self, goal: G, data: Labelled, settings: Running, process: Process, workers: int = 0
    ) -> None:
        self.course = Course(len(data), settings, process.rank, process.count)
        self.goal = goal
        self.model: Any = goal.model.to(process.device).train()
        self.scaler = torch.amp.GradScaler(
            process.device.type, enabled=settings.precision == "float16"
        )
        self.data, self.settings = data, settings
        self.process, self.workers = process, workers
        self.labels = torch.from_numpy(data.require_labels())
        self._shared = process.share(self.model)

    def run(self, first: int = 0) -> Iterator[Record]:
        """The steps from number `first` on; after each, all processes hold the same state."""
        steps = self.course.steps
        for epoch in range(first // steps, self.settings.epochs):
            start = max(first - epoch * steps, 0)
            self.goal.begin(epoch, start)
            chosen = list(self.course.parts(epoch, start))
            for number, parts in enumerate(self._batches(epoch, chosen), epoch * steps + start):
                yield self._step(epoch, number, parts)

    def schedule(self, number: int) -> float:
        """Set the learning rates of a step, and return their common factor."""
        rate = self.course.rate(number)
        for optimizer in self.goal.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate
        return rate

    def _batches(
        self, epoch: int, chosen: Sequence[Sequence[Sequence[int]]]
    ) -> Iterator[list[Part]]:
        keys = [[(epoch, i) for i in part] for parts in chosen for part in parts]
        stream = load(_Augmented(self.data, self.settings.seed), keys, self.workers)
        for parts in chosen:
            yield [Part(next(stream), self.labels[part]) for part in parts]

    def _step(self, epoch: int, number: int, parts: Sequence[Part]) -> Record:
        rate = self.schedule(number)
        for optimizer in self.goal.optimizers:
            optimizer.zero_grad(set_to_none=True)
        parts = [Part(*(tensor.to(self.process.device) for tensor in part)) for part in parts]
        ahead = None if len(parts) == 1 else self._ahead(parts)
        told = torch.zeros(2 + self.goal.figures, device=self.process.device)
        for index, part in enumerate(parts):
            last = index + 1 == len(parts)
            wait = (
                contextlib.nullcontext()
                if last or self.process.count == 1
                else self._shared.no_sync()
            )
            with wait:
                told += self._learn(part, ahead) / len(parts)
        self._require_finite(number)
        self.goal.limit(self.scaler)
        for optimizer in self.goal.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.goal.settle()
        entropy, accuracy, *figures = self.process.mean(told).tolist()
        return self.goal.record(epoch, number, rate, entropy, accuracy, figures)

    def _ahead(self, parts: Sequence[Part]) -> Tensor | None:
        """What the parts of a step have to know of each other before any of them learns."""
        with torch.no_grad():
            return self.goal.ahead(self._output(self.model, part) for part in parts)

    def _learn(self, part: Part, ahead: Tensor | None) -> Tensor:
        """Add the gradients of one part; its cross-entropy, accuracy and what the goal tells."""
        output = self._output(self._shared, part)
        with torch.autocast(self.process.device.type, enabled=False):
            logits = output.logits.float()
            smoothing = self.settings.label_smoothing
            entropy = F.cross_entropy(logits, part.labels, label_smoothing=smoothing)
            whole, figures = self.goal.loss(output, entropy, part, ahead, self.process)
            loss = whole / self.settings.accumulate
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        right = (logits.argmax(1) == part.labels).float().mean()
        return torch.stack([entropy.detach(), right, *figures])

    def _output(self, model: Any, part: Part) -> Any:
        with self.process.autocast(self.settings.precision):
            return model(part.images)

    def _require_finite(self, number: int) -> None:
        """With float16 a step is passed over where a gradient is not finite, and the scale halved.

        Raises:
            InputError: A gradient is not finite; with float16, not at any scale.
        """
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1.0:
            raise InputError(
                f"float16 gave no finite gradient at any scale up to step {number}; take "
                "--precision bfloat16 or float32"
            )
        gradients = [p.grad for p in self.goal.watched() if p.grad is not None]
        if not self.scaler.is_enabled() and not all(g.isfinite().all() for g in gradients):
            raise InputError(
                f"the gradient of step {number} is not finite: look for images or weights out of "
                "range, or lower the learning rates"
            )


class _Augmented:
    """Images by (epoch, number), each augmented by a seed of its own."""

    def __init__(self, data: Labelled, seed: int) -> None:
        self.data, self.seed = data, seed

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        with _seeded(*np.random.SeedSequence((self.seed, *key)).generate_state(3).tolist()):
            return self.data[key[1]]


@contextlib.contextmanager
def _seeded(*seeds: int) -> Iterator[None]:
    """The three random states that transforms draw from, for a while."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seeds[0])
        np.random.seed(seeds[1])
        torch.manual_seed(seeds[2])
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
