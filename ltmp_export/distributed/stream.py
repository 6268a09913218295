"""Tasks to processes of a cluster, results in the order of the tasks, whoever was lost between.

A task goes to one process at a time. No more than so many tasks are out or waiting for an earlier
one, so that memory does not grow with them. A process that is lost is replaced, and its task given
again; so what comes back depends neither on how many there are nor on who fails.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ltmp_export.distributed import cluster
from ltmp_export.errors import ExportError, LtmpError
from ltmp_export.progress import Progress, silent

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 3  # tasks for each process that are out, or done before an earlier one is
TRIES = 4  # of a task, and of starting a process
_QUIET = 20.0  # seconds until whoever waits is told


class Worker:
    """A process of the cluster.

    Args:
        make: Gives what does a task; called with the first.
    """

    def __init__(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        self._make = make
        self._do: Callable[[Any], Any] | None = None

    def ready(self) -> str:
        """Which process it is."""
        return f"process {os.getpid()} on {socket.gethostname()}"

    def do(self, task: Any) -> Any:
        """What comes of a task; an error of ours is handed back as it is."""
        try:
            if self._do is None:
                self._do = self._make()
            return self._do(task)
        except LtmpError as err:
            return err


@dataclass
class _Course(Generic[T, R]):
    """Where a stream stands: who is idle, what is out, what came back."""

    ray: Any
    make: Any
    gpus: int
    tasks: Sequence[T]
    progress: Progress
    waiting: deque[int]
    out: dict[Any, tuple[int | None, Any]] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    actors: list[Any] = field(default_factory=list)
    tries: dict[int | None, int] = field(default_factory=dict)
    done: dict[int, R | LtmpError] = field(default_factory=dict)

    def start(self) -> None:
        """Start a process; it is idle when it is ready."""
        remote = self.ray.remote(num_cpus=1, num_gpus=self.gpus, max_restarts=0)(Worker)
        actor = remote.remote(self.make)
        self.actors.append(actor)
        self.out[actor.ready.remote()] = (None, actor)

    def give(self, before: int) -> None:
        """Tasks below a number to those that are idle."""
        while self.idle and self.waiting and self.waiting[0] < before:
            actor, number = self.idle.pop(), self.waiting.popleft()
            self.out[actor.do.remote(self.tasks[number])] = (number, actor)

    def take(self) -> None:
        """Wait for one of them."""
        ready, _ = self.ray.wait(list(self.out), num_returns=1, timeout=_QUIET)
        if not ready:
            self.progress(f"waiting for {len(self.out)} processes of the cluster")
        for reference in ready:
            number, actor = self.out.pop(reference)
            try:
                result = self.ray.get(reference)
            except self.ray.exceptions.RayError as err:
                self.lose(number, actor, err)
                continue
            self.idle.append(actor)
            if number is None:
                self.progress(f"worker {len(self.actors)}: {result}")
            else:
                self.done[number] = result

    def lose(self, number: int | None, actor: Any, err: Exception) -> None:
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
        self.actors.remove(actor)
        if number is not None:
            self.waiting.appendleft(number)
            self.waiting = deque(sorted(self.waiting))
        self.start()


def results(
    make: Callable[[], Callable[[T], R]],
    tasks: Sequence[T],
    workers: int,
    gpus: int = 0,
    progress: Progress = silent,
) -> Iterator[R]:
    """What comes of each task, in their order; `cluster.connected` is entered before.

    Args:
        make: Gives what does a task, in each process; it and the tasks are pickled.
        tasks: What to do.
        workers: Processes, at least 1.
        gpus: GPUs of each.
        progress: Called with a few words where one starts or is lost.

    Raises:
        LtmpError: What a task raised, the first one's.
        ExportError: A task was lost too often, or failed in a way of its own.
    """
    ray = cluster.package()
    course: _Course[T, R] = _Course(
        ray, ray.put(make), gpus, tasks, progress, deque(range(len(tasks)))
    )
    try:
        for _ in range(min(workers, len(tasks))):
            course.start()
        for number in range(len(tasks)):
            while number not in course.done:
                course.give(number + AHEAD * workers)
                course.take()
            result = course.done.pop(number)
            if isinstance(result, LtmpError):
                raise result
            course.give(number + 1 + AHEAD * workers)
            yield result
    finally:
        for actor in course.actors:
            ray.kill(actor)
