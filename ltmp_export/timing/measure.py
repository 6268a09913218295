"""From an exported model and images to a report of times."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from ltmp_export.errors import InputError
from ltmp_export.files.workplace import workplace
from ltmp_export.graph import interface
from ltmp_export.images.inputs import Images, batches
from ltmp_export.model_file.model import ExportedModel
from ltmp_export.plan.outputs import LOGITS
from ltmp_export.plan.work import dense_macs, executed_macs, outgoing
from ltmp_export.progress import Progress
from ltmp_export.runtimes import providers, session
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.timing import elsewhere, profiling, roofline, rounds, threads
from ltmp_export.timing.contenders import REDUCED, Contender
from ltmp_export.timing.environment import environment
from ltmp_export.timing.handover import Handover
from ltmp_export.timing.processes import filling
from ltmp_export.timing.report import BenchReport, Entry, Tried
from ltmp_export.timing.rounds import Field
from ltmp_export.timing.settings import AUTO, Settings

if TYPE_CHECKING:
    from ltmp_export.checkpoint.load import Checkpoint
    from ltmp_export.timing.precisions import Origin

# What reads checkpoints is imported where it is used: PyTorch and timm take seconds.

COMPARED = 3  # images whose logits are compared with the reference's, side by side


def measure(
    exported: ExportedModel,
    images: Images,
    settings: Settings,
    *,
    baseline: onnx.ModelProto | None = None,
    baseline_name: str | None = None,
    checkpoint: Checkpoint | None = None,
    lowered: Origin | None = None,
    runtimes: Sequence[str] = (),
    progress: Progress,
) -> BenchReport:
    """Time a model and its rivals on the same images, in alternating rounds.

    Args:
        exported: The exported model.
        images: Images to run; every one is run `settings.iterations` times at each batch size.
        settings: How to measure.
        baseline: What to compare with.
        baseline_name: Its name in the report, "dense" for the dense model of the same weights.
        checkpoint: Where the model comes from: time it in other runtimes, too. The baseline must
            then be the dense model.
        lowered: Where the model comes from: time it in other precisions, too, see `precisions`.
        runtimes: Others to time the model and its baseline in, too, by name.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: The model lacks the named tensors that tell its tokens, or the roofline is asked
            for on another provider than the CPU.
        UnavailableError: A provider is missing, or not the one that runs.
        ExportError: onnxruntime does not run a model.
    """
    asked = providers.resolve(
        settings.providers, ort.get_all_providers(), ort.get_available_providers()
    )
    settings = replace(settings, providers=asked)
    if settings.roofline and asked[0] != providers.CPU:
        raise InputError(f"the roofline is one of the CPU; drop it, or {asked[0]}")
    progress("counting tokens")
    counts = _count_tokens(exported, images, settings)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(workplace())
        with filling(folder):
            files = Handover(folder, exported.proto, exported.geometry, images, baseline, settings)
        by_tokens = np.argsort(counts.sum(axis=1), kind="stable")
        own = files.contenders(baseline_name)
        tried = _try_threads(own, files, by_tokens, settings, progress)
        progress("asking onnxruntime where it runs")
        nodes = files.profile(settings, str(exported.path))
        rivals, refused = _rivals(exported, files, checkpoint, lowered, progress)
        rivals += elsewhere.contenders(runtimes, _files(own))
        contenders = own + rivals
        progress("opening the models")
        field = Field(contenders, files.shared, folder, stack)
        rows = partial(_rows, exported, counts)
        progress("running every image once")
        classes = exported.geometry.classes if LOGITS in exported.outputs else 0
        top1 = _classify(field, images, rows, settings.sizes[0], checkpoint, classes)
        timings = rounds.run(field, by_tokens, rows, settings, progress)
        entries = _entries(field, contenders, refused, top1, images)
    summary = profiling.summarise(nodes, min(len(images), profiling.IMAGES))
    other = None if baseline is None else contenders[1].label
    return BenchReport(
        model=str(exported.path),
        outputs=exported.outputs,
        precision=exported.precision.kind,
        baseline=other,
        scenario=settings.scenario,
        provider=asked[0],
        providers=asked,
        placement=profiling.placement(nodes),
        threads=files.shared["threads"],
        **_subject(exported, images, counts),
        accuracy=None if REDUCED not in top1 else _accuracy(top1[REDUCED], images),
        calibration=None if lowered is None else lowered.calibration.described,
        baseline_accuracy=None if other not in top1 else _accuracy(top1[other], images),
        entries=entries,
        timings=tuple(timings),
        profile=summary if settings.profile else None,
        environment=environment(),
        threads_tried=tried,
    )


def _try_threads(
    contenders: Sequence[Contender],
    files: Handover,
    by_tokens: NDArray[np.int64],
    settings: Settings,
    progress: Progress,
) -> tuple[Tried, ...]:
    """Where it is to be found out, the threads that are best for the model, which all then get."""
    if settings.threads != AUTO:
        return ()
    whole = [contender for contender in contenders if contender.kind != "gemms"]
    found = threads.tried(
        whole, files.shared, files.folder, by_tokens, settings.sizes, session.processor_count(),
        progress,
    )  # fmt: skip
    files.shared["threads"] = threads.best(found)
    return found


def _files(own: Sequence[Contender]) -> dict[str, Path]:
    """The baseline and the model, by their labels."""
    return {one.label: one.file for one in reversed(own) if one.kind != "gemms"}


def _rivals(
    exported: ExportedModel,
    files: Handover,
    checkpoint: Checkpoint | None,
    lowered: Origin | None,
    progress: Progress,
) -> tuple[list[Contender], dict[str, str]]:
    """What is timed beside the baseline, and why there is not more, by label."""
    found: list[Contender] = []
    refused: dict[str, str] = {}
    if checkpoint is not None:
        from ltmp_export.timing import side_by_side

        progress("exporting the literal translation with torch.onnx.export")
        found, refused = side_by_side.rivals(checkpoint, files.folder, files.model, files.baseline)
    if lowered is not None:
        from ltmp_export.timing import precisions

        found += precisions.rivals(exported, lowered, files.folder, files.providers, progress)
    return found, refused


def _subject(exported: ExportedModel, images: Images, counts: NDArray[np.int64]) -> dict[str, Any]:
    """What a report says of the images and of the work they are."""
    geometry, plan = exported.geometry, exported.plan
    return {
        "images": images.origin,
        "images_sha256": hashlib.sha256(images.pixels.tobytes()).hexdigest(),
        "names": images.names,
        "tokens": tuple(tuple(int(n) for n in row) for row in counts),
        "initial_tokens": geometry.tokens,
        "outgoing": outgoing(geometry, plan),
        "image_gmacs": tuple(executed_macs(geometry, plan, row) / 1e9 for row in counts),
        "dense_gmacs": dense_macs(geometry) / 1e9,
        "image_gemm_gmacs": roofline.gmacs(geometry, plan, counts),
    }


def _rows(
    exported: ExportedModel,
    counts: NDArray[np.int64],
    contender: Contender,
    groups: Sequence[NDArray[np.int64]],
) -> list[list[int]]:
    """What batches mean to the linear layers alone; nothing to the others."""
    if contender.kind != "gemms":
        return [[] for _ in groups]
    return roofline.batch_rows(exported.geometry, exported.plan, counts, groups)


def _count_tokens(exported: ExportedModel, images: Images, settings: Settings) -> NDArray[np.int64]:
    """Tokens [n, depth] after each block of each image, alone."""
    taps = interface.count_taps(exported.geometry.depth)
    session = TappedSession(
        exported.proto, taps, providers=settings.providers, threads=settings.stated_threads
    )
    found = [session.run(pixels[None]) for pixels in images.pixels]
    return np.array([[int(one[name].reshape(-1)[0]) for name in taps] for one in found])


def _classify(
    field: Field,
    images: Images,
    rows: rounds.Rows,
    size: int,
    checkpoint: Checkpoint | None,
    classes: int,
) -> dict[str, NDArray[np.int64]]:
    """The classes [n] of each contender that gives logits of so many; what is wrong leaves."""
    found = {}
    for contender in field.contenders:
        if contender.kind == "gemms":
            continue
        groups = batches(len(images), 1 if contender.single else size)
        compared = groups[:COMPARED] if contender.single else []
        rounds.prepare(field, contender, rows, groups, ())
        reply = field.ask(contender, "outputs", keep=len(compared))
        if reply is None:
            continue
        if reply["top1"] is not None and reply["width"] == classes:
            found[contender.label] = np.concatenate(reply["top1"])[: len(images)]
        if checkpoint is not None and contender.single:
            from ltmp_export.timing import literal

            pixels = images.pixels[: len(compared)]
            logits = [batch[0] for batch in reply["logits"]]
            if reason := literal.disagreement(checkpoint, pixels, logits):
                field.leave(contender, reason)
    return found


def _entries(
    field: Field,
    contenders: Sequence[Contender],
    refused: dict[str, str],
    top1: dict[str, NDArray[np.int64]],
    images: Images,
) -> tuple[Entry, ...]:
    """What was timed, with the memory it took, and what was not, with the reason."""
    reasons = field.reasons | refused
    sizes = {contender.label: contender.bytes for contender in contenders}
    entries = []
    for label in dict.fromkeys([*sizes, *reasons]):
        agreement = accuracy = None
        if label in top1 and label not in reasons:
            agreement = float((top1[label] == top1[REDUCED]).mean())
            accuracy = _accuracy(top1[label], images)
        peak = None
        for contender in field.contenders:
            if contender.label == label:
                peak = (field.ask(contender, "usage") or {}).get("peak_mb")
        engine = field.engines.get(label, "")
        entries.append(
            Entry(
                label,
                engine,
                reason=reasons.get(label, ""),
                peak_mb=peak,
                agreement=agreement,
                bytes=sizes.get(label),
                accuracy=accuracy,
            )
        )
    return tuple(entries)


def _accuracy(top1: NDArray[np.int64], images: Images) -> float | None:
    if images.labels is None:
        return None
    return float((top1 == images.labels).mean())
