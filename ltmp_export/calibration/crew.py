"""Where the images of a calibration run: in this process, or in processes of a cluster.

Both run the same batches, whole, and give back what each image or step shows; thresholds are found
and shares summed by one process, in the order of the images. So what is found does not depend on
how many processes there are: no score is rounded, no quantile estimated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ltmp_export import families
from ltmp_export.calibration import measure
from ltmp_export.calibration.measure import BATCH, Portion
from ltmp_export.calibration.quantiles import Look, Walk
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.distributed import stream
from ltmp_export.files import memory
from ltmp_export.images.labelled import Labelled
from ltmp_export.progress import Progress, silent
from ltmp_export.training.forms import ALIGNED
from ltmp_export.training.model import MaskedVit

Thresholds: TypeAlias = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Subject:
    """What runs.

    Attributes:
        source: The model.
        family: Name of that whose steps it takes.
        scored: Images that give scores.
        held_out: Images that are measured on.
    """

    source: Checkpoint
    family: str
    scored: Labelled = field(repr=False)
    held_out: Labelled = field(repr=False)

    def masked(self, thresholds: Thresholds) -> MaskedVit:
        """The model with these thresholds, deciding as deployed."""
        model, family = self.source.model, families.load(self.family)
        made = MaskedVit(model, family, thresholds, ALIGNED, plan=self.source.plan).eval()
        return made.to(next(model.parameters()).device)

    def scoring(self) -> MaskedVit:
        """The model with thresholds that are not looked at."""
        kinds = families.load(self.family).scalars
        return self.masked({kind: [0.5] * self.source.vit.depth for kind in kinds})


class Crew:
    """Runs the images here.

    Args:
        subject: What runs.
        workers: Processes that read images.
    """

    processes = 1

    def __init__(self, subject: Subject, workers: int = 0) -> None:
        self.subject, self.workers = subject, workers
        self._walks: list[Walk] | None = None

    def dense(self) -> NDArray[Any]:
        """What the dense model makes of the images held out, see `measure.dense_answers`."""
        subject = self.subject
        return measure.dense_answers(subject.source.model, subject.held_out, self.workers)

    def measure(self, thresholds: Thresholds) -> measure.Measured:
        """What the model with these does to them."""
        subject, model = self.subject, self.subject.masked(thresholds)
        return measure.measure(model, subject.source.vit, subject.held_out, self.workers)

    def look(self, taken: tuple[float, ...]) -> list[Look]:
        """What all images that give scores show a step, see `quantiles.Walk`."""
        if self._walks is None:
            model, device = self.subject.scoring(), next(self.subject.source.model.parameters())
            batches = self.subject.scored.batches(BATCH, self.workers)
            self._walks = [Walk(model, batch.to(device.device)) for batch in batches]
        return [walk.look(taken) for walk in self._walks]


class _Task(NamedTuple):
    """What a process is to do: `dense`, or with what is given `measure` or `look`."""

    what: str
    batch: int
    given: Any = None


class Elsewhere(Crew):
    """Runs them in processes of a cluster, see `elsewhere`."""

    def __init__(self, subject: Subject, pool: stream.Pool[_Task, Any]) -> None:
        super().__init__(subject)
        self.processes, self._pool = pool.workers, pool

    def dense(self) -> NDArray[Any]:
        """See `Crew`."""
        return np.concatenate(self._all("dense", self.subject.held_out))

    def measure(self, thresholds: Thresholds) -> measure.Measured:
        """See `Crew`."""
        found: list[Portion] = self._all("measure", self.subject.held_out, thresholds)
        return measure.together(found, self.subject.source.vit)

    def look(self, taken: tuple[float, ...]) -> list[Look]:
        """See `Crew`."""
        return self._all("look", self.subject.scored, taken)

    def _all(self, what: str, images: Labelled, given: Any = None) -> list[Any]:
        count = -(-len(images) // BATCH)
        return list(self._pool.results([_Task(what, batch, given) for batch in range(count)]))


@contextlib.contextmanager
def elsewhere(subject: Subject, workers: int, progress: Progress = silent) -> Iterator[Elsewhere]:
    """So many processes of a cluster; `cluster.connected` is entered before.

    Each has a batch to itself from beginning to end, and holds it between two blocks. One that
    takes the place of a lost one begins with its first block again.

    Args:
        subject: What runs.
        workers: Processes; they read the images, too.
        progress: Called with a few words where one starts or is lost.
    """
    make = partial(_opened, subject, memory.current_memory_limit())
    with stream.Pool(make, workers, progress=progress, placed=True) as pool:
        yield Elsewhere(subject, pool)


def _opened(subject: Subject, limit: float) -> Callable[[_Task], Any]:
    """What does a task in a process of its own, with one thread."""
    torch.set_num_threads(1)
    walks: dict[int, Walk] = {}

    def read(images: Labelled, batch: int) -> torch.Tensor:
        last = min(len(images), (batch + 1) * BATCH)
        (found,) = images.take(np.arange(batch * BATCH, last)).batches(BATCH)
        return found

    def do(task: _Task) -> Any:
        source, held_out = subject.source, subject.held_out
        with memory.memory_limit(limit):
            if task.what == "look":
                if task.batch not in walks:
                    images = read(subject.scored, task.batch)
                    walks[task.batch] = Walk(subject.scoring(), images)
                return walks[task.batch].look(task.given)
            batch = read(held_out, task.batch)
            if task.what == "dense":
                return measure.dense_portion(source.model, batch)
            return measure.portion(subject.masked(task.given), source.vit, batch, held_out.origin)

    return do
