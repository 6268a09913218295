"""Tasks to processes of a cluster, results in the order of the tasks, whoever was lost between.

A task goes to one process at a time. No more than so many tasks are out or waiting for an earlier
one, so that memory does not grow with them. A process that is lost is replaced, and its task given
again; so what comes back depends neither on how many there are nor on who fails.

Where tasks come in rounds and a process can go on from what it did in the round before, each goes
always to the same one. A new one in its place must be able to begin anew.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from ltmp_export.distributed import cluster
from ltmp_export.errors import ExportError, LtmpError
from ltmp_export.files import filesystems
from ltmp_export.progress import Progress, silent

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 3  # tasks for each process that are out, or done before an earlier one is
TRIES = 4  # of a task, and of starting a process
_QUIET = 20.0  # seconds until whoever waits is told
_KEYS = itertools.count()  # of what processes are to do, which they outlive


class Worker:
    """A process of the cluster."""

    def __init__(self) -> None:
        self._made: tuple[int, Callable[[Any], Any]] | None = None

    def ready(self) -> str:
        """Which process it is."""
        return f"process {os.getpid()} on {socket.gethostname()}"

    def do(self, key: int, make: Sequence[Any], task: Any) -> Any:
        """What comes of a task; an error of ours is handed back as it is.

        Args:
            key: Of `make`, which is fetched and called with the first task of its key.
            make: One reference to what gives what does a task; Ray would fetch it with every task
                if it were not in a sequence.
            task: It.
        """
        try:
            if self._made is None or self._made[0] != key:
                self._made = None  # what it held goes first
                self._made = key, cluster.package().get(make[0])()
            return self._made[1](task)
        except LtmpError as err:
            return err


def _as_here(environment: Mapping[str, str], make: Callable[[], T]) -> T:
    """What `make` gives, with some of the environment of the process that asks."""
    os.environ.update(environment)
    return make()


class Pool(Generic[T, R]):
    """Processes of a cluster that do rounds of tasks; `cluster.connected` is entered before.

    They read remote files as this process would, with the credentials and at the endpoints of its
    environment (`filesystems.environment`). When a pool ends, those that are idle are kept for the
    next one, as long as the connection lasts.

    Args:
        make: Gives what does a task, in each process; it and the tasks are pickled.
        workers: Processes, at least 1.
        gpus: GPUs of each.
        progress: Called with a few words where one starts or is lost.
        placed: Whether a task goes by its number to the process that got that of the same number
            in the round before, and not to whoever is idle.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[T], R]],
        workers: int,
        gpus: int = 0,
        progress: Progress = silent,
        *,
        placed: bool = False,
    ) -> None:
        self.ray = cluster.package()
        self.key = next(_KEYS)
        self.make = self.ray.put(partial(_as_here, filesystems.environment(), make))
        self.gpus, self.progress = gpus, progress
        self.workers, self.placed = workers, placed
        self.actors: list[Any] = []  # one that is lost is replaced in its place
        self.started = 0
        self.idle: list[int] = []  # places
        self.out: dict[Any, tuple[int | None, int]] = {}  # which task, at which place
        self._begin(())

    def __enter__(self) -> Pool[T, R]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        busy = {place for _, place in self.out.values()}
        for place, actor in enumerate(self.actors):
            if place in busy:
                self.ray.kill(actor)
            else:
                cluster.keep(self.gpus, actor)

    def results(self, tasks: Sequence[T]) -> Iterator[R]:
        """What comes of each task, in their order; the round before has ended.

        Raises:
            LtmpError: What a task raised, the first one's.
            ExportError: A task was lost too often, or failed in a way of its own.
        """
        self._begin(tasks)
        for place in range(len(self.actors), min(self.workers, len(tasks))):
            self.actors.append(cluster.kept(self.gpus))
            if self.actors[place] is None:
                self._start(place)
            else:
                self.out[self.actors[place].ready.remote()] = (None, place)
        for number in range(len(tasks)):
            while number not in self.done:
                self._give(number + AHEAD * self.workers)
                self._take()
            result = self.done.pop(number)
            if isinstance(result, LtmpError):
                raise result
            self._give(number + 1 + AHEAD * self.workers)
            yield result

    def _begin(self, tasks: Sequence[T]) -> None:
        self.tasks, self.waiting = tasks, list(range(len(tasks)))
        self.tries: dict[int | None, int] = {}
        self.done: dict[int, R | LtmpError] = {}

    def _start(self, place: int) -> None:
        """Start a process; it is idle when it is ready."""
        remote = self.ray.remote(num_cpus=1, num_gpus=self.gpus, max_restarts=0)(Worker)
        self.actors[place] = remote.remote()
        self.out[self.actors[place].ready.remote()] = (None, place)

    def _give(self, before: int) -> None:
        """Tasks below a number to those that are idle."""
        for number in [one for one in self.waiting if one < before]:
            place = number % len(self.actors) if self.placed else (self.idle or [-1])[-1]
            if place in self.idle:
                self.idle.remove(place)
                self.waiting.remove(number)
                reference = self.actors[place].do.remote(self.key, [self.make], self.tasks[number])
                self.out[reference] = (number, place)

    def _take(self) -> None:
        """Wait for one of them."""
        ready, _ = self.ray.wait(list(self.out), num_returns=1, timeout=_QUIET)
        if not ready:
            self.progress(f"waiting for {len(self.out)} processes of the cluster")
        for reference in ready:
            number, place = self.out.pop(reference)
            try:
                result = self.ray.get(reference)
            except self.ray.exceptions.RayError as err:
                self._lose(number, place, err)
                continue
            self.idle.append(place)
            if number is None:
                self.started += 1
                self.progress(f"worker {self.started}: {result}")
            else:
                self.done[number] = result

    def _lose(self, number: int | None, place: int, err: Exception) -> None:
        """Give a lost process's task again, to another one.

        Raises:
            ExportError: It was lost too often.
        """
        self.tries[number] = self.tries.get(number, 0) + 1
        lost = "no process starts" if number is None else f"task {number} ended its process"
        reason = " ".join(str(err).split())[-300:]
        if isinstance(err, self.ray.exceptions.RayTaskError) or self.tries[number] == TRIES:
            times = f", {self.tries[number]} times" if self.tries[number] > 1 else ""
            raise ExportError(f"on the Ray cluster {lost}{times}: {reason}") from err
        self.progress("a worker was lost; its task is given again")
        if number is not None:
            self.waiting = sorted([number, *self.waiting])
        self._start(place)


def results(
    make: Callable[[], Callable[[T], R]],
    tasks: Sequence[T],
    workers: int,
    gpus: int = 0,
    progress: Progress = silent,
) -> Iterator[R]:
    """What comes of each task of one round, see `Pool`."""
    with Pool(make, workers, gpus, progress) as pool:
        yield from pool.results(tasks)
