"""A dense or fine-tuned ViT and labelled images → learned thresholds or weights → checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ltmp_export.calibration.measure import dense_answers, measure
from ltmp_export.checkpoint import freeze
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.commands import time_budget
from ltmp_export.commands.stages import trained_family
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.files.plain import plain
from ltmp_export.images import chance, sets
from ltmp_export.images.labelled import Labelled
from ltmp_export.progress import Progress, silent
from ltmp_export.statements.choices import Choices
from ltmp_export.training import beginning, history, saving, state
from ltmp_export.training.goal import Goal
from ltmp_export.training.loop import Trainer
from ltmp_export.training.processes import process
from ltmp_export.training.record import Record
from ltmp_export.training.settings import Running

Watch = Callable[[Record, int], None]
SCHEMA_VERSION = 1
SAVE_EVERY = 100


@dataclass(frozen=True)
class FinetuneReport:
    """What a run came to.

    Attributes:
        output: The checkpoint written.
        history: The CSV written.
        family: Token-reduction family.
        target: Share of the blocks' multiply-accumulates, or of time, asked for, where thresholds
            learn.
        mac_ratio: Share of all multiply-accumulates that the deployed model executes on the images
            held out.
        tokens: Mean tokens after each block there.
        accuracy: Its top-1 there.
        dense_accuracy: Top-1 of the dense model there, with the weights before training.
        held_out: How many images that is.
        steps: Steps taken, over all runs of this training.
        seconds: Time of this run.
        thresholds: Per kind, one for each block; none under a static plan.
        time_share: Predicted share of the dense model's time there, where that is the budget.
        options: Of the export that writes the file whose time it is.
        notes: What was assumed.
        warnings: What looks wrong.
    """

    output: Path
    history: Path
    family: str
    target: float | None
    mac_ratio: float
    tokens: tuple[float, ...]
    accuracy: float
    dense_accuracy: float
    held_out: int
    steps: int
    seconds: float
    thresholds: dict[str, list[float]]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    time_share: float | None = None
    options: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        paths = {"output": str(self.output), "history": str(self.history)}
        return asdict(self) | paths | {"schema_version": SCHEMA_VERSION, "kind": "finetune"}


def finetune(
    checkpoint: str | Path,
    data: str | Path,
    output: str | Path,
    settings: Running,
    *,
    name: str | None = None,
    validation: str | Path | None = None,
    timing: str | Path | None = None,
    class_map: str | Path | None = None,
    class_order: str | None = None,
    choices: Choices | None = None,
    device: str = "auto",
    workers: int = 0,
    resume: bool = False,
    save_every: int = SAVE_EVERY,
    progress: Progress = silent,
    watch: Watch = lambda record, total: None,
) -> FinetuneReport | None:
    """Learn thresholds, or weights under a static plan; write a checkpoint as timm's scripts do.

    Under torchrun every process calls this with the same arguments.

    Args:
        checkpoint: A dense ViT or a fine-tuned checkpoint, whose thresholds are then the start; or
            `timm:NAME`.
        data: A folder with a folder for each class, or an `.npz`; see `images.sets`.
        output: The checkpoint to write; the history goes beside it, and while it runs the state.
        settings: How to train: `Settings` for thresholds, `StaticSettings` for weights.
        name: What the output calls the dense model, where neither file nor timm knows it.
        validation: Images to measure on, where they are not in `data`.
        timing: A timing table, whose times are the budget in place of the multiply-accumulates.
        class_map: See `images.sets.Kind`.
        class_order: Likewise.
        choices: What the checkpoint does not say; `family` is the one to train, ltmp by default.
        device: See `timing.processes.process`.
        workers: Processes that read images, beside each of those that train.
        resume: Go on from the state that an interrupted run left beside the output.
        save_every: Steps between two states saved; one is saved after each epoch, too.
        progress: Called with a few words as each stage begins.
        watch: Called after each step with what it gave and the number of all steps.

    Returns:
        What it came to; None in processes that do not write it.

    Raises:
        InputError: A file, image or setting cannot be used.
        UnavailableError: There is no such device.
    """
    started, output = time.perf_counter(), Path(output)
    if save_every < 1:
        raise InputError(f"a state every {save_every} steps; expected at least 1")
    progress("reading the checkpoint")
    source = load_checkpoint(checkpoint, choices, dense=True)
    name = saving.named(source, name)
    freeze.require_classifier(source.path, source.geometry.classes > 0)
    method = trained_family(source)
    settings, options, doubts = time_budget.timed(settings, source, method.name, timing)
    files_written = _Files.beside(output)
    files_written.require(source, Path(data), resume)
    progress("looking for images")
    train, held_out = sets.split(
        Path(data),
        sets.Kind.of(source, class_map, class_order),
        augment=settings.augment,
        share=settings.held_out,
        seed=settings.seed,
        validation=None if validation is None else Path(validation),
    )
    dense = None
    with process(device) as place:
        source.model.to(place.device)
        goal = beginning.goal(source, method, settings)
        run = beginning.described(source, method, train, held_out, settings, goal)
        if place.first and settings.moves_weights:  # the weights are about to change
            progress("measuring the dense model")
            dense = dense_answers(source.model, held_out, workers)
        trainer = Trainer(goal, train, settings, place, workers)
        records = state.restore(state.read(files_written.state, run), trainer) if resume else []
        progress("training")
        for record in _saved(trainer, records, files_written, run, save_every):
            watch(record, trainer.course.total)
    if not place.first:
        return None
    progress("measuring on the images held out")
    if dense is None:
        dense = dense_answers(source.model, held_out, workers)
    report = _report(trainer, source, method.name, held_out, dense, files_written)
    report = replace(
        report,
        options=options,
        steps=len(records),
        seconds=time.perf_counter() - started,
        warnings=(*dict.fromkeys((*train.remarks, *held_out.remarks, *doubts)), *report.warnings),
    )
    disk.write_bytes(files_written.history, history.to_csv(records))
    disk.write_bytes(output, _content(report, source, settings, trainer, run, name))
    disk.remove(files_written.state)
    return report


def _saved(
    trainer: Trainer[Goal],
    records: list[Record],
    written: _Files,
    run: Mapping[str, Any],
    every: int,
) -> Iterator[Record]:
    """Train from where the records end: each new one, added to them, and now and then saved."""
    for record in trainer.run(len(records)):
        records.append(record)
        done, steps = len(records), trainer.course.steps
        if trainer.process.first and (done % every == 0 or done % steps == 0):
            state.write(written.state, trainer, records, run)
            disk.write_bytes(written.history, history.to_csv(records))
        yield record


class _Files(NamedTuple):
    """What a run writes."""

    output: Path
    history: Path
    state: Path

    @classmethod
    def beside(cls, output: Path) -> _Files:
        """The history and the state beside the output."""
        return cls(output, output.with_name(output.name + ".csv"), state.beside(output))

    def require(self, source: Checkpoint, data: Path, resume: bool) -> None:
        """Check that they can be written, and that no interrupted run is lost.

        Raises:
            InputError: They cannot, or one is.
        """
        disk.require_outputs(self, [source.path, data])
        if self.state.exists() and not resume:
            raise InputError(
                f"{self.state} is there, of a run that was interrupted; go on with it (--resume), "
                "or remove it to start anew"
            )


def _report(
    trainer: Trainer[Goal],
    source: Checkpoint,
    family: str,
    held_out: Labelled,
    dense: NDArray[np.int64],
    written: _Files,
) -> FinetuneReport:
    """What was learned, as it is deployed."""
    goal, labels = trainer.goal, held_out.require_labels()
    deployed = goal.deployed().to(trainer.process.device).eval()
    reached = measure(deployed, source.vit, held_out, trainer.workers, goal.plan)
    right = float((dense == labels).mean())
    doubts = chance.doubts(right, len(held_out), source.vit.classes, "top-1 of the dense model")
    time_share, far = time_budget.far(reached, source.vit.tokens, goal)
    return FinetuneReport(
        output=written.output,
        history=written.history,
        family=family,
        target=goal.target,
        mac_ratio=reached.mac_ratio,
        tokens=reached.tokens,
        accuracy=reached.agreement(labels),
        dense_accuracy=right,
        held_out=len(held_out),
        steps=0,
        seconds=0.0,
        thresholds=goal.thresholds(),
        time_share=time_share,
        notes=source.notes,
        warnings=(*source.warnings, *doubts, *far),
    )


def _content(
    report: FinetuneReport,
    source: Checkpoint,
    settings: Running,
    trainer: Trainer[Goal],
    run: Mapping[str, Any],
    name: str | None,
) -> bytes:
    """The checkpoint."""
    figures = ("mac_ratio", "accuracy", "dense_accuracy", "held_out", "steps")
    result = {key: getattr(report, key) for key in figures} | {"tokens": list(report.tokens)}
    if report.time_share is not None:
        result |= {"time_share": report.time_share, "options": report.options}
    return saving.to_bytes(
        source,
        report.family,
        report.thresholds,
        own=trainer.goal.own(),
        name=name,
        epoch=settings.epochs - 1,
        metric=100 * report.accuracy,
        args=settings.words() | plain(dict(trainer.goal.plan.stated)),
        optimizer=saving.optimizer_record(trainer.goal.optimizers),
        provenance={"command": "finetune", "run": dict(run), "result": result},
    )
