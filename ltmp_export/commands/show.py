"""ONNX file and images → who owns which patch → pictures of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltmp_export.drawing import seen
from ltmp_export.drawing.mixed import Mixtures
from ltmp_export.drawing.owned import Owners
from ltmp_export.drawing.report import Model, ShowReport
from ltmp_export.drawing.work import A, Done, Heats, Strips, Subject
from ltmp_export.errors import InputError
from ltmp_export.files import folders, memory
from ltmp_export.images import inputs
from ltmp_export.images.places import are_pictures
from ltmp_export.model_file.model import read_exported
from ltmp_export.plan.outputs import DENSE
from ltmp_export.precision.formats import FP32
from ltmp_export.progress import Progress, silent

if TYPE_CHECKING:
    from ltmp_export.model_file.model import ExportedModel

SAMPLES, FEW = 12, 6
SIDE, PATCH = 320, 12  # pixels of a picture and of a patch, at least, where no size is asked for
SMALLEST, LARGEST = 96, 2048  # pixels of a picture's longer side
ALL = "all"


def show(
    model: str | Path,
    output: str | Path = "pictures",
    *,
    images: str | Path | None = None,
    samples: int | None = None,
    blocks: Sequence[int] | str | None = None,
    side_by_side: str | Path | None = None,
    grid: bool = False,
    apart: bool = False,
    heat: bool = False,
    size: int | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> ShowReport:
    """Draw what became of each patch of some images, block by block, by a file's own decisions.

    Args:
        model: File written by `export`.
        output: Folder for the pictures; it is made if it does not exist, and files of the same
            names are replaced.
        images: A folder of pictures or an `.npz`, see `images.inputs.load_images`.
        samples: Draw at most so many, evenly spread; 12 by default.
        blocks: Which blocks, from 0, or "all"; at most six, evenly spread, by default.
        side_by_side: Another file, of the same images.
        grid: Also draw all images on one picture.
        apart: A picture for each block instead of one with all of them.
        heat: Instead, for methods that mix tokens: what of each patch is in each of them. A block
            is then one before or in which tokens are mixed, the number of blocks stands for the
            place before the head, and the last one is drawn by default.
        size: Pixels of the longer side of each block's picture, 96 to 2048; by default 320, or more
            where there are many patches.
        threads: Threads of an operator; all processors by default.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file cannot be used, or a patch may be part of several tokens.
        CheckFailedError: A file's decisions are none, or not what its token_map says.
        ExportError: onnxruntime does not run a model.
    """
    if size is not None and not SMALLEST <= size <= LARGEST:
        raise InputError(f"pictures of {size} pixels; expected {SMALLEST} to {LARGEST}")
    if heat and (grid or apart or side_by_side is not None):
        raise InputError(
            "--heat draws the tokens of one file; drop --grid, --apart and --side-by-side"
        )
    folder = Path(output)
    folders.require_folder(folder)
    _require_elsewhere(folder, images)
    paths = [Path(model), *([] if side_by_side is None else [Path(side_by_side)])]
    source = None if images is None else Path(images)
    asked = SAMPLES if samples is None else samples
    progress("opening the model")
    opened = [read_exported(path) for path in paths]
    size = _usual(opened) if size is None else size
    work: Strips | Heats
    if heat:
        mixing = _subject(opened[0], Mixtures(opened[0], threads=threads), source, asked)
        subjects: list[Any] = [mixing]
        work = Heats(mixing, _blocks(subjects, blocks, last=True), size)
    else:
        owned = [_subject(one, Owners(one, threads=threads), source, asked) for one in opened]
        _require_alike(owned)
        subjects = [*owned]
        work = Strips(owned, _blocks(owned, blocks), size, grid, apart)
    shown = len(subjects[0].images)
    memory.require_memory(
        (shown if grid else 1) * (work.tiles + 1) * size * size * 6, "the pictures"
    )
    done = Done()
    folders.write(folder, work.files(done, progress))
    notes = [note for one in subjects for note in one.exported.notes]
    warnings = [w for one in subjects for w in (*one.asked.remarks, *one.images.remarks)]
    return ShowReport(
        folder, tuple(one.model for one in subjects), subjects[0].images.described, work.blocks,
        tuple(done.shown), tuple(done.grids), tuple(dict.fromkeys(notes)),
        tuple(dict.fromkeys(warnings)),
    )  # fmt: skip


def _usual(opened: Sequence[ExportedModel]) -> int:
    """Pixels of a picture's longer side where none are asked for."""
    grids = [one.geometry.outputs.get(DENSE, ()) for one in opened]
    patches = max((side or 0 for shape in grids for side in shape[1:]), default=0)
    return min(LARGEST, max(SIDE, PATCH * patches))


def _require_elsewhere(folder: Path, images: str | Path | None) -> None:
    """Check that pictures do not go among the images, where the next run would take them for some.

    Raises:
        InputError: They do.
    """
    if images is None or not os.path.isdir(images):
        return
    source = Path(images).resolve()
    if source in (folder.resolve(), *folder.resolve().parents):
        raise InputError(
            f"the pictures would go to {folder}, among the images in {images}; choose another "
            "folder with --output"
        )


def _subject(exported: ExportedModel, asked: A, source: Path | None, samples: int) -> Subject[A]:
    """A file, opened, with its images.

    Raises:
        InputError: The images cannot be read.
    """
    geometry, preprocessing, path = exported.geometry, exported.preprocessing, exported.path
    images = inputs.load_images(source, geometry, preprocessing, samples)
    pictures = are_pictures(source)
    prepared = seen.words(geometry.image_size, preprocessing, pictures=pictures)
    kind = "" if exported.precision.kind == FP32 else f", {exported.precision.kind}"
    told = f"{path.name} ({exported.plan.family}, {geometry.name}{kind})"
    return Subject(exported, asked, images, Model(path, told, asked.grid, prepared))


def _require_alike(subjects: Sequence[Subject[Any]]) -> None:
    """Check that two files were given the same images.

    Raises:
        InputError: They were not.
    """
    first, last = subjects[0], subjects[-1]
    if first.images.names != last.images.names:
        raise InputError(
            f"{first.model.path} and {last.model.path} are shown other images where none are "
            "given, since their inputs differ in size; give --images"
        )


def _blocks(
    subjects: Sequence[Subject[Any]], asked: Sequence[int] | str | None, *, last: bool = False
) -> tuple[int, ...]:
    """The blocks to show, each once, in their order; where none is asked for a few, or the last.

    Raises:
        InputError: A file cannot tell of one.
    """
    known = [block for block in subjects[0].asked.blocks if block in subjects[-1].asked.blocks]
    if not known:
        raise InputError(
            f"{subjects[0].model.path} and {subjects[-1].model.path} tell of no block in common"
        )
    if asked == ALL:
        return tuple(known)
    if asked is None and last:
        return (known[-1],)
    if asked is None:
        places = np.linspace(0, len(known) - 1, min(FEW, len(known))).round().astype(int)
        return tuple(known[place] for place in places)
    if not asked or isinstance(asked, str):
        raise InputError("no block is asked for; --blocks 0,5,11 or --blocks all")
    for block in asked:
        for one in subjects:
            if block not in one.asked.blocks:
                told = _span(one.asked.blocks)
                raise InputError(f"--blocks: no block {block}; {one.model.path} tells of {told}")
    return tuple(sorted(set(asked)))


def _span(blocks: Sequence[int]) -> str:
    if len(blocks) > 1 and [*blocks] == [*range(blocks[0], blocks[-1] + 1)]:
        return f"blocks {blocks[0]} to {blocks[-1]}"
    return f"block{'s' if len(blocks) > 1 else ''} {', '.join(map(str, blocks))}"
