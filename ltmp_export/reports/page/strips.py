"""One image's pictures, one for each place of a slider, before anything is encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ltmp_export.drawing import courses, heat, seen, words
from ltmp_export.drawing.courses import Course
from ltmp_export.drawing.followed import Followed
from ltmp_export.drawing.heat import Mixed
from ltmp_export.drawing.mixed import Mixture

_PARTS = (
    'Under "which patches" are those of each token that a block made: "with" stands between the '
    "tokens it is made of."
)
TOKENS = 16  # heat maps of one place, at most, evenly spread


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


def of(course: Course | Mixed) -> Strip:
    """Who owns which patch behind each block, or what of each patch is in which token."""
    frames = _heats(course) if isinstance(course, Mixed) else _blocks(course)
    return Strip(course.image, (_saw(course), *frames))


def title(found: Followed) -> str:
    """What is seen, as a heading."""
    return "What is in each token" if _mixed(found) else "What was merged and pruned"


def legend(found: Followed) -> str:
    """What is seen, in full."""
    shown = heat.PAGE_LEGEND if _mixed(found) else f"{words.LEGEND} {_PARTS}"
    return f"{shown} Rows and columns of patches count from 1, from the top left."


def _mixed(found: Followed) -> bool:
    return isinstance(found[0], Mixed)


def _saw(course: Course | Mixed) -> Frame:
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


def _heats(mixed: Mixed) -> Iterator[Frame]:
    for mixture in mixed.mixtures:
        count = len(mixture.shares)
        tokens = [*map(int, np.linspace(0, count - 1, min(count, TOKENS)).round())]

        def draw(side: int, mixture: Mixture = mixture, tokens: list[int] = tokens) -> Image.Image:
            return heat.mosaic(mixed.seen, mixture, tokens, side)

        told = f"{mixture.place}: {count} tokens"
        numbers = f"0 to {count - 1}" if len(tokens) == count else ", ".join(map(str, tokens))
        line = f"Tokens {numbers}, row by row." if count > 1 else "One token."
        alt = f"{mixed.image} through {mixed.model.name}, {told}; heat maps of {len(tokens)}."
        listed = tuple(heat.told(mixture, token) for token in tokens)
        yield Frame(mixture.place, told, draw, alt, (line,), listed)
