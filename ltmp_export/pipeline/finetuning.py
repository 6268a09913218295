"""A dense or fine-tuned ViT and labelled images → learned thresholds → checkpoint."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ltmp_export import datasets, files
from ltmp_export.calibration.measure import Measured, dense_classes, measure
from ltmp_export.checkpoint import Checkpoint, load_checkpoint
from ltmp_export.choices import Choices
from ltmp_export.errors import InputError
from ltmp_export.families import Family
from ltmp_export.labelled import Labelled
from ltmp_export.pipeline.stages import Progress, family_of, silent
from ltmp_export.training import history, saving, state
from ltmp_export.training.forms import ALIGNED, FORMS
from ltmp_export.training.loop import Record, Trainer
from ltmp_export.training.model import MaskedVit
from ltmp_export.training.processes import process
from ltmp_export.training.settings import Settings

Watch = Callable[[Record, int], None]
SCHEMA_VERSION = 1
SAVE_EVERY = 100
FAR = 0.02  # from the target: worth a warning


@dataclass(frozen=True)
class FinetuneReport:
    """What a run came to.

    Attributes:
        output: The checkpoint written.
        history: The CSV written.
        family: Token-reduction family.
        target: Share of the blocks' multiply-accumulates asked for.
        mac_ratio: Share of all multiply-accumulates that the deployed model executes on the images
            held out.
        tokens: Mean tokens after each block there.
        accuracy: Its top-1 there.
        dense_accuracy: Top-1 of the dense model there, with the weights before training.
        held_out: How many images that is.
        steps: Steps taken, over all runs of this training.
        seconds: Time of this run.
        thresholds: Per kind, one for each block.
        notes: What was assumed.
        warnings: What looks wrong.
    """

    output: Path
    history: Path
    family: str
    target: float
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

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        paths = {"output": str(self.output), "history": str(self.history)}
        return asdict(self) | paths | {"schema_version": SCHEMA_VERSION, "kind": "finetune"}


def finetune(
    checkpoint: str | Path,
    data: str | Path,
    output: str | Path,
    settings: Settings,
    *,
    name: str | None = None,
    validation: str | Path | None = None,
    class_map: str | Path | None = None,
    choices: Choices | None = None,
    device: str = "auto",
    workers: int = 0,
    resume: bool = False,
    save_every: int = SAVE_EVERY,
    progress: Progress = silent,
    watch: Watch = lambda record, total: None,
) -> FinetuneReport | None:
    """Learn thresholds, and write a checkpoint as the authors' script does.

    Under torchrun every process calls this with the same arguments.

    Args:
        checkpoint: A dense ViT or a fine-tuned checkpoint, whose thresholds are then the start; or
            `timm:NAME`.
        data: A folder with a folder for each class, or an `.npz`; see `datasets`.
        output: The checkpoint to write; the history goes beside it, and while it runs the state.
        settings: How to train.
        name: What the output calls the dense model, where neither file nor timm knows it.
        validation: Images to measure on, where they are not in `data`.
        class_map: See `datasets.Kind`.
        choices: What the checkpoint does not say; `family` is the one to learn, ltmp by default.
        device: See `processes.process`.
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
    progress("reading the checkpoint")
    source = load_checkpoint(checkpoint, choices, dense=True)
    name = saving.named(source, name)
    method = family_of(source)
    saved, table = state.beside(output), output.with_name(output.name + ".csv")
    files.require_outputs([output, table, saved], [source.path, Path(data)])
    if saved.exists() and not resume:
        raise InputError(
            f"{saved} is there, of a run that was interrupted; go on with it (--resume), or remove "
            "it to start anew"
        )
    progress("looking for images")
    train, held_out = datasets.split(
        Path(data),
        datasets.Kind.of(source, class_map),
        augment=settings.augment,
        share=settings.held_out,
        seed=settings.seed,
        validation=None if validation is None else Path(validation),
    )
    run = _described(source, method, train, settings)
    dense = None
    with process(device) as place:
        source.model.to(place.device)
        if place.first:
            progress("measuring the dense model")
            dense = dense_classes(source.model, held_out, workers)
        start = _start(source, method, settings)
        model = MaskedVit(source.model, method, start, FORMS[settings.form], settings.tau)
        trainer = Trainer(model, source.vit, train, settings, place, workers)
        records = state.restore(state.read(saved, run), trainer) if resume else []
        progress("training")
        for record in trainer.run(len(records)):
            records.append(record)
            done, steps = len(records), trainer.course.steps
            if place.first and (done % save_every == 0 or done % steps == 0):
                state.write(saved, trainer, records, run)
            watch(record, trainer.course.total)
    if dense is None:
        return None
    progress("measuring on the images held out")
    reached = _measured(trainer, source, method, held_out)
    labels = held_out.require_labels()
    report = FinetuneReport(
        output=output,
        history=table,
        family=method.name,
        target=settings.reduction_target,
        mac_ratio=reached.mac_ratio,
        tokens=reached.tokens,
        accuracy=reached.agreement(labels),
        dense_accuracy=float((dense == labels).mean()),
        held_out=len(held_out),
        steps=len(records),
        seconds=time.perf_counter() - started,
        thresholds=model.values(),
        notes=source.notes,
        warnings=(*source.warnings, *_far(reached, settings)),
    )
    files.write_bytes(table, history.to_csv(records))
    files.write_bytes(output, _content(report, source, settings, trainer, run, name))
    files.remove(saved)
    return report


def _measured(trainer: Trainer, source: Checkpoint, method: Family, held_out: Labelled) -> Measured:
    """What the thresholds do when they are deployed, in whichever form they were trained."""
    deployed = MaskedVit(source.model, method, trainer.model.values(), ALIGNED)
    on_device = deployed.to(trainer.process.device).eval()
    return measure(on_device, source.vit, held_out, trainer.workers)


def _content(
    report: FinetuneReport,
    source: Checkpoint,
    settings: Settings,
    trainer: Trainer,
    run: Mapping[str, Any],
    name: str | None,
) -> bytes:
    """The checkpoint."""
    figures = ("mac_ratio", "accuracy", "dense_accuracy", "held_out", "steps")
    result = {key: getattr(report, key) for key in figures} | {"tokens": list(report.tokens)}
    return saving.to_bytes(
        source,
        report.family,
        report.thresholds,
        name=name,
        epoch=settings.epochs - 1,
        metric=100 * report.accuracy,
        args=_args(settings),
        optimizer=_optimizer(trainer),
        provenance={"command": "finetune", "run": dict(run), "result": result},
    )


def _optimizer(trainer: Trainer) -> dict[str, Any]:
    """What was trained, as a state_dict with a number for each parameter of the authors' form.

    There every block's threshold is one; here those of a kind are a vector. Moments are left out.
    """
    groups, count = [], 0
    for optimizer in trainer.optimizers:
        vectors = isinstance(optimizer, torch.optim.SGD)
        for group in optimizer.param_groups:
            size = sum(len(p) if vectors else 1 for p in group["params"])
            words = {key: value for key, value in group.items() if key != "params"}
            groups.append(words | {"params": list(range(count, count + size))})
            count += size
    return {"state": {}, "param_groups": groups}


def _start(source: Checkpoint, method: Family, settings: Settings) -> dict[str, list[float]]:
    """Where the thresholds start: as stated, as the checkpoint has them, as the family does."""
    own = source.plan.thresholds()
    return {
        kind: [settings.start[kind]] * source.vit.depth
        if kind in settings.start
        else own.get(kind, [start] * source.vit.depth)
        for kind, start in method.start.items()
    }


def _described(
    source: Checkpoint, method: Family, train: Labelled, settings: Settings
) -> dict[str, Any]:
    """What a run is started with: that of the one to be resumed must be the same."""
    names = hashlib.sha256("\n".join(train.names).encode())
    names.update(train.require_labels().tobytes())
    words = {key.replace("_", " "): value for key, value in settings.to_json().items()}
    return {
        "checkpoint": source.sha256,
        "family": method.name,
        "images": train.sha256 or names.hexdigest(),
        "number of images": len(train),
        **words,
    }


def _args(settings: Settings) -> dict[str, Any]:
    """The settings in the words of the authors' script."""
    return {
        "tau": settings.tau,
        "reduction_target": settings.reduction_target,
        "lr": settings.lr.get("prune", settings.lr.get("merge")),
        "batch_size": settings.batch_size,
        "epochs": settings.epochs,
        "seed": settings.seed,
        "smoothing": settings.label_smoothing,
        "opt": "sgd",
        "model_ema": False,
    }


def _far(reached: Measured, settings: Settings) -> list[str]:
    """A warning where the target was missed."""
    if abs(reached.mac_ratio - settings.reduction_target) <= FAR:
        return []
    return [
        f"{reached.mac_ratio:.3f} of the multiply-accumulates are executed, the target is "
        f"{settings.reduction_target:g}: train longer (--epochs), raise the learning rates "
        "(--lr-merge, --lr-prune), or start from the output of 'ltmp calibrate'"
    ]
