"""A dense or fine-tuned ViT and some images → thresholds that meet a target → checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ltmp_export import files, labelled
from ltmp_export.calibration import quantiles
from ltmp_export.calibration.measure import Measured, dense_classes, measure
from ltmp_export.calibration.quantiles import Shares
from ltmp_export.calibration.search import Trial, search
from ltmp_export.calibration.shift import shifted
from ltmp_export.checkpoint import Checkpoint, load_checkpoint
from ltmp_export.choices import Choices
from ltmp_export.errors import InputError
from ltmp_export.families import Family
from ltmp_export.labelled import Labelled
from ltmp_export.pipeline.stages import Progress, family_of, silent
from ltmp_export.plan import DENSE
from ltmp_export.training import saving
from ltmp_export.training.forms import ALIGNED
from ltmp_export.training.model import MaskedVit
from ltmp_export.training.processes import process

SCHEMA_VERSION = 1
SAMPLES = 256
TOLERANCE = 0.005  # of the target
QUANTILES, SHIFT = "quantiles", "shift"
_MOST_REMOVED = 0.995  # of a block's tokens
_FARTHEST = 12.0  # of a shift, on the scale of log-odds

Thresholds = dict[str, list[float]]


@dataclass(frozen=True)
class Calibrated:
    """One target.

    Attributes:
        target: Share of the dense multiply-accumulates asked for.
        mac_ratio: Share executed on the images held out.
        tokens: Mean tokens after each block there.
        agreement: Share of the images there with the dense model's top-1.
        accuracy: Top-1 there, where there are labels.
        thresholds: Per kind, one for each block.
    """

    target: float
    mac_ratio: float
    tokens: tuple[float, ...]
    agreement: float
    accuracy: float | None
    thresholds: Thresholds


@dataclass(frozen=True)
class CalibrateReport:
    """What a calibration came to.

    Attributes:
        output: The checkpoint written; None for a sweep.
        family: Token-reduction family.
        method: "quantiles" of scores, or "shift" of the thresholds a checkpoint had.
        rows: One for each target.
        calibration: Images whose scores gave the thresholds; 0 for a shift.
        held_out: Images that were measured on.
        images: Where they come from.
        dense_accuracy: Of the dense model, where there are labels.
        seconds: Time taken.
        notes: What was assumed.
        warnings: What looks wrong.
    """

    output: Path | None
    family: str
    method: str
    rows: tuple[Calibrated, ...]
    calibration: int
    held_out: int
    images: str
    dense_accuracy: float | None
    seconds: float
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        output = None if self.output is None else str(self.output)
        document = asdict(self) | {"output": output}
        return document | {"schema_version": SCHEMA_VERSION, "kind": "calibrate"}


@dataclass(frozen=True)
class Spread:
    """How a calibration goes about it.

    Attributes:
        merge: Part of the removed tokens that merging takes, where a family also prunes.
        schedule: One of `quantiles.SCHEDULES`.
        method: "quantiles" or "shift"; by default a shift where the checkpoint has thresholds.
        samples: Images to take at most; one half gives scores, the other is measured on.
        seed: Which half is which.
    """

    merge: float = 0.7
    schedule: str = "late"
    method: str | None = None
    samples: int = SAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.merge <= 1.0:
            raise InputError(f"split merge={self.merge:g}; expected a share from 0 to 1")
        if self.schedule not in quantiles.SCHEDULES:
            known = ", ".join(quantiles.SCHEDULES)
            raise InputError(f"no schedule {self.schedule!r}; choose from {known}")
        if self.method not in (None, QUANTILES, SHIFT):
            raise InputError(f"no method {self.method!r}; choose from {QUANTILES}, {SHIFT}")


def calibrate(
    checkpoint: str | Path,
    images: str | Path,
    targets: Sequence[float],
    output: str | Path | None = None,
    *,
    spread: Spread | None = None,
    name: str | None = None,
    class_map: str | Path | None = None,
    choices: Choices | None = None,
    device: str = "auto",
    workers: int = 0,
    progress: Progress = silent,
) -> CalibrateReport:
    """Find thresholds without training, so that a share of the work is left on images held out.

    Args:
        checkpoint: A dense ViT, a fine-tuned checkpoint, or `timm:NAME`.
        images: A folder of pictures or an `.npz`, labelled or not; see `labelled`.
        targets: Shares of the dense multiply-accumulates, each in (0, 1].
        output: The checkpoint to write, for a single target.
        spread: How removals are spread over steps and blocks.
        name: What the output calls the dense model, where neither file nor timm knows it.
        class_map: See `labelled.Kind`.
        choices: What the checkpoint does not say; `family` is the one to make, ltmp by default.
        device: See `processes.process`.
        workers: Processes that read images.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file or image cannot be used, or a target cannot be met within 0.5 %.
        UnavailableError: There is no such device.
    """
    started, spread = time.perf_counter(), spread or Spread()
    _require_targets(targets, output)
    progress("reading the checkpoint")
    source = load_checkpoint(checkpoint, choices, dense=True)
    if output is not None:
        output = Path(output)
        files.require_outputs([output], [source.path, Path(images)])
    progress("looking for images")
    kind = labelled.Kind.of(source, class_map)
    chosen = labelled.held_out(Path(images), kind, classes=False).select(spread.samples)
    scored, held_out = labelled.halves(chosen, spread.seed)
    with process(device) as place:
        source.model.to(place.device)
        bench = _Bench(source, family_of(source), held_out, workers, progress)
        shift = spread.method == SHIFT or (spread.method is None and source.plan.family != DENSE)
        attempts = _by_shift(source) if shift else _by_quantiles(bench, scored, spread)
        rows = [bench.meet(target, *attempts) for target in targets]
        source.model.to("cpu")
    report = CalibrateReport(
        output=output,
        family=bench.family.name,
        method=SHIFT if shift else QUANTILES,
        rows=tuple(rows),
        calibration=0 if shift else len(scored),
        held_out=len(held_out),
        images=chosen.origin,
        dense_accuracy=bench.accuracy(bench.dense),
        seconds=time.perf_counter() - started,
        notes=source.notes,
        warnings=source.warnings,
    )
    if output is not None:
        (row,) = rows
        made = {"command": "calibrate", "method": report.method, "spread": asdict(spread)}
        measured = {"target": row.target, "mac_ratio": row.mac_ratio, "agreement": row.agreement}
        content = saving.to_bytes(
            source,
            report.family,
            row.thresholds,
            name=name,
            metric=None if row.accuracy is None else 100 * row.accuracy,
            args={"reduction_target": row.target},
            provenance={**made, "result": measured},
        )
        files.write_bytes(output, content)
    return report


def _require_targets(targets: Sequence[float], output: str | Path | None) -> None:
    for target in targets:
        if not 0.0 < target <= 1.0:
            raise InputError(
                f"a reduction target of {target:g}; expected the share of the multiply-accumulates "
                "to be left, above 0 and at most 1"
            )
    if not targets or (output is not None and len(targets) > 1):
        raise InputError(f"{len(targets)} targets; a checkpoint is written for one")


Setting = tuple[Callable[[float], Thresholds], float, float]


class _Bench:
    """Measures thresholds on the images held out."""

    def __init__(
        self,
        source: Checkpoint,
        family: Family,
        held_out: Labelled,
        workers: int,
        progress: Progress,
    ) -> None:
        self.source, self.family = source, family
        self.held_out, self.workers, self.progress = held_out, workers, progress
        progress("measuring the dense model")
        self.dense = dense_classes(source.model, held_out, workers)

    def model(self, thresholds: Mapping[str, Sequence[float]]) -> MaskedVit:
        """The model with these thresholds, deciding as deployed."""
        return MaskedVit(self.source.model, self.family, thresholds, ALIGNED).eval()

    def measure(self, thresholds: Thresholds) -> Measured:
        """What it does to the images held out."""
        device = next(self.source.model.parameters()).device
        model = self.model(thresholds).to(device)
        return measure(model, self.source.vit, self.held_out, self.workers)

    def accuracy(self, classes: NDArray[np.int64]) -> float | None:
        """Share of them that is right, where there are labels."""
        labels = self.held_out.labels
        return None if labels is None else float((classes == labels).mean())

    def meet(
        self, target: float, make: Callable[[float], Thresholds], low: float, high: float
    ) -> Calibrated:
        """Turn the one number that `make` takes until the target is met.

        Raises:
            InputError: It cannot be.
        """
        seen: list[float] = []

        def attempt(at: float) -> Trial[tuple[Thresholds, Measured]]:
            thresholds = make(at)
            measured = self.measure(thresholds)
            seen.append(measured.mac_ratio)
            self.progress(f"target {target:g}: {measured.mac_ratio:.4f} after {len(seen)} trials")
            return Trial(at, measured.mac_ratio, (thresholds, measured))

        found = search(attempt, low, high, target, TOLERANCE * target)
        thresholds, measured = found.result
        if abs(found.ratio - target) > TOLERANCE * target:
            raise InputError(
                f"family {self.family.name} cannot leave {target:g} of the multiply-accumulates on "
                f"these {len(self.held_out)} images: between {min(seen):.3f} and {max(seen):.3f} "
                f"were seen, the nearest is {found.ratio:.4f}; ask for that, or give more images"
            )
        return Calibrated(
            target=target,
            mac_ratio=measured.mac_ratio,
            tokens=measured.tokens,
            agreement=measured.agreement(self.dense),
            accuracy=self.accuracy(measured.classes),
            thresholds=thresholds,
        )


def _by_quantiles(bench: _Bench, scored: Labelled, spread: Spread) -> Setting:
    """Thresholds from the scores of images, by the share of its tokens that a block removes."""
    shares = Shares(spread.merge, spread.schedule)
    flat = {kind: [0.5] * bench.source.vit.depth for kind in bench.family.scalars}
    device = next(bench.source.model.parameters()).device
    model = bench.model(flat).to(device)
    with torch.inference_mode():
        embedded = [model.embed(batch.to(device)) for batch in scored.batches(16, bench.workers)]
    return lambda at: quantiles.thresholds(model, embedded, shares, at), 0.0, _MOST_REMOVED


def _by_shift(source: Checkpoint) -> Setting:
    """The thresholds of the checkpoint, moved together.

    Raises:
        InputError: It has none.
    """
    own = source.plan.thresholds()
    if not own:
        raise InputError(
            f"{source.path} has no thresholds to shift; take --method {QUANTILES} for a dense model"
        )
    return lambda at: shifted(own, at), -_FARTHEST, _FARTHEST
