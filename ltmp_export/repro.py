"""One failing image in a folder: what was run, and the decisions on both sides.

    DIR/repro.json     which image, in which batch, of which files, and what was found
    DIR/images.npz     `images` [B, channels, H, W] float32, the batch as it was run; `row`
    DIR/decisions.npz  by `file/…` and `reference/…`, for each block of that image:
                       merged, partner, similarity (sources) and kept, importance (tokens)

Nothing in it is code. The model and the checkpoint are named, not copied; their digests tell
whether what is replayed is what failed.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ltmp_export import files
from ltmp_export.check_report import CheckReport, Comparison
from ltmp_export.checkpoint import Checkpoint, Choices
from ltmp_export.errors import InputError
from ltmp_export.inputs import Images
from ltmp_export.observation import Observer, Run
from ltmp_export.reference import Trace
from ltmp_export.taps import Record
from ltmp_export.tokens import MergeDecision

SCHEMA_VERSION = 1
DOCUMENT, PIXELS, DECISIONS = "repro.json", "images.npz", "decisions.npz"


@dataclass(frozen=True)
class Repro:
    """A folder, read back.

    Attributes:
        images: The batch, in the order it was run; all of it belongs to the batch.
        model: The exported file that failed.
        model_sha256: Its digest then.
        checkpoint: The checkpoint it was compared with.
        checkpoint_sha256: Its digest then.
        choices: What was stated about the checkpoint.
        found: What the check found: image, verdict, reason, ….
    """

    images: Images
    model: Path
    model_sha256: str
    checkpoint: Path
    checkpoint_sha256: str
    choices: Choices
    found: Mapping[str, Any]


def require_new(folder: Path) -> None:
    """Check that a repro can be written to this folder.

    Raises:
        InputError: There is something already, or it cannot be made.
    """
    files.require_outputs([folder / DOCUMENT] if folder.is_dir() else [folder])
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; choose another folder for the repro")


def save(
    folder: Path,
    model: onnx.ModelProto,
    model_path: Path,
    checkpoint: Checkpoint,
    images: Images,
    report: CheckReport,
    comparison: Comparison,
) -> None:
    """Write the folder, whole or not at all.

    Raises:
        InputError: It cannot be written, or holds something.
    """
    require_new(folder)
    run = Run(comparison.batch_size, comparison.order)
    number = images.names.index(comparison.image)
    _, index, row = run.place(number, len(images))
    observer = Observer(model, checkpoint, images, ())
    record = observer.record(run, number)
    trace = observer.replay(number, record)
    invariance = [
        one.reason
        for one in report.invariance
        if (one.image, one.batch_size, one.order) == (comparison.image, run.size, run.order)
    ]
    document = {
        "schema_version": SCHEMA_VERSION,
        "kind": "repro",
        "image": comparison.image,
        "row": row,
        "batch": [images.names[i] for i in index],
        "batch_size": run.size,
        "order": run.order,
        "verdict": comparison.verdict,
        "where": comparison.where,
        "reason": comparison.reason or "; ".join(invariance) or report.reason,
        "counts": comparison.counts,
        "expected_counts": comparison.expected_counts,
        "model": str(model_path.resolve()),
        "model_sha256": files.sha256(model_path),
        "checkpoint": str(checkpoint.path.resolve()),
        "checkpoint_sha256": checkpoint.sha256,
        "base_checkpoint": _resolved(checkpoint.choices.base_checkpoint),
        "choices": checkpoint.choices.to_json(),
        "versions": {name: version(name) for name in ("ltmp", "torch", "timm", "onnxruntime")},
    }
    contents = {
        DOCUMENT: (json.dumps(document, indent=2) + "\n").encode(),
        PIXELS: _npz({"images": images.pixels[index], "row": np.array(row)}),
        DECISIONS: _npz(_file_decisions(record) | _reference_decisions(trace)),
    }
    _write_folder(folder, contents)


def _resolved(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def _write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """A temporary folder beside it, then a rename."""
    target = folder.resolve()
    temporary: Path | None = None
    try:
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        temporary.chmod(0o755)
        if target.is_dir():
            target.rmdir()  # it is empty
        temporary.rename(target)
    except OSError as err:
        raise InputError(f"cannot write {folder}: {err.strerror}; choose another folder") from err
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _file_decisions(record: Record) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for number, block in enumerate(record.blocks):
        for step in block.steps:
            chosen, partner = step.choice.chosen, step.choice.partner
            names = ("kept", "importance") if partner is None else ("merged", "similarity")
            prefix = f"file/block_{number:02d}"
            arrays[f"{prefix}/{names[0]}"] = chosen.numpy()
            arrays[f"{prefix}/{names[1]}"] = step.score
            if partner is not None:
                arrays[f"{prefix}/partner"] = partner.numpy()
    return arrays


def _reference_decisions(trace: Trace) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for number, decisions in enumerate(trace.decisions):
        for decision in decisions:
            merging = isinstance(decision, MergeDecision)
            names = ("merged", "similarity") if merging else ("kept", "importance")
            prefix = f"reference/block_{number:02d}"
            arrays[f"{prefix}/{names[0]}"] = decision.chosen.numpy()
            arrays[f"{prefix}/{names[1]}"] = decision.score.numpy()
            if isinstance(decision, MergeDecision):
                arrays[f"{prefix}/partner"] = decision.partner.numpy()
    return arrays


def load(folder: Path) -> Repro:
    """Read a folder back.

    Raises:
        InputError: It is not one, or damaged.
    """
    if not (folder / DOCUMENT).is_file():
        raise InputError(f"{folder} has no {DOCUMENT}; expected a folder of 'check --save-repro'")
    try:
        document = json.loads((folder / DOCUMENT).read_text())
        if document["schema_version"] != SCHEMA_VERSION:
            raise InputError(f"{folder} was saved by another version of ltmp; save it again")
        with np.load(folder / PIXELS, allow_pickle=False) as archive:
            pixels = np.asarray(archive["images"], dtype=np.float32)
        base = document["base_checkpoint"]
        stated = Choices.from_json(document["choices"])
        choices = Choices(base_checkpoint=None if base is None else Path(base)).over(stated)
        names = tuple(f"{name} (row {row})" for row, name in enumerate(document["batch"]))
        if pixels.ndim != 4 or len(pixels) != len(names):
            raise ValueError(f"images {pixels.shape} for a batch of {len(names)}")
        return Repro(
            images=Images(pixels, None, names, f"repro {folder}"),
            model=Path(document["model"]),
            model_sha256=document["model_sha256"],
            checkpoint=Path(document["checkpoint"]),
            checkpoint_sha256=document["checkpoint_sha256"],
            choices=choices,
            found={key: document[key] for key in ("image", "row", "verdict", "where", "reason")},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as err:
        raise InputError(f"{folder} is a damaged repro ({err}); save it again") from err
