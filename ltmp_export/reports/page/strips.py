"""One image's pictures, one for each place of a slider, before anything is encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image

from ltmp_export.drawing import courses, seen, words
from ltmp_export.drawing.courses import Course


@dataclass(frozen=True)
class Frame:
    """What is seen at a place.

    Attributes:
        name: Of the place, the same for all images.
        told: The same with the most important figure.
        draw: Gives the picture with so many pixels on the longer side.
        alt: The same for who does not see it.
        lines: What else stands under it.
        listed: What a reader can unfold, line by line.
        photograph: Whether it has many colours.
    """

    name: str
    told: str
    draw: Callable[[int], Image.Image]
    alt: str
    lines: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    photograph: bool = False


@dataclass(frozen=True)
class Strip:
    """An image.

    Attributes:
        image: Its name.
        frames: What the model saw, then at least one more.
    """

    image: str
    frames: tuple[Frame, ...]


def of_course(course: Course) -> Strip:
    """Who owns which patch, behind each block."""
    return Strip(course.image, (_saw(course), *_blocks(course)))


def _saw(course: Course) -> Frame:
    def draw(side: int) -> Image.Image:
        return Image.fromarray(seen.enlarged(course.seen, side))

    alt = f"{course.image}: {courses.SAW}"
    return Frame(courses.SAW, courses.SAW, draw, alt, photograph=True)


def _blocks(course: Course) -> Iterator[Frame]:
    for owned, hues in zip(course.blocks, course.hues, strict=True):

        def draw(side: int, block: int = owned.block) -> Image.Image:
            return course.picture(block, side)

        name, (told, _) = f"block {owned.block}", words.caption(owned)
        alt = words.alternative(course.image, course.model.name, [owned])
        listed = [f"merged, {line}" for line in words.merges(owned, hues)]
        if owned.pruned_here.any():
            listed.append(f"pruned: {words.where(owned.pruned_here.nonzero()[0], owned.grid)}")
        lines = (words.here(owned), words.so_far(owned))
        yield Frame(name, told, draw, alt, lines, tuple(listed))
