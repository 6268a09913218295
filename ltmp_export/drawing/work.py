"""All pictures of some images, made one after the other, and what is to be told of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from ltmp_export.drawing import courses, heat, pages, seen, sheets
from ltmp_export.drawing.courses import Course
from ltmp_export.drawing.mixed import Mixtures
from ltmp_export.drawing.names import SUFFIX, Names
from ltmp_export.drawing.owned import Owners
from ltmp_export.drawing.report import Model, Shown
from ltmp_export.progress import Progress

if TYPE_CHECKING:
    from ltmp_export.drawing.sheets import Row
    from ltmp_export.images.inputs import Images
    from ltmp_export.model_file.model import ExportedModel

GRID = "grid"
A = TypeVar("A", Owners, Mixtures)


@dataclass(frozen=True)
class Subject(Generic[A]):
    """A file that is asked, and its images.

    Attributes:
        exported: The file.
        asked: It, opened.
        images: Prepared for it.
        model: What is told of it.
    """

    exported: ExportedModel
    asked: A
    images: Images
    model: Model


@dataclass
class Done:
    """What was drawn so far.

    Attributes:
        shown: Of each image.
        grids: Names of the pictures of all.
    """

    shown: list[Shown] = field(default_factory=list)
    grids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Strips:
    """Blocks side by side, of one file or of two.

    Attributes:
        subjects: The files; their images have the same names.
        blocks: Which.
        side: Pixels of the longer side of each block's picture.
        grid: Whether all images are drawn on one picture, too.
        apart: Whether each block has a file of its own.
    """

    subjects: Sequence[Subject[Owners]]
    blocks: tuple[int, ...]
    side: int
    grid: bool
    apart: bool

    @property
    def tiles(self) -> int:
        """Pictures of one image."""
        return len(self.subjects) * (len(self.blocks) + 1)

    def files(self, done: Done, progress: Progress) -> Iterator[tuple[str, bytes]]:
        """Names and contents, one after the other."""
        rows: list[Row] = []
        names, told = Names(), [one.model.description for one in self.subjects]
        names.of(GRID)
        images = self.subjects[0].images
        for number in range(len(images)):
            progress(f"drawing image {number + 1} of {len(images)}")
            found = [self._course(one, number) for one in self.subjects]
            files = []
            for name, content in self._of_image(names, found, told):
                files.append(name)
                yield name, content
            done.shown.append(self._shown(found, files))
            if self.grid:
                rows += pages.grid_rows(found, told, self.blocks, self.side)
        several = len(self.subjects)
        most = max(1, pages.rows_of_a_page(self.side) // several) * several
        for page, start in enumerate(range(0, len(rows), most)):
            name = f"{GRID}{f'-{page + 1}' if page else ''}{SUFFIX}"
            done.grids.append(name)
            title = f"{' and '.join(told)}: {images.described}"
            saw = self.subjects[0].model.prepared
            yield name, sheets.png(pages.grid(title, rows[start : start + most], saw))

    def _course(self, subject: Subject[Owners], number: int) -> Course:
        images = subject.images
        name, pixels = images.names[number], images.pixels[number]
        return courses.follow(subject.exported, subject.asked, name, pixels)

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

    def _shown(self, found: Sequence[Course], files: Sequence[str]) -> Shown:
        alt = tuple(course.alternative(self.blocks) for course in found)
        plain = tuple(course.to_json(self.blocks) for course in found)
        return Shown(found[0].image, tuple(files), alt, plain)


@dataclass(frozen=True)
class Heats:
    """What of each patch is in each token.

    Attributes:
        subject: The file.
        blocks: Which, see `mixed.Mixture`.
        side: Pixels of the longer side of each token's picture.
    """

    subject: Subject[Mixtures]
    blocks: tuple[int, ...]
    side: int

    @property
    def tiles(self) -> int:
        """Pictures of one image at the most."""
        return self.subject.exported.geometry.tokens + 1

    def files(self, done: Done, progress: Progress) -> Iterator[tuple[str, bytes]]:
        """Names and contents, one after the other."""
        subject, names = self.subject, Names()
        images, model = subject.images, subject.model
        for number, image in enumerate(images.names):
            progress(f"drawing image {number + 1} of {len(images)}")
            pixels, name = images.pixels[number], names.of(image)
            saw = seen.pixels(pixels, subject.exported.preprocessing)
            files, alt, plain = [], [], []
            for one in subject.asked.of(pixels):
                if one.block not in self.blocks:
                    continue
                files.append(f"{name}_block_{one.block:02d}_heat{SUFFIX}")
                alt.append(heat.alternative(image, model.path, one))
                plain.append(one.to_json())
                page = heat.sheet(image, model.description, saw, one, self.side, model.prepared)
                yield files[-1], sheets.png(page)
            told = {"model": str(model.path), "alt": " ".join(alt), "mixtures": plain}
            done.shown.append(Shown(image, tuple(files), tuple(alt), (told,)))
