"""A model and labelled images → accuracy, tokens, multiply-accumulates."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnxruntime as ort
import torch

from ltmp_export import families
from ltmp_export.calibration import neighbours
from ltmp_export.checkpoint.contents import locate
from ltmp_export.checkpoint.hub import names_a_model
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.commands import evaluated, subjects
from ltmp_export.commands.evaluated import EvalReport, Watch
from ltmp_export.commands.subjects import Opening, Subject
from ltmp_export.distributed import cluster
from ltmp_export.distributed.cluster import HERE, Place
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.graph import interface
from ltmp_export.images import sets
from ltmp_export.images.labelled import Labelled
from ltmp_export.images.sets import Kind
from ltmp_export.model_file.model import ExportedModel, read_exported
from ltmp_export.parity import drift
from ltmp_export.plan.plan import DENSE
from ltmp_export.progress import Progress, silent
from ltmp_export.runtimes.providers import CPU, resolve
from ltmp_export.statements.choices import Choices

__all__ = ["BATCH", "EvalReport", "evaluate"]

BATCH = 8


def evaluate(
    model: str | Path,
    data: str | Path | Labelled,
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
    place: Place = HERE,
    write_baseline: str | Path | None = None,
    watch_drift: str | Path | None = None,
    drift_share: float | None = None,
    progress: Progress = silent,
) -> EvalReport:
    """Measure accuracy, tokens and multiply-accumulates on labelled images.

    Args:
        model: A file of `export`, run in onnxruntime; or a checkpoint, fine-tuned or dense, or
            `timm:NAME`, run by the eager reference, one image at a time.
        data: A folder with a folder for each class (its `val`, if any), an `.npz`, or images read.
        samples: Take at most so many, evenly spread; all by default.
        batch_size: Images that onnxruntime gets at once; 8 by default, or what the file takes.
        threads: Threads of an operator; all processors by default.
        providers: onnxruntime's execution providers, by exact or short name; the CPU by default.
        class_map: See `images.sets.Kind`.
        class_order: Likewise.
        knn: Of a model without classifier, neighbours that vote for the class of an image, by
            default 20 at most. Its features are compared with the dense model's, labels or not.
        knn_images: Labelled images that vote; by default the others in `data`.
        choices: What a checkpoint does not say.
        place: Where a file runs, here by default; a cluster finds the same bit for bit with one
            thread to a process, its default.
        write_baseline: Of an exported model: a file to write what it sees of these images to, see
            `parity.drift`.
        watch_drift: Such a file, to compare these images with.
        drift_share: Of the images that may be beyond it, above what is expected; 0.05 by default.
        progress: Called with a few words as it goes.

    Raises:
        InputError: A file or image cannot be used.
        UnavailableError: A provider or package is missing.
        ExportError: onnxruntime does not run the model, or processes of a cluster do not.
    """
    path = Path(model)
    for what, number in (("batch size", batch_size), ("threads", threads)):
        if number is not None and number < 1:
            raise InputError(f"{what} is {number}; expected at least 1")
    place.require()
    watch = _watch(path, write_baseline, watch_drift, drift_share)
    progress("reading the model")
    with contextlib.ExitStack() as stack:
        if _is_onnx(path):
            exported = _read(path, choices)
            stated = (choices or Choices()).over(exported.choices)
            kind = Kind.of(exported, class_map, class_order, stated)
            if place.is_cluster:
                threads = threads or 1
            opening = _opening(exported, batch_size, threads, providers)
            opening = replace(opening, watched=watch.write is not None or watch.known is not None)
            subject = _subject(opening, place, stack, progress)
        else:
            _require_for_files(batch_size, providers, place)
            checkpoint = load_checkpoint(path, choices, dense=True, scripted=True)
            _require_family(checkpoint)
            if threads is not None:
                torch.set_num_threads(threads)
            kind = Kind.of(checkpoint, class_map, class_order)
            subject = subjects.in_the_reference(checkpoint, place.workers)
        classes = subject.geometry.classes
        neighbours.require(knn, classes, path, knn_images)
        needed = bool(classes) or knn is not None or knn_images is not None
        images = _images(data, kind, needed).select(samples)
        if classes:
            images.require_labels()
            report = evaluated.of_classes(path, subject, images, watch, progress)
            return watch.told(report, path, images)
        others = None if knn_images is None else sets.held_out(Path(knn_images), kind)
        vote = neighbours.vote(images, others, knn)
        report = evaluated.of_features(path, subject, images, vote, watch, progress)
        return watch.told(report, path, images)


def _watch(
    model: Path, write: str | Path | None, known: str | Path | None, share: float | None
) -> Watch:
    """Whether and how images are looked at for drift.

    Raises:
        InputError: What is asked for does not go together, or the baseline is none of this file.
    """
    if write is None and known is None:
        if share is not None:
            raise InputError("--drift-share is about --watch-drift; give that, too")
        return Watch()
    if not _is_onnx(model):
        raise InputError(f"{model} is no exported model; drift is watched in files")
    if share is not None and not 0.0 <= share <= 1.0:
        raise InputError(f"a drift share of {share:g}; expected one from 0 to 1")
    if write is not None:
        disk.require_outputs([Path(write)], [model, *([] if known is None else [Path(known)])])
    read = None if known is None else drift.read(Path(known), model)
    return Watch(
        None if write is None else Path(write), read, drift.SHARE if share is None else share
    )


def _images(data: str | Path | Labelled, kind: Kind, classes: bool) -> Labelled:
    """The images to measure on, read before or not."""
    return data if isinstance(data, Labelled) else sets.held_out(Path(data), kind, classes=classes)


def _read(path: Path, choices: Choices | None) -> ExportedModel:
    """A file, of which nothing is stated.

    Raises:
        InputError: Something is, or it cannot be read.
    """
    exported = read_exported(path)
    if stated := replace(choices or Choices(), assume_defaults=None).to_json():
        raise InputError(
            f"{path} is an exported model and says all of itself; drop what states "
            f"{', '.join(stated).replace('_', ' ')}"
        )
    return exported


def _opening(
    exported: ExportedModel,
    batch_size: int | None,
    threads: int | None,
    providers: Sequence[str] | None,
) -> Opening:
    """How a file is to be run.

    Raises:
        InputError: It does not take such batches.
        UnavailableError: A provider is missing.
    """
    size = batch_size or interface.fixed_batch(exported.proto) or BATCH
    interface.require_batches(exported.proto, str(exported.path), [size])
    chosen = resolve(providers or (CPU,), ort.get_all_providers(), ort.get_available_providers())
    return Opening(exported, size, threads, chosen)


def _subject(
    opening: Opening,
    place: Place,
    stack: contextlib.ExitStack,
    progress: Progress,
) -> Subject:
    """A file here, or on a cluster that is left with the stack."""
    if not place.is_cluster:
        return subjects.in_onnxruntime(opening, place.workers)
    there = stack.enter_context(cluster.connected(place, progress))
    return subjects.on_a_cluster(opening, there, progress)


def _require_for_files(
    batch_size: int | None, providers: Sequence[str] | None, place: Place
) -> None:
    """Check that nothing is asked of a checkpoint that is for files.

    Raises:
        InputError: Something is.
    """
    asked = {
        "--batch-size": batch_size is not None,
        "--providers": providers is not None,
        "--engine": place.is_cluster,
    }
    if flags := [flag for flag, is_asked in asked.items() if is_asked]:
        raise InputError(
            f"the reference of a checkpoint runs image by image in PyTorch; drop {flags[0]}"
        )


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
