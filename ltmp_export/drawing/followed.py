"""Images through a file: who owns which patch, or what of each patch is in which token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltmp_export.drawing import courses, mixed, seen
from ltmp_export.drawing.courses import Course
from ltmp_export.drawing.heat import Mixed
from ltmp_export.drawing.mixed import Mixtures
from ltmp_export.drawing.owned import Owners
from ltmp_export.progress import Progress

if TYPE_CHECKING:
    from ltmp_export.images.inputs import Images
    from ltmp_export.model_file.model import ExportedModel

Followed = tuple[Course, ...] | tuple[Mixed, ...]


def followed(
    exported: ExportedModel, images: Images, threads: int | None, progress: Progress
) -> tuple[Followed, tuple[str, ...]]:
    """What became of the patches of some images, and what to know of it.

    Args:
        exported: The file.
        images: At least one.
        threads: Threads of an operator; all processors for None.
        progress: Called with a few words as each image begins.

    Raises:
        CheckFailedError: The file's decisions are none.
        ExportError: The runtime does not load the file, or fails on an image.
        InputError: The network has no patches to follow, or inputs cannot be shown.
    """
    if mixed.mixes(exported):
        mixtures = Mixtures(exported, threads=threads)
        blends = []
        for number, name in enumerate(images.names):
            progress(f"following image {number + 1} of {len(images)}")
            pixels = images.pixels[number]
            saw = seen.pixels(pixels, exported.preprocessing)
            blends.append(Mixed(name, exported.path, saw, mixtures.of(pixels)))
        return tuple(blends), mixtures.remarks
    owners, found = Owners(exported, threads=threads), []
    for number, name in enumerate(images.names):
        progress(f"following image {number + 1} of {len(images)}")
        found.append(courses.follow(exported, owners, name, images.pixels[number]))
    return tuple(found), owners.remarks
