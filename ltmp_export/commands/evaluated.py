"""Images through a model → accuracy, tokens, multiply-accumulates."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.calibration import neighbours
from ltmp_export.calibration.neighbours import Vote
from ltmp_export.commands.subjects import Subject
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.images import chance
from ltmp_export.images.labelled import Labelled
from ltmp_export.parity import drift
from ltmp_export.parity.drift import Baseline, Drifted, Seen
from ltmp_export.plan.work import dense_macs, executed_share
from ltmp_export.progress import Progress

SCHEMA_VERSION = 1
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
        drift: The images against a baseline, where one was given.
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
    drift: tuple[Drifted, ...] = ()

    @property
    def mac_ratio(self) -> float:
        """Share of the dense multiply-accumulates that is executed."""
        return self.gmacs / self.dense_gmacs

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        told = [asdict(one) | {"drifted": one.drifted} for one in self.drift]
        document = asdict(self) | {"mac_ratio": self.mac_ratio, "drift": told}
        return document | {"schema_version": SCHEMA_VERSION, "kind": "eval"}


@dataclass
class Watch:
    """Whether and how images are looked at for drift.

    Attributes:
        write: The baseline to write, if any.
        known: The one to compare with, if any.
        share: Of the images that may be beyond it, above what is expected.
        pictures: What was seen of each so far.
    """

    write: Path | None = None
    known: Baseline | None = None
    share: float = drift.SHARE
    pictures: list[Seen] = field(default_factory=list)

    def told(self, report: EvalReport, model: Path, images: Labelled) -> EvalReport:
        """A report with what came of it; a baseline is written."""
        if self.write is not None:
            made = drift.baseline(model, self.pictures, images.origin)
            disk.write_bytes(self.write, made.content())
        if self.known is None:
            return report
        found = drift.compare(self.known, self.pictures, images.names, self.share)
        return replace(report, drift=found)


def of_classes(
    path: Path, subject: Subject, images: Labelled, watch: Watch, progress: Progress
) -> EvalReport:
    """Of a model with a classifier."""
    labels, classes = images.require_labels(), subject.geometry.classes
    started, counts = time.perf_counter(), list[NDArray[np.int64]]()
    ranks: list[int] = []  # of the true class; those of NaN are behind all others
    broken = right = 0
    for batch in subject.rows(images, False):
        watch.pictures += batch.seen
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


def of_features(
    path: Path,
    subject: Subject,
    images: Labelled,
    vote: Vote | None,
    watch: Watch,
    progress: Progress,
) -> EvalReport:
    """Of a model without classifier."""
    started, counts, found = time.perf_counter(), list[NDArray[np.int64]](), []
    cosines: list[float] = []
    for batch in subject.rows(images, True):
        assert batch.dense is not None
        found.append(batch.answers)
        watch.pictures += batch.seen
        cosines += neighbours.cosines(batch.answers, batch.dense).tolist()
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
        others = np.concatenate([batch.answers for batch in subject.rows(vote.others, False)])
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
