"""ONNX file and images → who owns which patch → pictures of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltmp_export.drawing import courses, pages, seen, sheets
from ltmp_export.drawing.names import SUFFIX, Names
from ltmp_export.drawing.owned import Owners
from ltmp_export.drawing.report import Model, Shown, ShowReport
from ltmp_export.errors import InputError
from ltmp_export.files import folders, memory
from ltmp_export.images import inputs
from ltmp_export.model_file.model import read_exported
from ltmp_export.progress import Progress, silent

if TYPE_CHECKING:
    from ltmp_export.drawing.courses import Course
    from ltmp_export.drawing.sheets import Row
    from ltmp_export.images.inputs import Images
    from ltmp_export.model_file.model import ExportedModel

SAMPLES, SIDE, FEW = 12, 320, 6
SMALLEST, LARGEST = 96, 2048  # pixels of a picture's longer side
GRID, ALL = "grid", "all"


@dataclass(frozen=True)
class _Subject:
    """A file that is asked, and its images."""

    exported: ExportedModel
    owners: Owners
    images: Images
    model: Model


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
    size: int = SIDE,
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
        size: Pixels of the longer side of each block's picture, 96 to 2048.
        threads: Threads of an operator; all processors by default.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file cannot be used, or a patch may be part of several tokens.
        CheckFailedError: A file's decisions are none, or not what its token_map says.
        ExportError: onnxruntime does not run a model.
    """
    if not SMALLEST <= size <= LARGEST:
        raise InputError(f"pictures of {size} pixels; expected {SMALLEST} to {LARGEST}")
    folder = Path(output)
    folders.require_folder(folder)
    paths = [Path(model), *([] if side_by_side is None else [Path(side_by_side)])]
    source = None if images is None else Path(images)
    asked = SAMPLES if samples is None else samples
    progress("opening the model")
    subjects = [_subject(path, source, asked, threads) for path in paths]
    _require_alike(subjects)
    chosen = _blocks(subjects, blocks)
    _require_room(len(subjects[0].images), len(subjects) * len(chosen), size, grid)
    drawn: list[Shown] = []
    grids: list[str] = []
    work = _Work(subjects, chosen, size, grid, apart)
    folders.write(folder, work.files(drawn, grids, progress))
    first = subjects[0]
    notes = [note for one in subjects for note in one.exported.notes]
    warnings = [w for one in subjects for w in (*one.owners.remarks, *one.images.remarks)]
    return ShowReport(
        folder, tuple(one.model for one in subjects), first.images.described, chosen, tuple(drawn),
        tuple(grids), tuple(dict.fromkeys(notes)), tuple(dict.fromkeys(warnings)),
    )  # fmt: skip


@dataclass(frozen=True)
class _Work:
    """What is to be drawn."""

    subjects: Sequence[_Subject]
    blocks: tuple[int, ...]
    side: int
    grid: bool
    apart: bool

    def files(
        self, drawn: list[Shown], grids: list[str], progress: Progress
    ) -> Iterator[tuple[str, bytes]]:
        """Names and contents, one after the other; what they are of is put down in the lists."""
        rows: list[Row] = []
        names, told = Names(), [one.model.description for one in self.subjects]
        names.of(GRID)
        count = len(self.subjects[0].images)
        for number in range(count):
            progress(f"drawing image {number + 1} of {count}")
            found = [self._course(one, number) for one in self.subjects]
            files = []
            for name, content in self._of_image(names, found, told):
                files.append(name)
                yield name, content
            drawn.append(_shown(found, files, self.blocks))
            if self.grid:
                rows += pages.grid_rows(found, told, self.blocks, self.side)
        most = pages.rows_of_a_page(self.side) // len(self.subjects) * len(self.subjects)
        for page, start in enumerate(range(0, len(rows), max(1, most))):
            name = f"{GRID}{f'-{page + 1}' if page else ''}{SUFFIX}"
            grids.append(name)
            images, saw = self.subjects[0].images.described, self.subjects[0].model.prepared
            title = f"{' and '.join(told)}: {images}"
            yield name, sheets.png(pages.grid(title, rows[start : start + max(1, most)], saw))

    def _course(self, subject: _Subject, number: int) -> Course:
        images = subject.images
        name, pixels = images.names[number], images.pixels[number]
        return courses.follow(subject.exported, subject.owners, name, pixels)

    def _of_image(
        self, names: Names, found: Sequence[Course], told: Sequence[str]
    ) -> Iterator[tuple[str, bytes]]:
        """The pictures of one image."""
        name, saw = names.of(found[0].image), self.subjects[0].model.prepared
        if not self.apart:
            strip = pages.strip(found, told, self.blocks, self.side, saw)
            yield f"{name}{SUFFIX}", sheets.png(strip)
            return
        for number, course in enumerate(found):
            which = f"_model_{number + 1}" if len(found) > 1 else ""
            for block in self.blocks:
                picture = course.picture(block, self.side)
                yield f"{name}{which}_block_{block:02d}{SUFFIX}", sheets.png(picture)


def _shown(found: Sequence[Course], files: Sequence[str], blocks: Sequence[int]) -> Shown:
    alt = tuple(course.alternative(blocks) for course in found)
    plain = tuple(course.to_json(blocks) for course in found)
    return Shown(found[0].image, tuple(files), alt, plain)


def _subject(path: Path, source: Path | None, samples: int, threads: int | None) -> _Subject:
    """A file, opened, with its images.

    Raises:
        InputError: It cannot be shown, or the images not be read.
    """
    exported = read_exported(path)
    owners = Owners(exported, threads=threads)
    geometry, preprocessing = exported.geometry, exported.preprocessing
    images = inputs.load_images(source, geometry, preprocessing, samples)
    pictures = source is not None and os.path.isdir(source)
    prepared = seen.words(geometry.image_size, preprocessing, pictures=pictures)
    kind = "" if exported.precision.kind == "fp32" else f", {exported.precision.kind}"
    told = f"{path.name} ({exported.plan.family}, {geometry.name}{kind})"
    return _Subject(exported, owners, images, Model(path, told, owners.grid, prepared))


def _require_alike(subjects: Sequence[_Subject]) -> None:
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


def _blocks(subjects: Sequence[_Subject], asked: Sequence[int] | str | None) -> tuple[int, ...]:
    """The blocks to show, each once, in their order.

    Raises:
        InputError: A file cannot tell of one.
    """
    known = [block for block in subjects[0].owners.blocks if block in subjects[-1].owners.blocks]
    if not known:
        raise InputError(
            f"{subjects[0].model.path} and {subjects[-1].model.path} tell of no block in common"
        )
    if asked == ALL:
        return tuple(known)
    if asked is None:
        places = np.linspace(0, len(known) - 1, min(FEW, len(known))).round().astype(int)
        return tuple(known[place] for place in places)
    if not asked or isinstance(asked, str):
        raise InputError("no block is asked for; --blocks 0,5,11 or --blocks all")
    for block in asked:
        for one in subjects:
            if block not in one.owners.blocks:
                told = _span(one.owners.blocks)
                raise InputError(f"--blocks: no block {block}; {one.model.path} tells of {told}")
    return tuple(sorted(set(asked)))


def _span(blocks: Sequence[int]) -> str:
    return f"block {blocks[0]}" if len(blocks) == 1 else f"blocks {blocks[0]} to {blocks[-1]}"


def _require_room(images: int, tiles: int, side: int, grid: bool) -> None:
    """Check that the pictures fit into memory.

    Raises:
        InputError: They do not.
    """
    at_once = images if grid else 1
    memory.require_memory(at_once * (tiles + 2) * side * side * 3 * 2, "the pictures")
