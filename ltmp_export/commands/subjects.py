"""What `evaluate` measures: a file in onnxruntime, here or on a cluster, or a checkpoint in the
eager reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.distributed import stream
from ltmp_export.errors import InputError
from ltmp_export.files import memory
from ltmp_export.graph import interface
from ltmp_export.images.labelled import Labelled
from ltmp_export.model_file.dense import dense_baseline
from ltmp_export.model_file.model import ExportedModel
from ltmp_export.parity import drift
from ltmp_export.parity.drift import Seen
from ltmp_export.plan import outputs
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.plan import Plan
from ltmp_export.progress import Progress, silent
from ltmp_export.reference import Reference
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.runtimes.session import Session

_LONGEST = 16  # batches that a process of a cluster gets at once
_PORTIONS = 4  # for each process, if the images are few


class Rows(NamedTuple):
    """Some images through a model.

    Attributes:
        answers: [b, classes] logits, or [b, C] features of a model without classifier.
        counts: [b, depth] tokens after each block.
        dense: [b, C] features of the dense model, where they are asked for.
        seen: What is watched of each image, where that is asked for.
    """

    answers: NDArray[np.float32]
    counts: NDArray[np.int64]
    dense: NDArray[np.float32] | None = None
    seen: tuple[Seen, ...] = ()


Run = Callable[[NDArray[np.float32], bool], Rows]


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        geometry: Of the model.
        plan: Its steps.
        runtime: What computes it, for a person.
        rows: All images in order through it, and through the dense model where that is asked for.
        notes: What was assumed.
        warnings: What looks wrong.
    """

    geometry: Geometry
    plan: Plan
    runtime: str
    rows: Callable[[Labelled, bool], Iterator[Rows]]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opening:
    """How a file is opened, here or elsewhere.

    Attributes:
        exported: The file.
        size: Images at once.
        threads: Threads of an operator; all processors by default.
        providers: onnxruntime's execution providers by their full names.
        watched: Whether pictures are looked at for drift.
    """

    exported: ExportedModel
    size: int
    threads: int | None
    providers: Sequence[str]
    watched: bool = False

    @property
    def answer(self) -> str:
        """The output that is measured.

        Raises:
            InputError: The file gives neither logits nor features, or tokens for another model.
        """
        _require_answer(self.exported.path, self.exported.plan)
        found = outputs.answer(self.exported.outputs)
        if found is None:
            raise InputError(
                f"{self.exported.path} gives {', '.join(self.exported.outputs)}; to be measured it "
                "must give logits or features (--outputs of ltmp export)"
            )
        return found

    def open(self) -> tuple[str, Run]:
        """The provider, and what runs images [b, channels, H, W].

        Raises:
            InputError: The file lacks an output, or the named tensors of its tokens.
            ExportError: onnxruntime does not load it.
        """
        names, answer = interface.count_taps(self.exported.geometry.depth), self.answer
        options: dict[str, Any] = {"providers": self.providers, "threads": self.threads}
        tapped = drift.wanted(self.exported) if self.watched else names
        session = TappedSession(self.exported.proto, tapped, **options)
        opened: list[Session] = []  # the dense model, as soon as it is asked for

        def run(pixels: NDArray[np.float32], dense: bool) -> Rows:
            result: dict[str, NDArray[Any]] = session.run(pixels)
            rows = Rows(result[answer], np.stack([result[name] for name in names], 1))
            if self.watched:
                every = range(len(pixels))
                looked = tuple(drift.seen(self.exported, result, image) for image in every)
                rows = rows._replace(seen=looked)
            if not dense:
                return rows
            if not opened:
                model = dense_baseline(self.exported, outputs=[answer])
                opened.append(Session(model, **options))
            return rows._replace(dense=opened[0].run(pixels)[0])

        return session.provider, run


def in_onnxruntime(opening: Opening, workers: int) -> Subject:
    """A file in this process, and `workers` others that read images.

    Raises:
        InputError: It gives neither logits nor features, or lacks the named tensors of its tokens.
        ExportError: onnxruntime does not load it.
    """
    provider, run = opening.open()

    def rows(images: Labelled, dense: bool) -> Iterator[Rows]:
        for batch in images.batches(opening.size, workers):
            yield run(batch.numpy(), dense)

    return _of_file(opening, provider, rows)


def on_a_cluster(opening: Opening, workers: int, progress: Progress = silent) -> Subject:
    """A file in so many processes of a cluster, which read the images, too.

    They run the batches that one process would run, so they find what it would find. Which of
    them are a task the files of the images tell, where they are many to a file.

    Raises:
        InputError: It gives neither logits nor features.
    """
    providers = opening.providers
    gpus = int(any(name.startswith(("CUDA", "Tensorrt", "ROCM")) for name in providers))
    provider, _ = opening.open()  # what is wrong with it is told before anything is sent

    def rows(images: Labelled, dense: bool) -> Iterator[Rows]:
        make = partial(_opened, opening, images, dense, memory.current_memory_limit())
        tasks = _tasks(images, opening.size, workers)
        for found in stream.results(make, tasks, workers, gpus, progress):
            yield from found

    return _of_file(opening, provider, rows)


def _of_file(
    opening: Opening, provider: str, rows: Callable[[Labelled, bool], Iterator[Rows]]
) -> Subject:
    exported = opening.exported
    told = f"onnxruntime, {provider}"
    return Subject(exported.geometry, exported.plan, told, rows, exported.notes)


def _opened(
    opening: Opening, images: Labelled, dense: bool, limit: float
) -> Callable[[range], list[Rows]]:
    """What does a task in a process of its own: images of these numbers, in batches."""
    _, run = opening.open()

    def rows(task: range) -> list[Rows]:
        with memory.memory_limit(limit):
            batches = images.take(np.arange(task.start, task.stop)).batches(opening.size)
            return [run(batch.numpy(), dense) for batch in batches]

    return rows


def _tasks(images: Labelled, size: int, workers: int) -> list[range]:
    """Numbers of the images of each task: whole batches, which begin in the same file."""
    starts = range(0, len(images), size)
    longest = max(1, min(_LONGEST, len(starts) // (_PORTIONS * workers)))
    files = images.files
    groups: list[list[int]] = []
    before = None
    for start in starts:
        file = None if files is None else int(files[images.index[start]])
        if not groups or file != before or len(groups[-1]) == longest:
            groups.append([])
        groups[-1].append(start)
        before = file
    return [range(group[0], min(group[-1] + size, len(images))) for group in groups]


def _require_answer(path: object, plan: Plan) -> None:
    """Check that what a model gives can be right or wrong, or near the dense model's.

    Raises:
        InputError: It gives tokens for another model to read.
    """
    if plan.ends:
        raise InputError(
            f"{path}: {plan.family} makes tokens for what reads them, and reduces nothing in front "
            "of an answer: measure the model that reads them"
        )


def in_the_reference(checkpoint: Checkpoint, workers: int) -> Subject:
    """A checkpoint, image by image.

    Raises:
        InputError: It makes tokens for another model.
    """
    _require_answer(checkpoint.path, checkpoint.plan)
    reference = Reference(checkpoint.model, checkpoint.plan)

    @torch.inference_mode()
    def other(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = checkpoint.model(torch.from_numpy(pixels)).numpy()
        return found

    def rows(images: Labelled, dense: bool) -> Iterator[Rows]:
        for batch in images.batches(1, workers):
            pixels = batch.numpy()
            trace = reference.run(batch[0])
            answers, counts = trace.logits.numpy()[None], np.array([trace.counts])
            yield Rows(answers, counts, other(pixels) if dense else None)

    return Subject(
        checkpoint.geometry, checkpoint.plan, "eager reference", rows,
        checkpoint.notes, checkpoint.warnings,
    )  # fmt: skip
