"""ONNX file, and perhaps its checkpoint and images → what other commands find → one page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltmp_export.commands.bench import bench as time_it
from ltmp_export.commands.inspect import inspect
from ltmp_export.drawing import seen
from ltmp_export.drawing.followed import followed
from ltmp_export.errors import CheckFailedError, InputError
from ltmp_export.files import disk
from ltmp_export.graph import interface
from ltmp_export.images import inputs
from ltmp_export.images.places import are_pictures
from ltmp_export.model_file.model import read_exported
from ltmp_export.progress import Progress, silent
from ltmp_export.reports.page.document import document
from ltmp_export.reports.page.findings import Findings, Pictures, Tokens
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.statements.choices import Choices
from ltmp_export.timing.settings import Settings

if TYPE_CHECKING:
    from ltmp_export.checkpoint.load import Checkpoint
    from ltmp_export.images.inputs import Images
    from ltmp_export.model_file.model import ExportedModel
    from ltmp_export.parity.report import CheckReport

SAMPLES, SHOWN = 48, 12  # images of figures and of pictures, at most, where nothing is said

# What reads checkpoints is imported where it is used: PyTorch and timm take seconds.


@dataclass(frozen=True)
class PageReport:
    """What was written.

    Attributes:
        output: The page.
        bytes: Its size.
        findings: What it tells.
    """

    output: Path
    bytes: int
    findings: Findings

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed."""
        return self.findings.notes

    @property
    def warnings(self) -> tuple[str, ...]:
        """What else to know."""
        return self.findings.warnings

    def to_json(self) -> dict[str, Any]:
        """The same facts for scripts, see `schemas/report.schema.json`."""
        return self.findings.to_json() | {"output": str(self.output)}

    def passed(self) -> bool:
        """Whether nothing was checked, or the check passed."""
        return self.findings.check is None or self.findings.check.passed()


def report(
    model: str | Path,
    checkpoint: str | Path | Checkpoint | None = None,
    output: str | Path = "report.html",
    *,
    images: str | Path | None = None,
    samples: int | None = None,
    bench: bool = False,
    choices: Choices | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> PageReport:
    """Tell of an exported file on one page of HTML, which holds all it shows.

    Args:
        model: File written by `export`.
        checkpoint: Also check the file against it, and measure its margins.
        output: The page; it is written whole or not at all.
        images: A folder of pictures or an `.npz`, see `images.inputs.load_images`.
        samples: Take at most so many images for each part; by default 48, for the check 16. Twelve
            of them are shown at most.
        bench: Also time the file against the dense model of the same weights.
        choices: What the checkpoint does not say, as for `check`.
        threads: Threads of an operator; all processors by default.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file cannot be used, or the page cannot be written.
        CheckFailedError: A file's decisions are none, or not what its token_map says.
        ExportError: onnxruntime does not run a model.
    """
    output = Path(output)
    sources = [model, checkpoint, images]
    given = [Path(path) for path in sources if isinstance(path, (str, os.PathLike))]
    disk.require_outputs([output], given)
    if checkpoint is None and choices not in (None, Choices()):
        raise InputError("options that state something of a checkpoint need one: give CHECKPOINT")
    settings = Settings(threads=threads)
    progress("opening the model")
    exported = read_exported(Path(model))
    source = None if images is None else Path(images)
    count = SAMPLES if samples is None else samples
    chosen = inputs.load_images(source, exported.geometry, exported.preprocessing, count)
    known: dict[str, Any] = {}
    if checkpoint is not None:
        known |= _against(exported, checkpoint, choices, chosen, samples, progress)
    if bench:
        timed = None if images is None else chosen  # labels of digits are not any model's
        known["bench"] = time_it(
            model, images=timed, samples=count, settings=settings, progress=progress
        )
    pictures = are_pictures(source)
    found = gathered(exported, chosen, threads, progress, pictures=pictures, **known)
    return write(output, found)


def gathered(
    exported: ExportedModel,
    chosen: Images,
    threads: int | None,
    progress: Progress,
    *,
    pictures: bool,
    notes: tuple[str, ...] = (),
    **known: Any,
) -> Findings:
    """What the page tells: what is known already, and what the file says of some images.

    Args:
        exported: The file.
        chosen: Images for it.
        threads: Of an operator.
        progress: Called with a few words as each stage begins.
        pictures: Whether the images were pictures, not arrays.
        notes: What else was assumed.
        known: Parts of `Findings`.

    Raises:
        CheckFailedError: The file's decisions are none, and no check tells of it.
        ExportError: onnxruntime does not run it.
    """
    tokens, remarks = _tokens(exported, chosen, threads, progress), list(chosen.remarks)
    few, shown, more = chosen.select(SHOWN), None, tuple[str, ...]()
    try:
        shown, more = _pictures(exported, few, threads, progress, pictures)
    except InputError as err:  # there are no patches to follow, or inputs are no pictures
        more = (f"no pictures: {err}",)
    except CheckFailedError as err:
        if known.get("check") is None:
            raise
        more = (f"no pictures: {err}",)  # the check tells what is wrong
    if tokens is None:
        remarks.append(f"{exported.path} lacks the named tensors that tell its tokens")
    for part in ("check", "bench"):
        remarks += () if part not in known else known[part].warnings
    return Findings(
        facts=inspect(exported.path), sha256=disk.sha256(exported.path), tokens=tokens,
        pictures=shown, notes=tuple(dict.fromkeys((*exported.notes, *notes))),
        warnings=tuple(dict.fromkeys((*remarks, *more))), **known,
    )  # fmt: skip


def write(output: Path, found: Findings) -> PageReport:
    """Write the page, whole or not at all.

    Raises:
        InputError: It cannot be written there.
    """
    content = document(found)
    disk.write_bytes(output, content)
    return PageReport(output, len(content), found)


def measured_margins(checkpoint: Checkpoint, images: Images, progress: Progress) -> dict[str, Any]:
    """As plain values."""
    from ltmp_export.parity import margins

    return margins.margins(checkpoint, images, progress).to_json()


def _against(
    exported: ExportedModel,
    checkpoint: str | Path | Checkpoint,
    choices: Choices | None,
    chosen: Images,
    samples: int | None,
    progress: Progress,
) -> dict[str, Any]:
    """The check, the margins and what was assumed of the checkpoint.

    Raises:
        InputError: It cannot be used, or belongs to another file.
    """
    from ltmp_export.checkpoint.load import Checkpoint
    from ltmp_export.commands import belonging
    from ltmp_export.commands.check import check
    from ltmp_export.commands.stages import loaded

    if not isinstance(checkpoint, Checkpoint):
        choices = belonging.as_exported(exported, Path(checkpoint), choices or Choices())
    owner = loaded(checkpoint, choices, progress)
    checked: CheckReport = check(
        exported.path, owner, images=chosen, samples=samples, progress=progress
    )
    distances = measured_margins(belonging.as_in_file(exported, owner), chosen, progress)
    decided = distances if distances["steps"] else None
    return {"check": checked, "margins": decided, "notes": owner.notes}


def _tokens(
    exported: ExportedModel, chosen: Images, threads: int | None, progress: Progress
) -> Tokens | None:
    """Of each image alone; None where the file does not tell."""
    taps = interface.count_taps(exported.geometry.depth)
    if interface.missing_tensors(exported.proto, taps):
        return None
    session = TappedSession(exported.proto, taps, threads=threads)
    counts = []
    for number, pixels in enumerate(chosen.pixels):
        progress(f"counting tokens of image {number + 1} of {len(chosen)}")
        given = session.run(pixels[None])
        counts.append(tuple(int(given[name].reshape(-1)[0]) for name in taps))
    return Tokens(chosen.described, exported.geometry.tokens, tuple(counts))


def _pictures(
    exported: ExportedModel, chosen: Images, threads: int | None, progress: Progress, pictures: bool
) -> tuple[Pictures, tuple[str, ...]]:
    """What became of which patch, with what to know of it.

    Raises:
        CheckFailedError: The file's decisions are none.
        InputError: There are no patches to follow, or inputs cannot be shown.
    """
    found, remarks = followed(exported, chosen, threads, progress)
    size, preprocessing = exported.geometry.image_size, exported.preprocessing
    prepared = seen.words(size, preprocessing, pictures=pictures)
    return Pictures(chosen.described, prepared, found), remarks
