"""A model and labelled images → accuracy, tokens, multiply-accumulates."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from ltmp_export import families
from ltmp_export.checkpoint.contents import locate
from ltmp_export.checkpoint.hub import names_a_model
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.graph import interface
from ltmp_export.images import chance, sets
from ltmp_export.images.labelled import Labelled
from ltmp_export.images.sets import Kind
from ltmp_export.model_file.model import ExportedModel, read_exported
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.plan import DENSE, Plan
from ltmp_export.plan.work import dense_macs, executed_share
from ltmp_export.progress import Progress, silent
from ltmp_export.reference import Reference
from ltmp_export.runtimes.providers import CPU, resolve
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.statements.choices import Choices

SCHEMA_VERSION = 1
BATCH = 8
TOP = 5


@dataclass(frozen=True)
class EvalReport:
    """A model on labelled images.

    Attributes:
        model: The file.
        family: Token-reduction family, "dense" for a plain ViT.
        runtime: What computed it: onnxruntime and its provider, or the eager reference.
        images: Where they come from.
        count: How many.
        top1: Share whose first class is right.
        top5: Share whose label is among the first five classes, or as many as there are.
        tokens: Mean tokens after each block.
        fewest: Fewest tokens after each block.
        most: Most tokens after each block.
        gmacs: Mean multiply-accumulates of an image, in thousand millions.
        dense_gmacs: Those of the dense model.
        seconds: Time of the images, reading them included.
        notes: What was assumed.
        warnings: What looks wrong.
    """

    model: str
    family: str
    runtime: str
    images: str
    count: int
    top1: float
    top5: float
    tokens: tuple[float, ...]
    fewest: tuple[int, ...]
    most: tuple[int, ...]
    gmacs: float
    dense_gmacs: float
    seconds: float
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def mac_ratio(self) -> float:
        """Share of the dense multiply-accumulates that is executed."""
        return self.gmacs / self.dense_gmacs

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        document = asdict(self) | {"mac_ratio": self.mac_ratio}
        return document | {"schema_version": SCHEMA_VERSION, "kind": "eval"}


class _Rows(NamedTuple):
    """Some images through a model: logits [b, classes], tokens after each block [b, depth]."""

    logits: NDArray[np.float32]
    counts: NDArray[np.int64]


class _Subject(NamedTuple):
    """What is measured."""

    geometry: Geometry
    plan: Plan
    runtime: str
    images: Labelled
    rows: Iterator[_Rows]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    samples: int | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    class_map: str | Path | None = None,
    class_order: str | None = None,
    choices: Choices | None = None,
    workers: int = 0,
    progress: Progress = silent,
) -> EvalReport:
    """Measure accuracy, tokens and multiply-accumulates on labelled images.

    Args:
        model: A file of `export`, run in onnxruntime; or a checkpoint, fine-tuned or dense, or
            `timm:NAME`, run by the eager reference, one image at a time.
        data: A folder with a folder for each class (its `val`, if it has one) or an `.npz`.
        samples: Take at most so many, evenly spread; all by default.
        batch_size: Images that onnxruntime gets at once; 8 by default, or what the file takes.
        threads: Threads of an operator; all processors by default.
        providers: onnxruntime's execution providers, by exact or short name; the CPU by default.
        class_map: See `images.sets.Kind`.
        class_order: Likewise.
        choices: What a checkpoint does not say.
        workers: Processes that read images.
        progress: Called with a few words as it goes.

    Raises:
        InputError: A file or image cannot be used.
        UnavailableError: A provider is missing.
        ExportError: onnxruntime does not run the model.
    """
    path, source = Path(model), Path(data)
    for what, number in (("batch size", batch_size), ("threads", threads)):
        if number is not None and number < 1:
            raise InputError(f"{what} is {number}; expected at least 1")
    progress("reading the model")
    if _is_onnx(path):
        exported = read_exported(path)
        stated = replace(choices or Choices(), assume_defaults=None).to_json()
        if stated:
            raise InputError(
                f"{path} is an exported model and says all of itself; drop what states "
                f"{', '.join(stated).replace('_', ' ')}"
            )
        kind = Kind.of(
            exported, class_map, class_order, (choices or Choices()).over(exported.choices)
        )
        size = batch_size or interface.fixed_batch(exported.proto) or BATCH
        interface.require_batches(exported.proto, str(path), [size])
        images = _images(source, kind, samples)
        chosen = providers or (CPU,)
        subject = _in_onnxruntime(exported, images, size, threads, chosen, workers)
    elif batch_size is not None or providers is not None:
        flag = "--providers" if batch_size is None else "--batch-size"
        raise InputError(
            f"the reference of a checkpoint runs image by image in PyTorch; drop {flag}"
        )
    else:
        checkpoint = load_checkpoint(path, choices, dense=True)
        _require_family(checkpoint)
        if threads is not None:
            torch.set_num_threads(threads)
        images = _images(source, Kind.of(checkpoint, class_map, class_order), samples)
        subject = _in_the_reference(checkpoint, images, workers)
    return _report(path, subject, progress)


def _require_family(checkpoint: Checkpoint) -> None:
    """Check that a dense model is measured only where one was asked for.

    Raises:
        InputError: A family was stated that the file has nothing for.
    """
    family = checkpoint.choices.family
    if checkpoint.plan.family != DENSE or family in (None, DENSE):
        return
    needed = "--r 8" if family in families.counted() else "thresholds, of which it holds none"
    raise InputError(f"{checkpoint.path}: family {family} needs {needed}")


def _is_onnx(path: Path) -> bool:
    if path.suffix == ".onnx":
        disk.require_file(path, "a model written by 'ltmp export'")
    return not names_a_model(path) and disk.looks_like_onnx(locate(path))


def _images(data: Path, kind: Kind, samples: int | None) -> Labelled:
    images = sets.held_out(data, kind).select(samples)
    images.require_labels()
    return images


def _in_onnxruntime(
    exported: ExportedModel,
    images: Labelled,
    size: int,
    threads: int | None,
    providers: Sequence[str],
    workers: int,
) -> _Subject:
    names = interface.count_taps(exported.geometry.depth)
    session = TappedSession(
        exported.proto,
        names,
        providers=resolve(providers, ort.get_all_providers(), ort.get_available_providers()),
        threads=threads,
    )

    def rows() -> Iterator[_Rows]:
        for batch in images.batches(size, workers):
            result = session.run(batch.numpy())
            yield _Rows(result["logits"], np.stack([result[name] for name in names], 1))

    computed_by = f"onnxruntime, {session.provider}"
    return _Subject(exported.geometry, exported.plan, computed_by, images, rows(), exported.notes)


def _in_the_reference(checkpoint: Checkpoint, images: Labelled, workers: int) -> _Subject:
    reference = Reference(checkpoint.model, checkpoint.plan)

    def rows() -> Iterator[_Rows]:
        for batch in images.batches(1, workers):
            trace = reference.run(batch[0])
            yield _Rows(trace.logits.numpy()[None], np.array([trace.counts]))

    geometry, plan = checkpoint.geometry, checkpoint.plan
    told = checkpoint.notes, checkpoint.warnings
    return _Subject(geometry, plan, "eager reference", images, rows(), *told)


def _report(path: Path, subject: _Subject, progress: Progress) -> EvalReport:
    geometry, images = subject.geometry, subject.images
    started, labels = time.perf_counter(), images.require_labels()
    counts: list[NDArray[np.int64]] = []
    ranks: list[int] = []  # of the true class; those of NaN are behind all others
    broken = right = 0
    for batch in subject.rows:
        for logits, count in zip(batch.logits, batch.counts, strict=True):
            finite = bool(np.isfinite(logits).all())
            broken += not finite
            ranks.append(_rank(logits, int(labels[len(ranks)])) if finite else geometry.classes)
            right += ranks[-1] == 0
            counts.append(count)
        progress(f"image {len(ranks)} of {len(images)}, top-1 {right / len(ranks):.1%}")
    together = np.stack(counts)
    dense = dense_macs(geometry) / 1e9
    top1 = right / len(ranks)
    doubt = (f"{broken} images lead to NaN or infinite logits; they count as wrong",)
    return EvalReport(
        model=str(path),
        family=subject.plan.family,
        runtime=subject.runtime,
        images=images.origin,
        count=len(images),
        top1=top1,
        top5=sum(rank < TOP for rank in ranks) / len(ranks),
        tokens=tuple(together.mean(0).tolist()),
        fewest=tuple(together.min(0).tolist()),
        most=tuple(together.max(0).tolist()),
        gmacs=executed_share(geometry, subject.plan, together.tolist()) * dense,
        dense_gmacs=dense,
        seconds=time.perf_counter() - started,
        notes=subject.notes,
        warnings=(
            *subject.warnings,
            *images.remarks,
            *(doubt if broken else ()),
            *chance.doubts(top1, len(ranks), geometry.classes),
        ),
    )


def _rank(logits: NDArray[np.float32], label: int) -> int:
    """Classes before the true one; of equal ones the first comes first, as in an argmax."""
    true = logits[label]
    return int((logits > true).sum() + (logits[:label] == true).sum())
