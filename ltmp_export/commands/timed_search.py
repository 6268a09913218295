"""A search for a time: files at several token counts, the search, and its file measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from ltmp_export.calibration import halves as ranges
from ltmp_export.calibration import quantise
from ltmp_export.calibration.measure import Measured
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.commands import latency_words
from ltmp_export.commands.halved import Halves
from ltmp_export.commands.searched import RATE, Made, Search
from ltmp_export.errors import InputError
from ltmp_export.images.inputs import Images
from ltmp_export.images.labelled import Labelled
from ltmp_export.model_file import external
from ltmp_export.model_file.model import to_onnx
from ltmp_export.plan.plan import DENSE, Plan, dense_plan
from ltmp_export.plan.times import TimeModel
from ltmp_export.precision.formats import FP32, INT8, Precision
from ltmp_export.progress import Progress
from ltmp_export.runtimes.session import Session
from ltmp_export.timing import fitted, tables, tabulate, variants, verify
from ltmp_export.timing.goal import Latency, Reached, Wanted
from ltmp_export.timing.processes import filling
from ltmp_export.timing.settings import Settings
from ltmp_export.timing.tables import TimeTable

OPSET = 17
TIMED = 32  # images held out that are timed, or as many as fill a batch
SCALED = 16  # images that int8 scales and float16 ranges are measured on
CLOSE = 0.02  # to the target, from which on nothing is corrected
CORRECTIONS = 2
FARTHEST = 0.05  # of a prediction from its target


@dataclass
class Run:
    """A search, and what is timed for it.

    Attributes:
        halves: The model and its images.
        search: How it is reduced.
        wanted: What is asked for.
        folder: For files; the dense one stays there.
        progress: Called with a few words as each stage begins.
    """

    halves: Halves
    search: Search
    wanted: Wanted
    folder: Path
    progress: Progress
    _lowered: tuple[Checkpoint, Precision] | None = None

    def timed(self, table: TimeTable | None) -> tuple[Latency, list[Made]]:
        """What was measured and reached, and the models, one for each target.

        Raises:
            InputError: The table is of another model.
        """
        wanted, vit = self.wanted, self.halves.source.vit
        if table is not None and wanted.table is not None:
            name, family = str(wanted.table), self.search.family
            asked = (wanted.precision, wanted.single)
            tables.require_fitting(table, wanted.table, vit, family, *asked)
            batch = table.batch(wanted.batch_size)
        else:
            name, table = str(self.halves.source.path), self._measured()
            (batch,) = table.batches
        (model,) = fitted.fit_all((batch,), vit, name)
        rows, models = [], []
        for target in wanted.targets(model):
            row, made = self._reach(target, model, batch.size, one=len(wanted.shares) < 2)
            rows.append(row)
            models.append(made)
        elsewhere = None if wanted.table is None else str(wanted.table)
        return Latency(table, batch.size, model, tuple(rows), elsewhere), models

    def _measured(self) -> TimeTable:
        """Times of this machine."""
        settings = tabulate.resolved(self.wanted.settings())
        pixels = _pixels(self.halves.held_out, settings.sizes[0])
        subject = tabulate.Subject(
            self.halves.source.vit,
            self.search.family,
            self.wanted.kind,
            Images(pixels, None, (), self.halves.held_out.origin),
            str(self.halves.source.path),
        )
        plans = list(self.search.plans())
        middle = plans[len(plans) // 2][1]
        files = (tabulate.Variant(label, plan, self._model(plan, middle)) for label, plan in plans)
        dense = self._model(dense_plan(subject.geometry.depth), middle)
        self._store("dense", dense)
        return tabulate.measure(subject, files, dense, settings, self.progress)

    def _reach(
        self, target: float, model: TimeModel, size: int, *, one: bool
    ) -> tuple[Reached, Made]:
        """A model whose file takes the time, or whose time is predicted to be that.

        Raises:
            InputError: The only target cannot be reached.
        """
        timed = _timed(len(self.halves.held_out), size)
        made = self.search.meet(target, model, size, timed, 1.0)
        best = Reached(target, self.wanted.milliseconds, made.row.time_share or 0.0, None, 0)
        if abs(best.predicted / target - 1) > FARTHEST:
            if one:
                raise InputError(latency_words.unreachable(best, model, self.search))
            return best, self._answered(made)
        if self.wanted.table is not None:
            return best, self._answered(made)
        scale, trial, found = 1.0, made, list[tuple[Reached, Made]]()
        for number in range(1 + CORRECTIONS):
            seen = self._verify(trial)
            reached = replace(
                best, predicted=trial.row.time_share or 0.0, verified=seen, trials=number + 1
            )
            found.append((reached, trial))
            off = reached.off or 0.0
            if abs(off) <= CLOSE or not seen.conclusive or number == CORRECTIONS:
                break
            scale *= (1 + off) * target / reached.predicted
            trial = self.search.meet(target, model, size, timed, scale)
            if abs((trial.row.time_share or 0.0) / target - 1) > FARTHEST:
                break
        reached, trial = min(found, key=lambda pair: pair[0].rank)
        return replace(reached, trials=len(found)), self._answered(trial)

    def _verify(self, made: Made) -> verify.Verified:
        """The file of a model against the dense one."""
        self.progress("writing the file")
        plan = made.checkpoint.plan
        reduced = self._store("reduced", self._model(plan, plan))
        settings: Settings = tabulate.resolved(self.wanted.settings())
        pixels = _pixels(self.halves.held_out, settings.sizes[0])
        dense = self.folder / "dense.onnx"
        return verify.against_dense(dense, reduced, pixels, settings, self.folder, self.progress)

    def _answered(self, made: Made) -> Made:
        """With what a model of a fixed rate answers, by its file."""
        if self.search.method != RATE:
            return made
        self.progress("running the file on the images held out")
        session = Session(to_onnx(made.checkpoint, opset=OPSET))
        first = [
            session.run(batch.numpy())[0]
            for batch in self.halves.held_out.batches(tabulate.TOGETHER)
        ]
        whole = np.concatenate(first)
        answers: Any = whole.argmax(1) if self.halves.source.vit.classes else whole
        bench, row = self.search.bench, made.row
        counts = np.array([row.tokens], np.int64)
        agreement = Measured(counts, answers, row.mac_ratio).agreement(bench.dense)
        accuracy = bench.accuracy(answers)
        return made._replace(row=replace(row, agreement=agreement, accuracy=accuracy))

    def _model(self, plan: Plan, calibrated: Plan) -> ModelProto:
        """The model under a plan, in the form and numbers asked for, measured for once."""
        source = self.halves.source
        form: dict[str, Any] = {"opset": OPSET, "batch_size": 1 if self.wanted.single else None}
        with _on_cpu(source):
            if self._lowered is None:
                self._lowered = self._prepared(replace(source, plan=calibrated), form)
            balanced, precision = self._lowered
            if plan.family == DENSE:
                precision = variants.unprotected(precision)
            return to_onnx(replace(balanced, plan=plan), precision=precision, **form)

    def _prepared(self, made: Checkpoint, form: Mapping[str, Any]) -> tuple[Checkpoint, Precision]:
        """What is written, and in which numbers: as `ltmp export` finds it, by fewer images."""
        asked = Precision(self.wanted.kind)
        if asked.kind == FP32:
            return made, asked
        scored = self.halves.scored.select(SCALED)
        images = Images(_pixels(scored, 1), None, scored.names, scored.origin)
        if asked.kind == INT8:
            return quantise.prepare(made, images, asked, self.progress)
        _, precision = ranges.fitted(made, [images], asked, progress=self.progress, **form)
        return made, precision

    def _store(self, name: str, model: ModelProto) -> Path:
        path = self.folder / f"{name}.onnx"
        with filling(self.folder):
            external.store(path, model)
        return path


@contextlib.contextmanager
def _on_cpu(source: Checkpoint) -> Iterator[None]:
    """While weights are written."""
    before = next(source.model.parameters()).device
    source.model.to("cpu")
    try:
        yield
    finally:
        source.model.to(before)


def _timed(count: int, size: int) -> int:
    """How many images held out are timed: whole batches, or all where they do not fill one."""
    most = max(min(count, TIMED), min(count, size))
    return most if most < size else most // size * size


def _pixels(images: Labelled, size: int) -> Any:
    """[n, channels, H, W] inputs that are timed."""
    few = images.take(np.arange(_timed(len(images), size)))
    return np.concatenate([batch.numpy() for batch in few.batches(len(few))])
