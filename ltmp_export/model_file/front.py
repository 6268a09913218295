"""A graph from pictures to model inputs: resize, crop and normalisation as timm has them.

Pillow's resampling (its `Resample.c`), as two matrix products: the weights of each row and column
of the result are computed from the picture's own size, those of the crop alone. Between and behind
the products values are whole levels, as Pillow's are. The same operators at every opset; below 18
there is no antialiased `Resize`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.images.preprocessing import CENTER, Preprocessing
from ltmp_export.images.resampling import height_first

PICTURES, IMAGES, SCOPE = "pictures", "images", "pictures"
BORDER, SQUASH = "border", "squash"
NEAREST = "nearest"  # of one side and then the other it is the same, whichever comes first
LEVELS = 255


class _Axis(NamedTuple):
    """One side of the pictures.

    Attributes:
        weights: [crop, side] float32, of each place of the crop the share of each pixel.
        inside: [crop] bool, whether it lies in the resized picture.
    """

    weights: Name
    inside: Name


def model(
    input_size: tuple[int, int, int],
    rule: Preprocessing,
    opset: int,
    *,
    batch_size: int | None,
    half: bool,
) -> onnx.ModelProto:
    """From `pictures` uint8 [batch, height, width, channels] to `images` [batch, channels, H, W].

    Args:
        input_size: Channels, H and W of the model's input.
        rule: How pictures are prepared.
        opset: Version of the standard domain.
        batch_size: The only batch size, or None for any.
        half: Whether the result is float16.
    """
    channels, *crop = input_size
    b = GraphBuilder(opset, {})
    batch = "batch" if batch_size is None else batch_size
    given = b.input(PICTURES, TensorProto.UINT8, [batch, "height", "width", channels])
    with b.scope(SCOPE):
        sides = [b.op("Gather", b.op("Shape", given), b.index(axis)) for axis in (1, 2)]
        wholes = _whole(b, sides, crop, rule)
        rows, columns = (
            _axis(b, side, whole, length, rule.interpolation)
            for side, whole, length in zip(sides, wholes, crop, strict=True)
        )
        if height_first() and rule.interpolation != NEAREST:
            x = _either_first(b, given, sides, wholes, rows.weights, columns.weights)
        else:
            x = _resized(b, given, rows.weights, columns.weights)
        seen = b.op("And", b.reshape(rows.inside, -1, 1), b.reshape(columns.inside, 1, -1))
        edge = [round(LEVELS * m) if rule.crop_mode == BORDER else 0 for m in rule.mean]
        x = b.op("Where", seen, x, _channels(b, "fill", edge))
        x = b.op("Div", x, b.number(float(LEVELS)))
        x = b.op("Sub", x, _channels(b, "mean", rule.mean))
        x = b.op("Div", x, _channels(b, "std", rule.std))
        if half:
            x = b.op("Cast", x, to=TensorProto.FLOAT16)
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    b.output(x, IMAGES, kind, [batch, *input_size])
    return b.build("pictures", {})


def _resized(b: GraphBuilder, given: Name, rows: Name, columns: Name, height: bool = False) -> Name:
    """Crops [batch, channels, H, W] of pictures, resized to their width first, or their height."""
    x = b.op("Transpose", b.op("Cast", given, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    columns = b.op("Transpose", columns, perm=[1, 0])
    if height:
        return _levels(b, b.op("MatMul", _levels(b, b.op("MatMul", rows, x)), columns))
    return _levels(b, b.op("MatMul", rows, _levels(b, b.op("MatMul", x, columns))))


def _either_first(
    b: GraphBuilder, given: Name, sides: list[Name], wholes: list[Name], rows: Name, columns: Name
) -> Name:
    """The same, as Pillow has it since its version 13.

    It begins with the height where that loses more than twice as many pixels as the width. Both
    ways are in the graph, and one of them is given no picture, which costs nothing.
    """
    lost, narrower = (b.op("Sub", *pair) for pair in zip(sides, wholes, strict=True))
    most = b.op("Max", b.op("Mul", narrower, b.index(2)), b.index(0))
    batch = b.op("Slice", b.op("Shape", given), b.ints(0), b.ints(1))
    none = b.ints(0)
    tall = b.op("Where", b.op("Less", most, lost), batch, none)
    crops = []
    for count, height in ((b.op("Sub", batch, tall), False), (tall, True)):
        few = b.op("Slice", given, none, count, none)
        crops.append(_resized(b, few, rows, columns, height))
    return b.op("Concat", *crops, axis=0)


def _channels(b: GraphBuilder, name: str, values: tuple[float, ...] | list[int]) -> Name:
    """A constant [channels, 1, 1]."""
    return b.stored(f"{SCOPE}/{name}", np.array(values, np.float32).reshape(-1, 1, 1))


def _levels(b: GraphBuilder, x: Name) -> Name:
    """The nearest of the levels 0 to 255; of two the upper one."""
    nearest = b.op("Floor", b.op("Add", x, b.number(0.5)))
    return b.op("Clip", nearest, b.number(0.0), b.number(float(LEVELS)))


def _whole(b: GraphBuilder, sides: list[Name], crop: list[int], rule: Preprocessing) -> list[Name]:
    """int64 scalars: height and width of the whole picture before the crop."""
    height, width = sides
    down, across = (math.floor(side / rule.crop_pct) for side in crop)
    if rule.crop_mode == SQUASH:
        return [b.index(down), b.index(across)]
    if rule.crop_mode == CENTER and down == across:
        most, least = b.op("Max", height, width), b.op("Min", height, width)
        longer = b.op("Div", b.op("Mul", b.index(down), most), least)
        upright = b.op("LessOrEqual", width, height)
        return [
            b.op("Where", upright, longer, b.index(down)),
            b.op("Where", upright, b.index(down), longer),
        ]
    ratios = [
        b.op("Div", _double(b, side), _number(b, length))
        for side, length in zip(sides, (down, across), strict=True)
    ]
    ratio = b.op("Max" if rule.crop_mode == BORDER else "Min", *ratios)
    scaled = (b.op("Round", b.op("Div", _double(b, side), ratio)) for side in sides)
    least = _number(b, 1.0)  # where timm's rounds to 0, which it refuses
    return [b.op("Cast", b.op("Max", one, least), to=TensorProto.INT64) for one in scaled]


def _axis(b: GraphBuilder, side: Name, whole: Name, crop: int, interpolation: str) -> _Axis:
    """The weights of the places of a crop, whose side was resized from `side` to `whole`.

    Computed in float64, as Pillow does: an edge of a filter's window decides by it.
    """
    filtered, reach = _FILTERS[interpolation]
    place = b.op("Add", b.counting(crop), _offset(b, whole, crop))
    inside = b.op("And", b.op("LessOrEqual", b.index(0), place), b.op("Less", place, whole))
    scale = b.op("Div", _double(b, side), _double(b, whole))
    middle = b.op("Mul", b.op("Add", _double(b, place), _number(b, 0.5)), scale)
    middle = b.reshape(middle, -1, 1)
    pixel = _double(b, b.op("Range", b.index(0), side, b.index(1)))
    if filtered is None:
        taken = b.op("Equal", _pixel_of(b, place, whole, scale), pixel)
        return _Axis(b.op("Cast", taken, to=TensorProto.FLOAT), inside)
    wider = b.op("Max", scale, _number(b, 1.0))
    support = b.op("Mul", wider, _number(b, reach))
    half = _number(b, 0.5)
    first = b.op("Floor", b.op("Add", b.op("Sub", middle, support), half))
    behind = b.op("Floor", b.op("Add", b.op("Add", middle, support), half))
    near = b.op("And", b.op("LessOrEqual", first, pixel), b.op("Less", pixel, behind))
    apart = b.op("Div", b.op("Add", b.op("Sub", pixel, middle), half), wider)
    shares = b.op("Where", near, filtered(b, apart), _number(b, 0.0))
    total = b.reduce("ReduceSum", shares, [1], keepdims=True)
    nothing = b.op("Equal", total, _number(b, 0.0))  # beyond the picture
    shares = b.op("Div", shares, b.op("Where", nothing, _number(b, 1.0), total))
    return _Axis(b.op("Cast", shares, to=TensorProto.FLOAT), inside)


def _pixel_of(b: GraphBuilder, place: Name, whole: Name, scale: Name) -> Name:
    """[crop, 1] the pixel that each place lies in, by the sum of steps that Pillow adds up."""
    every = b.op("Range", b.index(0), whole, b.index(1))
    half = b.op("Mul", scale, _number(b, 0.5))
    steps = b.op("Where", b.op("Equal", every, b.index(0)), half, scale)
    reached = b.op("Floor", b.op("CumSum", steps, b.index(0)))
    last = b.op("Sub", whole, b.index(1))
    known = b.op("Max", b.op("Min", place, last), b.index(0))
    return b.reshape(b.op("Gather", reached, known), -1, 1)


def _offset(b: GraphBuilder, whole: Name, crop: int) -> Name:
    """Where a crop begins in the whole: half of what is too much, half to even, or below 0."""
    more = b.op("Sub", whole, b.index(crop))
    two = b.index(2)
    half, odd = b.op("Div", more, two), b.op("Mod", more, two)
    cut = b.op("Add", half, b.op("Mul", odd, b.op("Mod", half, two)))
    added = b.op("Neg", b.op("Div", b.op("Neg", more), two))
    return b.op("Where", b.op("Less", more, b.index(0)), added, cut)


def _double(b: GraphBuilder, x: Name) -> Name:
    return b.op("Cast", x, to=TensorProto.DOUBLE)


def _number(b: GraphBuilder, value: float) -> Name:
    """A constant float64 scalar."""
    return b.stored(f"const/f64[{value!r}]", np.array(value, np.float64))


def _box(b: GraphBuilder, x: Name) -> Name:
    low = b.op("Less", _number(b, -0.5), x)
    return _double(b, b.op("And", low, b.op("LessOrEqual", x, _number(b, 0.5))))


def _bilinear(b: GraphBuilder, x: Name) -> Name:
    return b.op("Max", b.op("Sub", _number(b, 1.0), b.op("Abs", x)), _number(b, 0.0))


def _bicubic(b: GraphBuilder, x: Name) -> Name:
    """Keys' cubic convolution with a = -0.5."""
    x = b.op("Abs", x)

    def polynomial(*factors: float) -> Name:
        found = _number(b, factors[0])
        for factor in factors[1:]:
            found = b.op("Add", b.op("Mul", found, x), _number(b, factor))
        return found

    near, far = polynomial(1.5, -2.5, 0.0, 1.0), polynomial(-0.5, 2.5, -4.0, 2.0)
    beyond = b.op("Where", b.op("Less", x, _number(b, 2.0)), far, _number(b, 0.0))
    return b.op("Where", b.op("Less", x, _number(b, 1.0)), near, beyond)


def _sinc(b: GraphBuilder, x: Name) -> Name:
    at_zero = b.op("Equal", x, _number(b, 0.0))
    angle = b.op("Mul", b.op("Where", at_zero, _number(b, 1.0), x), _number(b, math.pi))
    return b.op("Where", at_zero, _number(b, 1.0), b.op("Div", b.op("Sin", angle), angle))


def _within(b: GraphBuilder, x: Name, reach: float, value: Name) -> Name:
    """0 where x is as far from 0 as that, or farther."""
    inside = b.op("Less", b.op("Abs", x), _number(b, reach))
    return b.op("Where", inside, value, _number(b, 0.0))


def _hamming(b: GraphBuilder, x: Name) -> Name:
    shifted = b.op("Add", b.op("Mul", x, _number(b, math.pi)), _number(b, math.pi / 2))
    window = b.op("Mul", b.op("Sin", shifted), _number(b, 0.46))  # a cosine
    return _within(b, x, 1.0, b.op("Mul", _sinc(b, x), b.op("Add", window, _number(b, 0.54))))


def _lanczos(b: GraphBuilder, x: Name) -> Name:
    slow = _sinc(b, b.op("Div", x, _number(b, 3.0)))
    return _within(b, x, 3.0, b.op("Mul", _sinc(b, x), slow))


# By timm's words: the filter, and how far it reaches; None takes the pixel that a place lies in.
_FILTERS: dict[str, tuple[Callable[[GraphBuilder, Name], Name] | None, float]] = {
    NEAREST: (None, 0.0),
    "box": (_box, 0.5),
    "bilinear": (_bilinear, 1.0),
    "hamming": (_hamming, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
