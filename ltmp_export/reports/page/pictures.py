"""Pictures of tokens inside of the page: for each image a slider over blocks."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image

from ltmp_export.drawing import courses, seen, words
from ltmp_export.drawing.courses import Course
from ltmp_export.reports.page.elements import Html, element, joined

SIDES = (320, 288, 256, 224, 192, 160, 128, 96)  # pixels of a picture's longer side, at most
ROOM = 2_300_000  # characters of all pictures together
_QUALITY = 85  # of the JPEG of what the model saw
Encoded = list[list[str]]  # of each image: what the model saw, and each of its blocks


def pictures(found: Sequence[Course], prepared: str) -> Html:
    """Images, each with what the model saw and the tokens behind each block.

    Args:
        found: At least one, all of the same file.
        prepared: What became of the images before the model saw them.
    """
    encoded = _fitting(found)
    told = [courses.SAW, *(f"block {owned.block}" for owned in found[0].blocks)]
    start = 1 + len(found[0].blocks) // 2
    every = element(
        "div",
        element("label", "All pictures, after block: ", for_="all-blocks"),
        element("input", type="range", id="all-blocks", min=0, max=len(told) - 1, step=1,
                value=start, data_told="|".join(told), autocomplete="off"),
        " ",
        element("output", told[start], id="all-told", for_="all-blocks"),
        class_="controls", hidden=True,
    )  # fmt: skip
    figures = (
        _course(number, course, pages, start)
        for number, (course, pages) in enumerate(zip(found, encoded, strict=True))
    )
    return joined(
        element("p", words.LEGEND, class_="told"),
        element("p", f"What the model saw: {prepared}.", class_="prepared"),
        every,
        element("div", *figures, class_="courses"),
    )


def _course(number: int, course: Course, encoded: Sequence[str], start: int) -> Html:
    """One image."""
    slider, alone = f"blocks-{number}", f"{course.image}: {courses.SAW}"
    frames = [_frame(encoded[0], alone, (courses.SAW, ""))]
    for owned, content in zip(course.blocks, encoded[1:], strict=True):
        alt = words.alternative(course.image, course.model.name, [owned])
        frames.append(_frame(content, alt, words.caption(owned)))
    control = element(
        "div",
        element("label", "Block: ", for_=slider),
        element("input", type="range", id=slider, min=0, max=len(frames) - 1, step=1, value=start,
                autocomplete="off"),
        " ",
        element("output", "", for_=slider),
        class_="controls", hidden=True,
    )  # fmt: skip
    listed = element("ol", *frames, class_="frames")
    return element(
        "figure", element("figcaption", course.image), control, listed, class_="course"
    )  # fmt: skip


def _frame(content: str, alt: str, told: tuple[str, str]) -> Html:
    shown = element("img", src=content, alt=alt)
    lines = [element("p", line) for line in told if line]
    return element("li", shown, *lines, data_told=told[0])


def _fitting(found: Sequence[Course]) -> Encoded:
    """The pictures in the largest size in which there is room for all, or the smallest."""
    room = ROOM // len(found)
    for side in SIDES[:-1]:
        if _weight([_encoded(found[0], side)]) > 1.2 * room:
            continue  # hopeless: spares drawing the others
        encoded = [_encoded(course, side) for course in found]
        if _weight(encoded) <= ROOM:
            return encoded
    return [_encoded(course, SIDES[-1]) for course in found]


def _weight(encoded: Encoded) -> int:
    return sum(len(content) for pages in encoded for content in pages)


def _encoded(course: Course, side: int) -> list[str]:
    saw = Image.fromarray(seen.enlarged(course.seen, side))
    blocks = (course.picture(owned.block, side) for owned in course.blocks)
    return [_jpeg(saw), *map(_png, blocks)]


def _png(picture: Image.Image) -> str:
    """With at most 256 colours: regions are flat."""
    few = picture.quantize(256, dither=Image.Dither.NONE)
    return _data(few, "png", optimize=True)


def _jpeg(picture: Image.Image) -> str:
    return _data(picture, "jpeg", quality=_QUALITY)


def _data(picture: Image.Image, kind: str, **options: int) -> str:
    written = io.BytesIO()
    picture.save(written, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(written.getvalue()).decode()}"
