"""A model and labelled images → accuracy, tokens, multiply-accumulates."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from ltmp_export import families
from ltmp_export.calibration import neighbours
from ltmp_export.calibration.neighbours import Vote
from ltmp_export.checkpoint.contents import locate
from ltmp_export.checkpoint.hub import names_a_model
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.commands import subjects
from ltmp_export.commands.subjects import Subject
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.graph import interface
from ltmp_export.images import chance, sets
from ltmp_export.images.labelled import Labelled
from ltmp_export.images.sets import Kind
from ltmp_export.model_file.model import read_exported
from ltmp_export.plan.plan import DENSE
from ltmp_export.plan.work import dense_macs, executed_share
from ltmp_export.progress import Progress, silent
from ltmp_export.runtimes.providers import CPU, resolve
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
        top1: Share whose first class is right; None without labels.
        top5: Share whose label is among the first five classes, or as many as there are.
        tokens: Mean tokens after each block.
        fewest: Fewest tokens after each block.
        most: Most tokens after each block.
        gmacs: Mean multiply-accumulates of an image, in thousand millions.
        dense_gmacs: Those of the dense model.
        seconds: Time of the images, reading them included.
        notes: What was assumed.
        warnings: What looks wrong.
        knn: Of a model without classifier, how many neighbours vote for a class; else None.
        references: Where the images come from that vote; None where the others do.
        cosine: Of such a model, mean cosine of its features with the dense model's.
        least_cosine: The least of these.
    """

    model: str
    family: str
    runtime: str
    images: str
    count: int
    top1: float | None
    top5: float | None
    tokens: tuple[float, ...]
    fewest: tuple[int, ...]
    most: tuple[int, ...]
    gmacs: float
    dense_gmacs: float
    seconds: float
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    knn: int | None = None
    references: str | None = None
    cosine: float | None = None
    least_cosine: float | None = None

    @property
    def mac_ratio(self) -> float:
        """Share of the dense multiply-accumulates that is executed."""
        return self.gmacs / self.dense_gmacs

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        document = asdict(self) | {"mac_ratio": self.mac_ratio}
        return document | {"schema_version": SCHEMA_VERSION, "kind": "eval"}


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
    knn: int | None = None,
    knn_images: str | Path | None = None,
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
        knn: Of a model without classifier, neighbours that vote for the class of an image, by
            default 20 or as many as there are. Its features are compared with the dense model's,
            labels or not.
        knn_images: Labelled images that vote; by default the others in `data`.
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
        chosen = resolve(
            providers or (CPU,), ort.get_all_providers(), ort.get_available_providers()
        )
        subject = subjects.in_onnxruntime(exported, size, threads, chosen, workers)
    elif batch_size is not None or providers is not None:
        flag = "--providers" if batch_size is None else "--batch-size"
        raise InputError(
            f"the reference of a checkpoint runs image by image in PyTorch; drop {flag}"
        )
    else:
        checkpoint = load_checkpoint(path, choices, dense=True, scripted=True)
        _require_family(checkpoint)
        if threads is not None:
            torch.set_num_threads(threads)
        kind = Kind.of(checkpoint, class_map, class_order)
        subject = subjects.in_the_reference(checkpoint, workers)
    classes = subject.geometry.classes
    neighbours.require(knn, classes, path, knn_images)
    needed = bool(classes) or knn is not None or knn_images is not None
    images = sets.held_out(source, kind, classes=needed).select(samples)
    if classes:
        images.require_labels()
        return _report(path, subject, images, progress)
    others = None if knn_images is None else sets.held_out(Path(knn_images), kind)
    vote = neighbours.vote(images, others, knn)
    return _of_features(path, subject, images, vote, progress)


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


def _report(path: Path, subject: Subject, images: Labelled, progress: Progress) -> EvalReport:
    """Of a model with a classifier."""
    labels, classes = images.require_labels(), subject.geometry.classes
    started, counts = time.perf_counter(), list[NDArray[np.int64]]()
    ranks: list[int] = []  # of the true class; those of NaN are behind all others
    broken = right = 0
    for batch in subject.rows(images):
        for logits, count in zip(batch.answers, batch.counts, strict=True):
            finite = bool(np.isfinite(logits).all())
            broken += not finite
            ranks.append(_rank(logits, int(labels[len(ranks)])) if finite else classes)
            right += ranks[-1] == 0
            counts.append(count)
        progress(f"image {len(ranks)} of {len(images)}, top-1 {right / len(ranks):.1%}")
    top1 = right / len(ranks)
    doubt = (f"{broken} images lead to NaN or infinite logits; they count as wrong",)
    doubts = (*(doubt if broken else ()), *chance.doubts(top1, len(ranks), classes))
    report = _work(path, subject, images, counts, started, doubts)
    return replace(report, top1=top1, top5=sum(rank < TOP for rank in ranks) / len(ranks))


def _of_features(
    path: Path,
    subject: Subject,
    images: Labelled,
    vote: Vote | None,
    progress: Progress,
) -> EvalReport:
    """Of a model without classifier."""
    started, counts, found = time.perf_counter(), list[NDArray[np.int64]](), []
    cosines: list[float] = []
    for pixels in subject.batches(images):
        batch = subject.run(pixels)
        found.append(batch.answers)
        cosines += neighbours.cosines(batch.answers, subject.dense(pixels)).tolist()
        counts += list(batch.counts)
        progress(f"image {len(cosines)} of {len(images)}, cosine {np.mean(cosines):.4f}")
    if not np.isfinite(cosines).all():
        broken = images.names[int(np.flatnonzero(~np.isfinite(cosines))[0])]
        raise InputError(f"{images.origin}: {broken} leads to NaN or infinite features")
    report = replace(
        _work(path, subject, images, counts, started, ()),
        cosine=float(np.mean(cosines)), least_cosine=float(np.min(cosines)),
    )  # fmt: skip
    if vote is None:
        return report
    others = None
    if vote.others is not None:
        progress("images that vote")
        others = np.concatenate([batch.answers for batch in subject.rows(vote.others)])
    top1, top5 = vote.right(np.concatenate(found), others, (1, TOP))
    return replace(
        report,
        seconds=time.perf_counter() - started,
        top1=top1,
        top5=top5,
        knn=vote.k,
        references=None if vote.others is None else vote.others.origin,
        warnings=(*report.warnings, *(() if vote.others is None else vote.others.remarks)),
    )


def _work(
    path: Path,
    subject: Subject,
    images: Labelled,
    counts: list[NDArray[np.int64]],
    started: float,
    doubts: tuple[str, ...],
) -> EvalReport:
    """Tokens and multiply-accumulates of images; what they are worth is not in it."""
    geometry, together = subject.geometry, np.stack(counts)
    dense = dense_macs(geometry) / 1e9
    return EvalReport(
        model=str(path),
        family=subject.plan.family,
        runtime=subject.runtime,
        images=images.origin,
        count=len(images),
        top1=None,
        top5=None,
        tokens=tuple(together.mean(0).tolist()),
        fewest=tuple(together.min(0).tolist()),
        most=tuple(together.max(0).tolist()),
        gmacs=executed_share(geometry, subject.plan, together.tolist()) * dense,
        dense_gmacs=dense,
        seconds=time.perf_counter() - started,
        notes=subject.notes,
        warnings=(*subject.warnings, *images.remarks, *doubts),
    )


def _rank(scores: NDArray[Any], label: int) -> int:
    """Classes before the true one; of equal ones the first comes first, as in an argmax."""
    true = scores[label]
    return int((scores > true).sum() + (scores[:label] == true).sum())
