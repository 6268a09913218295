"""What `evaluate` measures: a file in onnxruntime, or a checkpoint in the eager reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.graph import interface
from ltmp_export.images.labelled import Labelled
from ltmp_export.model_file.dense import dense_baseline
from ltmp_export.model_file.model import ExportedModel
from ltmp_export.plan import outputs
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.plan import Plan
from ltmp_export.reference import Reference
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.runtimes.session import Session


class Rows(NamedTuple):
    """Some images through a model.

    Attributes:
        answers: [b, classes] logits, or [b, C] features of a model without classifier.
        counts: [b, depth] tokens after each block.
    """

    answers: NDArray[np.float32]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        geometry: Of the model.
        plan: Its steps.
        runtime: What computes it, for a person.
        size: Images at once.
        workers: Processes that read them.
        run: Images [b, channels, H, W] through it.
        dense: The same through the dense model: [b, C] features.
        notes: What was assumed.
        warnings: What looks wrong.
    """

    geometry: Geometry
    plan: Plan
    runtime: str
    size: int
    workers: int
    run: Callable[[NDArray[np.float32]], Rows]
    dense: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def batches(self, images: Labelled) -> Iterator[NDArray[np.float32]]:
        """All images in order, so many at once."""
        for batch in images.batches(self.size, self.workers):
            yield batch.numpy()

    def rows(self, images: Labelled) -> Iterator[Rows]:
        """All images in order through it."""
        return map(self.run, self.batches(images))


def in_onnxruntime(
    exported: ExportedModel,
    size: int,
    threads: int | None,
    providers: Sequence[str],
    workers: int,
) -> Subject:
    """A file.

    Raises:
        InputError: It gives neither logits nor features, or lacks the named tensors of its tokens.
        ExportError: onnxruntime does not load it.
    """
    names, answer = interface.count_taps(exported.geometry.depth), outputs.answer(exported.outputs)
    if answer is None:
        raise InputError(
            f"{exported.path} gives {', '.join(exported.outputs)}; to be measured it must give "
            "logits or features (--outputs of ltmp export)"
        )
    session = TappedSession(exported.proto, names, providers=providers, threads=threads)
    opened: list[Session] = []  # the dense model, as soon as it is asked for

    def run(pixels: NDArray[np.float32]) -> Rows:
        result: dict[str, NDArray[Any]] = session.run(pixels)
        return Rows(result[answer], np.stack([result[name] for name in names], 1))

    def dense(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        if not opened:
            model = dense_baseline(exported, outputs=[answer])
            opened.append(Session(model, providers=providers, threads=threads))
        found: NDArray[np.float32] = opened[0].run(pixels)[0]
        return found

    computed_by = f"onnxruntime, {session.provider}"
    geometry, plan = exported.geometry, exported.plan
    return Subject(geometry, plan, computed_by, size, workers, run, dense, exported.notes)


def in_the_reference(checkpoint: Checkpoint, workers: int) -> Subject:
    """A checkpoint, image by image."""
    reference = Reference(checkpoint.model, checkpoint.plan)

    def run(pixels: NDArray[np.float32]) -> Rows:
        trace = reference.run(torch.from_numpy(pixels[0]))
        return Rows(trace.logits.numpy()[None], np.array([trace.counts]))

    @torch.inference_mode()
    def dense(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = checkpoint.model(torch.from_numpy(pixels)).numpy()
        return found

    return Subject(
        checkpoint.geometry, checkpoint.plan, "eager reference", 1, workers, run, dense,
        checkpoint.notes, checkpoint.warnings,
    )  # fmt: skip
