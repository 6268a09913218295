"""Pictures of tokens inside of the page: for each image a slider over blocks."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image

from ltmp_export.reports.page.elements import Html, element, joined
from ltmp_export.reports.page.strips import Frame, Strip

SIDES = (480, 400, 320, 288, 256, 224, 192, 160, 128, 96)  # pixels of the longer side, at most
FEW = 4  # images that are shown larger than SIDES[2]
ROOM = 2_300_000  # characters of all pictures together, and of what is told of them
_QUALITY = 85  # of the JPEG of what the model saw
Encoded = list[list[str]]  # of each image, each of its frames


def pictures(found: Sequence[Strip], prepared: str, legend: str) -> Html:
    """Images, each with what the model saw and what became of it from block to block.

    Args:
        found: At least one, all of the same file.
        prepared: What became of the images before the model saw them.
        legend: What is seen.
    """
    encoded = _fitting(found)
    names = [frame.name for frame in found[0].frames]
    start = 1 + (len(names) - 1) // 2
    every = element(
        "div",
        element("label", "All pictures: ", for_="all-blocks"),
        element("input", type="range", id="all-blocks", min=0, max=len(names) - 1, step=1,
                value=start, data_told="|".join(names), autocomplete="off"),
        " ",
        element("output", names[start], id="all-told", for_="all-blocks"),
        class_="controls", hidden=True,
    )  # fmt: skip
    figures = (
        _strip(number, strip, drawn, start)
        for number, (strip, drawn) in enumerate(zip(found, encoded, strict=True))
    )
    return joined(
        element("p", legend, class_="told"),
        element("p", f"What the model saw: {prepared}.", class_="prepared"),
        every,
        element("div", *figures, class_="courses"),
    )


def _strip(number: int, strip: Strip, encoded: Sequence[str], start: int) -> Html:
    """One image."""
    slider = f"blocks-{number}"
    frames = [_frame(*both) for both in zip(strip.frames, encoded, strict=True)]
    control = element(
        "div",
        element("label", "Shown: ", for_=slider),
        element("input", type="range", id=slider, min=0, max=len(frames) - 1, step=1, value=start,
                autocomplete="off"),
        " ",
        element("output", "", for_=slider),
        class_="controls", hidden=True,
    )  # fmt: skip
    listed = element("ol", *frames, class_="frames")
    return element("figure", element("figcaption", strip.image), control, listed, class_="course")


def _frame(frame: Frame, content: str) -> Html:
    shown = element("img", src=content, alt=frame.alt)
    place = element("p", frame.told, class_="place")
    lines = [element("p", line) for line in frame.lines]
    return element("li", shown, place, *lines, _listed(frame), data_told=frame.told)


def _listed(frame: Frame) -> Html:
    if not frame.listed:
        return joined()
    items = (element("li", line) for line in frame.listed)
    return element("details", element("summary", "which patches"), element("ul", *items))


def _fitting(found: Sequence[Strip]) -> Encoded:
    """The pictures in the largest size in which there is room for all, or the smallest."""
    room = ROOM - sum(len(f.alt) + sum(map(len, f.listed)) for s in found for f in s.frames)
    for side in SIDES[0 if len(found) <= FEW else 2 : -1]:
        if _weight([_encoded(found[0], side)]) > 1.2 * room / len(found):
            continue  # hopeless: spares drawing the others
        encoded = [_encoded(strip, side) for strip in found]
        if _weight(encoded) <= room:
            return encoded
    return [_encoded(strip, SIDES[-1]) for strip in found]


def _weight(encoded: Encoded) -> int:
    return sum(len(content) for pages in encoded for content in pages)


def _encoded(strip: Strip, side: int) -> list[str]:
    kinds = (_jpeg if frame.photograph else _png for frame in strip.frames)
    return [kind(frame.draw(side)) for kind, frame in zip(kinds, strip.frames, strict=True)]


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
