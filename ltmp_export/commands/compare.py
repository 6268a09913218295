"""A dense model and labelled images → what each method that needs no training makes of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.commands.compared import Compared, CompareReport
from ltmp_export.commands.eval import EvalReport, evaluate
from ltmp_export.commands.export import export
from ltmp_export.distributed.cluster import Place
from ltmp_export.errors import CheckFailedError, InputError
from ltmp_export.files.near_misses import did_you_mean
from ltmp_export.files.workplace import workplace
from ltmp_export.images import sets
from ltmp_export.images.labelled import Labelled
from ltmp_export.plan.kept import usual_places
from ltmp_export.plan.plan import DENSE, dense_plan
from ltmp_export.plan.vit import Vit, require_vit
from ltmp_export.progress import Progress, silent
from ltmp_export.statements.choices import Choices
from ltmp_export.timing import many
from ltmp_export.timing import threads as threads_of
from ltmp_export.timing.environment import environment
from ltmp_export.timing.settings import Settings
from ltmp_export.timing.statistics import Timing

TARGETS = (0.7, 0.5, 0.35)
SIZES = (1, 16)
ROUNDS = 10
BUSY = 0.1  # noise, of a time
_PLACES = "merge_at"

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class _Bench:
    """Where models are made and measured.

    Attributes:
        dense: The model itself.
        choices: What the checkpoint does not say.
        places: Blocks of the methods that reduce at a few.
        folder: For the models.
        data: The images to evaluate on.
        evaluation: How.
        progress: Called with a few words as each model begins.
    """

    dense: Checkpoint
    choices: Choices
    places: tuple[int, ...]
    folder: Path
    data: Labelled
    evaluation: Mapping[str, Any]
    progress: Progress

    def measured(self, family: str, target: float) -> tuple[Compared, EvalReport]:
        """A model exported, checked and evaluated.

        Raises:
            InputError: The family cannot leave so little of it.
            CheckFailedError: The file is not the model.
        """
        model = self.dense if family == DENSE else self._reduced(family, target)
        self.progress(f"{family}{'' if family == DENSE else f' at {target:g}'}")
        file = self.file(family, target)
        export(model, file)
        found = evaluate(file, self.data, **self.evaluation)
        return Compared(
            family, target, mac_ratio=found.mac_ratio, tokens=found.tokens, top1=found.top1,
            cosine=found.cosine,
        ), found  # fmt: skip

    def file(self, family: str, target: float) -> Path:
        """The model's file; there is one of the dense model."""
        return self.folder / (f"{DENSE}.onnx" if family == DENSE else f"{family}_{target:g}.onnx")

    def _reduced(self, family: str, target: float) -> Checkpoint:
        """The model as a family reduces it.

        Raises:
            InputError: It cannot.
        """
        at = self.places if _PLACES in families.load(family).stated else None
        stated = replace(self.choices, family=family, reduction_target=target, merge_at=at)
        return self.dense.reduced(stated)

    def rows(
        self, whole: Compared, named: Sequence[str], target: float, pixels: Pixels,
        settings: Settings,
    ) -> list[Compared]:  # fmt: skip
        """The dense model and every family at a target, timed in the same rounds.

        Raises:
            ExportError: onnxruntime does not run a model.
        """
        made, refused = [replace(whole, target=target)], list[Compared]()
        for family in named:
            try:
                made.append(self.measured(family, target)[0])
            except (InputError, CheckFailedError) as err:
                reason = str(err).removeprefix(f"{self.dense.path}: ")
                refused.append(Compared(family, target, reason=reason))
        files = {row.family: self.file(row.family, target) for row in made}
        timed = many.times(files, pixels, settings, self.folder, self.progress)
        first, *others = (_with_times(row, timed) for row in made)
        return [first, *sorted(others, key=_rank), *refused]


def compare(
    checkpoint: str | Path,
    data: str | Path,
    targets: Sequence[float] = TARGETS,
    *,
    methods: Sequence[str] | None = None,
    samples: int | None = None,
    class_map: str | Path | None = None,
    class_order: str | None = None,
    settings: Settings | None = None,
    choices: Choices | None = None,
    workers: int = 0,
    progress: Progress = silent,
) -> CompareReport:
    """Export, check, evaluate and time every method that needs no training, at some targets.

    Args:
        checkpoint: A plain ViT, or `timm:NAME`; of a fine-tuned file the weights alone count.
        data: Labelled images, as for `evaluate`.
        targets: Shares of the dense multiply-accumulates, each in (0, 1].
        methods: Families, of `families.training_free()`; all that take the model by default.
        samples: Measure on at most so many images, evenly spread; all by default.
        class_map: See `images.sets.Kind`.
        class_order: Likewise.
        settings: Batch sizes (1 and 16 by default), rounds and threads.
        choices: What the checkpoint does not say, and `merge_at`.
        workers: Processes that read images.
        progress: Called with a few words as it goes.

    Raises:
        InputError: A file, image, target or method cannot be used.
        ExportError: onnxruntime does not run a model.
    """
    started, path, choices = time.perf_counter(), Path(checkpoint), choices or Choices()
    settings = settings or Settings(batch_sizes=SIZES, iterations=ROUNDS)
    _require_targets(targets)
    asked = _require_methods(methods)
    progress("reading the checkpoint")
    source = load_checkpoint(path, replace(choices, family=None, merge_at=None), dense=True)
    vit = require_vit(source.geometry, path, "compare")
    dense = replace(source, plan=dense_plan(vit.depth))
    places = choices.merge_at or usual_places(vit.depth)
    named = _taking(asked, vit, path, all_of_them=methods is None)
    kind = sets.Kind.of(source, class_map, class_order)
    images = sets.held_out(Path(data), kind, classes=bool(source.geometry.classes))
    pixels = _timed(images, settings)
    progress("reading the images")
    read = images.select(samples).in_memory(workers)
    keywords: dict[str, Any] = {
        "threads": settings.stated_threads,
        "place": Place(workers=workers),
    }

    with workplace() as folder:
        bench = _Bench(dense, choices, places, folder, read, keywords, progress)
        whole, first = bench.measured(DENSE, 1.0)
        found = [bench.rows(whole, named, target, pixels, settings) for target in targets]
    rows = tuple(row for part in found for row in part)
    return CompareReport(
        checkpoint=str(path),
        images=first.images,
        count=first.count,
        rows=rows,
        batch_sizes=settings.sizes,
        threads=threads_of.used(settings),
        places=() if choices.merge_at else _needed(named, places),
        environment=environment(),
        seconds=time.perf_counter() - started,
        notes=source.notes,
        warnings=(*source.warnings, *first.warnings, *_doubts(rows)),
    )


def _require_targets(targets: Sequence[float]) -> None:
    """Check the shares that are asked for.

    Raises:
        InputError: There are none, or they are none.
    """
    if not targets or not all(0.0 < target <= 1.0 for target in targets):
        told = ", ".join(f"{target:g}" for target in targets) or "none"
        raise InputError(
            f"targets {told}; expected shares of the multiply-accumulates, above 0 and at most 1, "
            "like 0.7,0.5"
        )
    if len(set(targets)) < len(targets):
        raise InputError(f"targets {', '.join(map(str, targets))}: one is there twice")


def _require_methods(methods: Sequence[str] | None) -> tuple[str, ...]:
    """The families, by their own names.

    Raises:
        InputError: One of them is none that needs no training.
    """
    able = families.training_free()
    named = dict.fromkeys(families.ALIASES.get(one, one) for one in methods or able)
    for name in named:
        if name not in able:
            raise InputError(
                f"no method {name!r} that needs no training; choose from {', '.join(able)}"
                f"{did_you_mean(name, able)}"
            )
    return tuple(named)


def _taking(named: Sequence[str], vit: Vit, path: Path, *, all_of_them: bool) -> tuple[str, ...]:
    """Those that take the model.

    Raises:
        InputError: One that was asked for does not, or none does.
    """
    loaded = {name: families.load(name) for name in named}
    found = tuple(
        name
        for name, family in loaded.items()
        if vit.kind in family.backbones and (vit.class_token or not family.class_token)
    )
    if not found or (len(found) < len(named) and not all_of_them):
        left = ", ".join(name for name in named if name not in found)
        raise InputError(f"{path}: {left} cannot take this model ({vit.kind}, see ltmp inspect)")
    return found


def _timed(images: Labelled, settings: Settings) -> Pixels:
    """Images to time with: as many as fill the largest batch, evenly spread."""
    few = images.select(max(settings.sizes))
    return np.concatenate([batch.numpy() for batch in few.batches(len(few))])


def _needed(named: Sequence[str], places: tuple[int, ...]) -> tuple[int, ...]:
    """The blocks, if a method goes by them."""
    return places if any(_PLACES in families.load(name).stated for name in named) else ()


def _with_times(row: Compared, timed: Sequence[Timing]) -> Compared:
    """A model's row with its times, and those over the dense model's of the same rounds."""
    own = {one.batch_size: one for one in timed if one.model == row.family}
    dense = {one.batch_size: one for one in timed if one.model == DENSE}
    return replace(
        row,
        milliseconds={size: one.best for size, one in own.items()},
        ratio={size: one.best / dense[size].best for size, one in own.items()},
        noise={size: one.noise for size, one in own.items()},
    )


def _doubts(rows: Sequence[Compared]) -> tuple[str, ...]:
    """What to say where the machine had other work."""
    noise = max((n for row in rows for n in (row.noise or {}).values() if n), default=0.0)
    if noise <= BUSY:
        return ()
    return (
        f"runs of the same images differ by up to ±{noise:.0%}: this machine has other work, and "
        "times that are nearer to each other than that tell nothing",
    )


def _rank(row: Compared) -> tuple[float, float]:
    """The best first, of equal ones the fastest."""
    return -row.worth, min((row.ratio or {0: 0.0}).values())
