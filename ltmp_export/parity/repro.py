"""One failing image in a folder: what was run, and the decisions on both sides.

    DIR/repro.json     which image, in which batch, of which files, and what was found
    DIR/images.npz     `images` [B, channels, H, W] float32, the batch as it was run; `row`
    DIR/decisions.npz  by `file/…` and `reference/…`, for each block of that image:
                       merged, partner, similarity (sources) and kept, importance (tokens), or
                       what kept tokens go by; merge_order, prune_order where tokens are ranked;
                       fitted, fit_importance under a budget

Nothing in it is code. The model and the checkpoint are named, not copied; their digests tell
whether what is replayed is what failed.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ltmp_export.backbones.trace import Trace
from ltmp_export.checkpoint import hub
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.files import disk, folders
from ltmp_export.images import inputs
from ltmp_export.images.inputs import Images
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.parity.computed import Here
from ltmp_export.parity.replay import Observer
from ltmp_export.parity.report import CheckReport, Comparison
from ltmp_export.parity.runs import Run
from ltmp_export.parity.taps import Record
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.precision.formats import Precision
from ltmp_export.runtimes.session import ONNXRUNTIME
from ltmp_export.statements.choices import Choices
from ltmp_export.steps import recorded
from ltmp_export.steps.tokens import Choice

SCHEMA_VERSION = 1
DOCUMENT, PIXELS, DECISIONS = "repro.json", "images.npz", "decisions.npz"


@dataclass(frozen=True)
class Repro:
    """A folder, read back.

    Attributes:
        pixels: File with the batch, in the order it was run.
        names: Names of its images.
        model: The exported file that failed.
        model_sha256: Its digest then.
        checkpoint: The checkpoint it was compared with.
        checkpoint_sha256: Its digest then.
        choices: What was stated about the checkpoint.
        found: What the check found: image, verdict, reason, ….
        runtime: Name of what ran the file.
    """

    pixels: Path
    names: tuple[str, ...]
    model: Path
    model_sha256: str
    checkpoint: Path
    checkpoint_sha256: str
    choices: Choices
    found: Mapping[str, Any]
    runtime: str


def require_new(folder: Path) -> None:
    """Check that a repro can be written to this folder.

    Raises:
        InputError: There is something already, or it cannot be made.
    """
    disk.require_outputs([folder / DOCUMENT] if os.path.isdir(folder) else [folder])
    if os.path.isdir(folder) and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; choose another folder for the repro")


def save(
    folder: Path,
    model: onnx.ModelProto,
    model_path: Path,
    checkpoint: Checkpoint,
    given: Images,
    report: CheckReport,
    comparison: Comparison,
    precision: Precision,
    runtime: str = ONNXRUNTIME,
) -> None:
    """Write the folder, whole or not at all.

    Raises:
        InputError: It cannot be written, or holds something.
    """
    require_new(folder)
    run = Run(comparison.batch_size, comparison.order)
    number = comparison.number
    _, index, row = run.place(number, len(given))
    computed = Here(model, None, runtime)
    passes = () if runtime == ONNXRUNTIME else (run,)  # of others outputs may be all there is
    observer = Observer(model, checkpoint, given, passes, precision, None, computed)
    record = observer.record(run, number)
    trace = observer.replay(number, record)
    document = _document(model_path, checkpoint, report, comparison) | {
        "runtime": runtime,
        "row": row,
        "batch": [given.names[i] for i in index],
    }
    contents = {
        DOCUMENT: (json.dumps(document, indent=2) + "\n").encode(),
        PIXELS: _npz({"images": given.pixels[index], "row": np.array(row)}),
        DECISIONS: _npz(_file_decisions(checkpoint.plan, record) | _reference_decisions(trace)),
    }
    folders.write(folder, contents.items(), fresh=True)


def _document(
    model: Path, checkpoint: Checkpoint, report: CheckReport, comparison: Comparison
) -> dict[str, Any]:
    """Which image of which files, and what was found."""
    size, order = comparison.batch_size, comparison.order
    invariance = [
        one.reason
        for one in report.invariance
        if (one.image, one.batch_size, one.order) == (comparison.image, size, order)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "repro",
        "image": comparison.image,
        "batch_size": size,
        "order": order,
        "verdict": comparison.verdict,
        "where": comparison.where,
        "reason": comparison.reason or "; ".join(invariance),
        "counts": comparison.counts,
        "expected_counts": comparison.expected_counts,
        "model": str(model.resolve()),
        "model_sha256": disk.sha256(model),
        "checkpoint": str(checkpoint.path.resolve()),
        "checkpoint_sha256": checkpoint.sha256,
        "base_checkpoint": _resolved(checkpoint.choices.base_checkpoint),
        "choices": checkpoint.choices.to_json(),
        "versions": {name: version(name) for name in ("ltmp", "torch", "timm", "onnxruntime")},
    }


def _resolved(path: Path | None) -> str | None:
    return None if path is None else str(hub.absolute(path))


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _file_decisions(plan: Plan, record: Record) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for number, (steps, block) in enumerate(zip(plan.blocks, record.blocks, strict=False)):
        for step, taken in zip(steps, block.steps, strict=True):
            arrays |= _step("file", number, step, taken.choice, taken.score)
    return arrays


def _reference_decisions(trace: Trace) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for number, decisions in enumerate(trace.decisions):
        for decision in decisions:
            partners = decision.partners
            partner = None if partners is None else partners.index
            choice = Choice(decision.chosen, partner, decision.order)
            arrays |= _step("reference", number, decision.step, choice, decision.score.numpy())
    return arrays


def _step(
    side: str, block: int, step: Step, choice: Choice, score: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    prefix = f"{side}/block_{block:02d}"
    face = recorded.of(step)
    chosen, scored = getattr(face, "SAVED", face.WORDS.saved)
    arrays = {f"{prefix}/{chosen}": choice.chosen.numpy(), f"{prefix}/{scored}": score}
    if choice.partner is not None:
        arrays[f"{prefix}/partner"] = choice.partner.numpy()
    if choice.order is not None:
        arrays[f"{prefix}/{step.action}_order"] = choice.order.numpy()
    return arrays


def load(folder: Path) -> Repro:
    """Read a folder back; its images are read when the model's geometry is known.

    Raises:
        InputError: It is not one, or damaged.
    """
    if not os.path.isfile(folder / DOCUMENT):
        raise InputError(f"{folder} has no {DOCUMENT}; expected a folder of 'check --save-repro'")
    try:
        document = json.loads((folder / DOCUMENT).read_text())
        if document["schema_version"] != SCHEMA_VERSION:
            raise InputError(f"{folder} was saved by another version of ltmp; save it again")
        base = document["base_checkpoint"]
        stated = Choices.from_json(document["choices"])
        texts = ("model", "model_sha256", "checkpoint", "checkpoint_sha256", "verdict", "reason")
        if not all(isinstance(document[key], str) and "\0" not in document[key] for key in texts):
            raise ValueError(f"one of {', '.join(texts)} is no text")
        return Repro(
            pixels=folder / PIXELS,
            names=tuple(f"{name} (row {row})" for row, name in enumerate(document["batch"])),
            model=Path(document["model"]),
            model_sha256=document["model_sha256"],
            checkpoint=Path(document["checkpoint"]),
            checkpoint_sha256=document["checkpoint_sha256"],
            choices=Choices(base_checkpoint=None if base is None else Path(base)).over(stated),
            found={key: document[key] for key in ("image", "row", "verdict", "where", "reason")},
            runtime=str(document.get("runtime", ONNXRUNTIME)),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as err:
        raise InputError(f"{folder} is a damaged repro ({err}); save it again") from err


def images(saved: Repro, vit: Geometry, preprocessing: Preprocessing) -> Images:
    """The batch of a folder, for a model of that geometry.

    Raises:
        InputError: The images are damaged, or not for this model.
    """
    found = inputs.load_images(saved.pixels, vit, preprocessing)
    if len(found) != len(saved.names):
        raise InputError(f"{saved.pixels}: {len(found)} images; expected {len(saved.names)}")
    return replace(found, names=saved.names, origin=f"repro {saved.pixels.parent}", labels=None)
