"""In which numbers an exported file computes, layer by layer; see `calibration.quantise` for int8.

Whatever the precision, tokens between blocks, softmax, sizes, scores and thresholds are float32.
With protected decisions, what the scores are made of is more exact than the rest, too: the
similarity metric is a float32 projection of its own, and in int8 what is given to the linear layers
by which the first block changes the tokens has 16 bits, because every later decision rests on them;
so has what is given to the head, which costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ltmp_export.errors import InputError

FP32, FP16, INT8 = "fp32", "fp16", "int8"
KINDS = (FP32, FP16, INT8)
STATIC, DYNAMIC = "static", "dynamic"
PRODUCTS, QDQ = "products", "qdq"
SMALLEST_RANGE = 1e-6  # of an input that is always 0
SMALLEST, LARGEST = 1e-30, 1e30  # of scales: their steps and products are float32 numbers
LEVELS = 255  # the largest integer of an activation
MIDDLE = 128  # the integer of 0 where a range is symmetric
REST_LEVELS = 255  # steps of the second term in one of the first
HALF_LARGEST = 65504.0  # float16 number
_SHOWN = 6  # of what is kept in float32

# Suffixes of the names of what int8 layers quantise, see `precision.record.names`.
INTEGERS, REST, SCALE, ZERO = ".int8", "_rest", ".scale", ".zero"
TERMS = ("", REST)

SIMILARITY = "similarity"  # the metric's own projection, among what may be protected


class Activation(NamedTuple):
    """What an int8 layer is given, x ≈ scale * (q - zero_point) with q of 0 to 255.

    Attributes:
        scale: Of the first term; None where it is measured as the file runs.
        zero_point: Of the first term, 0 to 255.
        terms: 1; or 2 where the rest of x is given, too, at 1/255 of the scale, so that
            8 bits reach over all that the first term leaves.
    """

    scale: float | None
    zero_point: int = MIDDLE
    terms: int = 1

    def steps(self) -> tuple[tuple[float, int], ...]:
        """Scale and zero point of each term of a scale that is known."""
        if self.scale is None:
            raise ValueError("this scale is measured as the file runs")
        return ((self.scale, self.zero_point), (self.scale / REST_LEVELS, MIDDLE))[: self.terms]


def covering(low: float, high: float, symmetric: bool = False) -> Activation:
    """The scale and zero point with which 0 to 255 reach from `low` <= 0 to `high` >= 0.

    A symmetric range reaches as far to either side, and its zero point is 128.
    """
    if symmetric:
        reach = max(-low, high, SMALLEST_RANGE)
        return Activation(float(np.float32(reach / (LEVELS - MIDDLE))), MIDDLE)
    scale = float(np.float32(max(high - low, SMALLEST_RANGE) / LEVELS))
    return Activation(scale, round(-low / scale))


@dataclass(frozen=True)
class Precision:
    """In which numbers a file computes.

    Attributes:
        kind: "fp32", "fp16" or "int8".
        protected: Whether what the scores are made of is more exact than the rest.
        io: Of `images` and `logits`: "fp32", or with kind "fp16" also "fp16".
        scales: Of int8 activations: "static", from calibration, or "dynamic", from each batch.
        layers: The linear layers that compute in int8, by the path of their weights.
        calibration: The images that static scales, or float16's ranges, were measured on.
        kept: What a float16 file computes in float32 because float16 has no room for it, with the
            largest number there: linear layers by the path of their weights, of a block's attention
            `attn.scores` (queries times keys) and `attn.mixed` (attention times values), and the
            activation `mlp.act`.
        auto: Whether in int8 only what needs it on these images is protected; it is asked for
            with everything protected.
        effects: What was measured then, by the path of a layer or `SIMILARITY`: how many more
            decisions change without its protection, as a share of those that change with it.
        int8_form: "products" of integers (`MatMulInteger`), or "qdq": float32 products of what
            `DequantizeLinear` gives, which other runtimes turn into integer ones. Its scales are
            static and symmetric, and the integers of activations are int8 with zero point 0.

    Raises:
        InputError: One is not among these, or they do not go together.
    """

    kind: str = FP32
    protected: bool = True
    io: str = FP32
    scales: str = STATIC
    layers: Mapping[str, Activation] = field(default_factory=dict)
    calibration: str = ""
    kept: Mapping[str, float] = field(default_factory=dict)
    auto: bool = False
    effects: Mapping[str, float] = field(default_factory=dict)
    int8_form: str = PRODUCTS

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"precision {self.kind!r}: expected {', '.join(KINDS)}")
        if self.io not in (FP32, FP16) or (self.io == FP16 and self.kind != FP16):
            raise InputError(f"--io {self.io} with --precision {self.kind}: fp16 has --io fp16")
        if self.scales not in (STATIC, DYNAMIC) or (self.scales == DYNAMIC and self.kind != INT8):
            raise InputError(
                f"activation scales {self.scales!r} with --precision {self.kind}: int8 has static "
                "and dynamic ones"
            )
        if self.int8_form not in (PRODUCTS, QDQ) or (self.qdq and self.kind != INT8):
            raise InputError(
                f"--int8-form {self.int8_form} with --precision {self.kind}: int8 has products and "
                "qdq"
            )
        if self.qdq and self.scales == DYNAMIC:
            raise InputError(
                "--int8-form qdq with --activation-scales dynamic: expected static ones, which the "
                "runtimes that take this form know before they compile"
            )
        if self.auto and self.kind != INT8:
            raise InputError(
                f"--protect auto with --precision {self.kind}: what must be protected is measured "
                "for int8; choose all or none"
            )

    @property
    def batch_invariant(self) -> bool:
        """Whether an image's result does not depend on the others of its batch.

        In float32 and float16 it does not beyond rounding, with static scales not at all; between
        `QuantizeLinear` and `DequantizeLinear` rounding may take an integer to the next.
        """
        return self.scales == STATIC

    @property
    def qdq(self) -> bool:
        """Whether int8 layers are float32 products of what `DequantizeLinear` gives."""
        return self.int8_form == QDQ

    def weight_scales(self, path: str) -> dict[str, float]:
        """With what the stored scales of a layer's int8 weights are multiplied.

        That is the scale of the activations where it is known and meets them behind the product;
        by the suffix of the name, one for each term, else one for all.
        """
        given = self.layers[path]
        if given.scale is None or self.qdq:
            return {"": 1.0}
        return {suffix: step for suffix, (step, _) in zip(TERMS, given.steps(), strict=False)}

    @property
    def protects(self) -> bool:
        """Whether the metric of similarity has a projection of its own."""
        return self.protected and self.kind != FP32

    @property
    def unprotected(self) -> tuple[str, ...]:
        """What `auto` was measured for, and left without protection."""
        rounded = {path for path, given in self.layers.items() if given.terms == 1}
        without = rounded | ({SIMILARITY} if not self.protected else set())
        return tuple(name for name in self.effects if name in without)

    def describe(self) -> str:
        """One clause for a person."""
        decisions = "protected" if self.protected else "not protected"
        if self.auto:
            without = ", ".join(self.unprotected) or "nothing"
            decisions = f"protected where measured to matter, {without} left out"
        if self.kind == FP32:
            return FP32
        if self.kind == FP16:
            return f"fp16, images and outputs {self.io}, decisions {decisions}{self._kept()}"
        fine = sum(given.terms > 1 for given in self.layers.values())
        kind = "int8 between QuantizeLinear and DequantizeLinear" if self.qdq else INT8
        line = (
            f"{kind}, {len(self.layers)} linear layers, {fine} of them with 16-bit inputs, "
            f"{self.scales} scales, decisions {decisions}"
        )
        return line if self.batch_invariant else f"{line}, results depend on the batch"

    def _kept(self) -> str:
        """What is kept in float32, as the end of a clause."""
        shown = [f"{place} ({value:.1e})" for place, value in self.kept.items()]
        more = f" and {len(shown) - _SHOWN} more" if shown[_SHOWN:] else ""
        return f"; kept in float32: {', '.join(shown[:_SHOWN])}{more}" if shown else ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        document: dict[str, Any] = {"kind": self.kind, "io": self.io}
        if self.kind != FP32:
            document["protected_decisions"] = self.protected
        if self.kind == FP16:
            document |= {"calibration": self.calibration, "kept_in_float32": dict(self.kept)}
        if self.kind == INT8:
            document |= {
                "activation_scales": self.scales,
                "batch_invariant": self.batch_invariant,
                "calibration": self.calibration,
                "weights": "int8, symmetric, a scale per output",
                "layers": {path: given._asdict() for path, given in self.layers.items()},
            }
        if self.qdq:
            document["int8_form"] = QDQ
        if self.auto:
            document["changed_without"] = dict(self.effects)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Precision:
        """The inverse.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: It is none.
        """
        layers = {
            str(path): _activation(given) for path, given in document.get("layers", {}).items()
        }
        calibration = document.get("calibration", "")
        protected = document.get("protected_decisions", True)
        if not isinstance(calibration, str) or not isinstance(protected, bool):
            raise ValueError(f"calibration {calibration!r}, protected_decisions {protected!r}")
        dynamic = document.get("activation_scales", STATIC) == DYNAMIC
        if any((given.scale is None) != dynamic for given in layers.values()):
            raise ValueError("scales that are neither all static nor all dynamic")
        if layers and document["kind"] != INT8:
            raise ValueError(f"{len(layers)} int8 layers in {document['kind']}")
        form = document.get("int8_form", PRODUCTS)
        if form == QDQ and any(given.zero_point != MIDDLE for given in layers.values()):
            raise ValueError("zero points of int8 activations that are not 0")
        kept = dict(document.get("kept_in_float32", {}))
        if kept and document["kind"] != FP16:
            raise ValueError(f"{len(kept)} places kept in float32 in {document['kind']}")
        if not all(type(value) in (int, float) and 0 < value < math.inf for value in kept.values()):
            raise ValueError(f"kept in float32 for reaching {list(kept.values())[:5]}")
        effects = dict(document.get("changed_without", {}))
        if not all(type(e) in (int, float) and math.isfinite(e) for e in effects.values()):
            raise ValueError(f"changed without protection: {list(effects.values())[:5]}")
        if not effects.keys() <= {SIMILARITY, *layers}:
            raise ValueError(f"changed without protection: {list(effects)[:5]}")
        try:
            return cls(
                kind=document["kind"],
                protected=protected,
                io=document["io"],
                scales=document.get("activation_scales", STATIC),
                layers=layers,
                calibration=calibration,
                kept={str(place): float(value) for place, value in kept.items()},
                auto="changed_without" in document,
                effects=effects,
                int8_form=form,
            )
        except InputError as err:
            raise ValueError(str(err)) from err


def _activation(document: Mapping[str, Any]) -> Activation:
    scale, point, terms = document["scale"], document["zero_point"], document["terms"]
    known = scale is None or (type(scale) in (int, float) and SMALLEST <= scale <= LARGEST)
    whole = type(terms) is type(point) is int
    if not whole or terms not in (1, 2) or not 0 <= point <= 255 or not known:
        raise ValueError(f"{terms} terms with scale {scale} and zero point {point}")
    return Activation(None if scale is None else float(scale), point, terms)
