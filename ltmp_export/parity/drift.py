"""Are the pictures that a file sees today still those that it was calibrated for?

Of each picture five things are looked at, as the file itself computes it:

    tokens    how many are left after each block
    budget    how many a static file's budget had no room for (its output `overflow`)
    margins   of each step with a learned threshold, the median distance of the scores from it
    ranges    of each int8 layer with a static scale, which share of its inputs is clipped
    answers   the largest logit, and its lead over the second

A baseline holds, of pictures like those of the calibration, the least and the largest of each, and
how many of these pictures would have been beyond the others: with few pictures and many layers
that is no small share. New pictures have drifted in one of the five where more of them are beyond
than that, an allowed share and chance explain together, see `chance`: of so many new pictures,
against limits that so few pictures set. A scale fits by degrees: a picture is beyond it where it
clips one and a half times what the baseline's pictures clip at most.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.graph import interface
from ltmp_export.model_file.model import ExportedModel
from ltmp_export.parity import chance, taps
from ltmp_export.plan.linears import rounded
from ltmp_export.steps import decided

SCHEMA_VERSION = 2
SHARE = 0.05  # of the pictures that may be beyond, above what is expected
FEWEST = 16  # pictures of a baseline
FALSE_ALARMS = 0.01  # of runs with pictures that did not change: most that tell drift of any kind
KINDS = TOKENS, BUDGET, MARGINS, RANGES, ANSWERS = (
    "tokens", "budget", "margins", "ranges", "answers",
)  # fmt: skip
_BOTH = (TOKENS, MARGINS, ANSWERS)  # of these less is drift, too
_SLACK, _LITTLE = 1.5, 0.001  # of a clipped share: how much more fits still

Seen = Mapping[str, NDArray[np.float64]]  # by kind what was seen, [columns]; absent: nothing


def wanted(exported: ExportedModel) -> dict[str, int]:
    """Names and element types of the tensors that pictures are looked at by."""
    linears = rounded(exported.geometry)
    found = taps.names(exported.plan, exported.precision, linears)
    return found | interface.count_taps(exported.geometry.depth)


def seen(exported: ExportedModel, tensors: Mapping[str, NDArray[Any]], image: int) -> Seen:
    """One image of a batch.

    Raises:
        InputError: The file's decisions about it are none.
    """
    geometry, plan = exported.geometry, exported.plan
    record = taps.read(
        plan, tensors, image, geometry.tokens, geometry.prefix, exported.precision,
        rounded(geometry), decided.fresh(geometry, plan),
    )  # fmt: skip
    if record.broken:
        raise InputError(f"{exported.path}: {record.broken}; run 'ltmp check' on the file")
    counts = [tensors[name][image] for name in interface.count_taps(geometry.depth)]
    found = {TOKENS: np.array(counts, np.float64)}
    if "overflow" in tensors:
        found[BUDGET] = np.array([tensors["overflow"][image].sum()], np.float64)
    if margins := _margins(exported, record):
        found[MARGINS] = np.array(margins, np.float64)
    static = [path for path, one in exported.precision.layers.items() if one.scale is not None]
    if clipped := [_clipped(record.taken[path]) for path in static if path in record.taken]:
        found[RANGES] = np.array(clipped, np.float64)
    if geometry.classes > 1 and "logits" in tensors:
        second, first = np.sort(tensors["logits"][image].astype(np.float64))[-2:]
        found[ANSWERS] = np.array([first, first - second])
    return found


def _margins(exported: ExportedModel, record: taps.Record) -> list[float]:
    """Of each step with a threshold the median distance of the scores from it; 0 of none."""
    found = []
    for number, block in enumerate(record.blocks):
        for step, taken in zip(exported.plan.deciding(number), block.steps, strict=True):
            if step.learned is not None:
                apart = np.abs(taken.score.astype(np.float64) - step.learned)
                finite = apart[np.isfinite(apart)]
                found.append(float(np.median(finite)) if len(finite) else 0.0)
    return found


def _clipped(taken: Any) -> float:
    """Share of a layer's inputs at the ends of its range."""
    near = taken.step / 2
    ends = (taken.values <= taken.low + near) | (taken.values >= taken.high - near)
    return float(ends.mean())


@dataclass(frozen=True)
class Limits:
    """What was seen of a baseline's pictures, of one kind.

    Attributes:
        least: [columns] the least, or empty where less is no drift.
        largest: [columns] the largest, or empty.
        expected: Share of pictures of that kind that are beyond those of the others.
        held: Pictures that set the limits: the others fit what these allow.
    """

    least: tuple[float, ...]
    largest: tuple[float, ...]
    expected: float
    held: int

    def beyond(self, pictures: NDArray[np.float64]) -> NDArray[np.bool_]:
        """[n] of pictures [n, columns]."""
        found = np.zeros(len(pictures), bool)
        if self.least:
            found |= (pictures < np.array(self.least)).any(1)
        if self.largest:
            found |= (pictures > np.array(self.largest)).any(1)
        return found


@dataclass(frozen=True)
class Baseline:
    """What a file saw of the pictures it is for.

    Attributes:
        model: SHA-256 of the file.
        name: The file, for a person.
        images: Where the pictures come from.
        count: How many.
        kinds: By kind what was seen.
    """

    model: str
    name: str
    images: str
    count: int
    kinds: Mapping[str, Limits]

    def content(self) -> bytes:
        """As a file."""
        document = asdict(self) | {"schema_version": SCHEMA_VERSION, "kind": "baseline"}
        return json.dumps(document, indent=2, allow_nan=False).encode() + b"\n"


@dataclass(frozen=True)
class Drifted:
    """New pictures against a baseline, in one of the five.

    Attributes:
        kind: Which.
        beyond: Share of the pictures that are.
        expected: Share that is where nothing changed.
        allowed: Share that may be.
        first: The first picture that is, or an empty string.
    """

    kind: str
    beyond: float
    expected: float
    allowed: float
    first: str

    @property
    def drifted(self) -> bool:
        """Whether more are beyond than may be."""
        return self.beyond > self.allowed


def baseline(model: Path, pictures: Sequence[Seen], images: str) -> Baseline:
    """What to compare later pictures with.

    Raises:
        InputError: They are too few.
    """
    if len(pictures) < FEWEST:
        raise InputError(f"a baseline of {len(pictures)} pictures; give at least {FEWEST}")
    kinds = {kind: _limits(kind, np.stack([p[kind] for p in pictures])) for kind in pictures[0]}
    return Baseline(disk.sha256(model), model.name, images, len(pictures), kinds)


def _limits(kind: str, pictures: NDArray[np.float64]) -> Limits:
    """Of [n, columns]."""
    if kind == BUDGET:  # any loss is one
        lost = (pictures > 0).any(1)
        return Limits((), (0.0,), float(lost.mean()), int(lost.sum()))
    ordered = np.sort(pictures, axis=0)
    slack, little = (_SLACK, _LITTLE) if kind == RANGES else (1.0, 0.0)
    alone = _above(pictures, ordered, slack, little)
    largest = tuple((ordered[-1] * slack + little).tolist())
    if kind not in _BOTH:
        return Limits((), largest, float(alone.mean()), _enough(pictures, slack, little))
    alone |= _above(-pictures, -ordered[::-1], slack, little)
    held = len({*pictures.argmax(0).tolist(), *pictures.argmin(0).tolist()})
    return Limits(tuple(ordered[0].tolist()), largest, float(alone.mean()), held)


def _above(
    pictures: NDArray[np.float64], ordered: NDArray[np.float64], slack: float, little: float
) -> NDArray[np.bool_]:
    """[n] which pictures are above what all the others allow, in any column."""
    others = np.where(pictures == ordered[-1], ordered[-2], ordered[-1])
    found: NDArray[np.bool_] = (pictures > others * slack + little).any(1)
    return found


def _enough(pictures: NDArray[np.float64], slack: float, little: float) -> int:
    """Pictures that allow all the others: the one farthest beyond is taken until none is."""
    largest = pictures[pictures.max(1).argmax()]
    taken = 1
    while (over := (pictures - largest * slack - little).max(1)).max() > 0:
        largest = np.maximum(largest, pictures[over.argmax()])
        taken += 1
    return taken


def compare(
    known: Baseline, pictures: Sequence[Seen], names: Sequence[str], share: float
) -> tuple[Drifted, ...]:
    """New pictures against a baseline, kind by kind.

    Pictures drawn as the baseline's were are told as drift in any of its kinds with a chance of at
    most `FALSE_ALARMS`, also where `share` is 0: each kind has an equal part of it.

    Raises:
        InputError: It tells of other things than the file's pictures do.
    """
    found = []
    level = FALSE_ALARMS / max(1, len(known.kinds))
    for kind, limits in known.kinds.items():
        columns = len(pictures[0].get(kind, ()))
        if {len(end) for end in (limits.least, limits.largest)} - {0} != {columns}:
            raise InputError(
                f"the baseline of {known.name} tells {len(limits.largest)} numbers of {kind}, the "
                f"file {columns}; write it again with 'ltmp eval --write-baseline'"
            )
        beyond = limits.beyond(np.stack([picture[kind] for picture in pictures]))
        most = chance.most(limits.held, known.count, len(pictures), share, level)
        allowed = most / len(pictures)
        first = names[int(beyond.argmax())] if beyond.any() else ""
        found.append(Drifted(kind, float(beyond.mean()), limits.expected, allowed, first))
    return tuple(found)


def read(path: Path, model: Path) -> Baseline:
    """A baseline of a file.

    Raises:
        InputError: It is none, or of another file.
    """
    disk.require_file(path, "a baseline written by 'ltmp eval --write-baseline'")
    try:
        document = json.loads(path.read_bytes())
        if document["kind"] != "baseline" or document["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"kind {document['kind']!r}, version {document['schema_version']!r}")
        kinds = {kind: _read_limits(document["kinds"][kind]) for kind in document["kinds"]}
        if unknown := kinds.keys() - set(KINDS):
            raise ValueError(f"it tells of {sorted(unknown)[0]!r}")
        sha256, name, images = (str(document[key]) for key in ("model", "name", "images"))
        count = int(document["count"])
        if count < FEWEST or not all(0 <= one.held <= count for one in kinds.values()):
            raise ValueError(f"it is of {count} pictures, or held by more than it has")
        found = Baseline(sha256, name, images, count, kinds)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as err:
        raise InputError(
            f"{path} is no baseline ({err}); write one with 'ltmp eval --write-baseline'"
        ) from err
    if found.model != disk.sha256(model):
        raise InputError(
            f"{path} is the baseline of another file ({found.name}, sha256 {found.model[:12]}…, "
            f"{model} has {disk.sha256(model)[:12]}…); write one of this file"
        )
    return found


def _read_limits(stated: Mapping[str, Any]) -> Limits:
    least, largest = (tuple(map(float, stated[end])) for end in ("least", "largest"))
    return Limits(least, largest, float(stated["expected"]), int(stated["held"]))
