"""Times of one model at several token counts, as a file: measured here, used elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ltmp_export.backbones import chosen
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.files.plain import plain
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.times import Load
from ltmp_export.precision.formats import FP32, KINDS
from ltmp_export.timing.machine import Environment

SCHEMA_VERSION = 1
KIND, UNIT = "timing", "milliseconds per image"
TWINS = 0.02  # between identical files, from which on nothing can be told
LEAST = 3  # points, for as many numbers of the model
_WRITE = "write it with 'ltmp bench MODEL.onnx --table FILE.json'"
# What differs between models of the same shapes, and costs no time.
_NAMES = ("name", "classes", "norm_eps")
SINGLE = "--batch-size 1"  # of an export: a file that takes single images only
FORMS: Mapping[bool, str] = {False: "any batch", True: "single images only"}

# What looking into a document that anyone may have written raises.
_DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class Point:
    """A file at some token counts.

    Attributes:
        label: What was done for it.
        loads: What each block is given.
        milliseconds: Per image, best of the rounds.
    """

    label: str
    loads: tuple[Load, ...]
    milliseconds: float


@dataclass(frozen=True)
class Batch:
    """Times at a batch size.

    Attributes:
        size: Images in one run.
        dense: Milliseconds per image of the dense model, best of the rounds, mean of two files.
        twins: How far these two, which are the same, are from each other, as a share.
        points: The reduced ones.
    """

    size: int
    dense: float
    twins: float
    points: tuple[Point, ...]


@dataclass(frozen=True)
class TimeTable:
    """What was measured, of which model, where.

    Attributes:
        geometry: Of the model, see `same`.
        family: How it is reduced.
        precision: "fp32", "fp16" or "int8".
        single: Whether the files take single images alone.
        runtime: Name and version.
        providers: Execution providers.
        threads: Threads of an operator.
        rounds: Runs of each image, of which the fastest counts.
        images: Where they come from.
        batches: One for each batch size.
        environment: The machine.
        versions: Of packages.
    """

    geometry: Mapping[str, Any]
    family: str
    precision: str
    single: bool
    runtime: str
    providers: tuple[str, ...]
    threads: int
    rounds: int
    images: str
    batches: tuple[Batch, ...]
    environment: Environment
    versions: Mapping[str, str]

    @property
    def options(self) -> str:
        """What `ltmp export` writes such files with."""
        precision = "" if self.precision == FP32 else f"--precision {self.precision}"
        return f"{precision} {SINGLE if self.single else ''}".strip()

    @property
    def where(self) -> str:
        """The machine and how it ran, for a person."""
        each = "thread" if self.threads == 1 else "threads"
        return f"{self.environment.processor}, {self.threads} {each}, {self.runtime}"

    def batch(self, size: int | None) -> Batch:
        """The times at a batch size, or at the only one.

        Raises:
            InputError: There are none, or several to choose from.
        """
        sizes = ", ".join(str(one.size) for one in self.batches)
        if size is None and len(self.batches) > 1:
            raise InputError(f"the timing table has batches of {sizes}; say which (--batch-size)")
        for one in self.batches:
            if size in (None, one.size):
                return one
        raise InputError(
            f"the timing table has batches of {sizes}, not of {size}; give one of these with "
            "--batch-size, or another table"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        document = asdict(self) | {"schema_version": SCHEMA_VERSION, "kind": KIND, "unit": UNIT}
        for batch in document["batches"]:
            for point in batch["points"]:
                point["loads"] = [load._asdict() for load in point["loads"]]
        return dict(plain(document))


def shape(geometry: Geometry) -> dict[str, Any]:
    """What of a geometry costs time, as plain values."""
    ((kind, facts),) = chosen.to_facts(geometry).items()
    words = {key: value for key, value in facts.items() if key not in _NAMES}
    return dict(plain({"kind": kind} | words))


def read(path: Path) -> TimeTable:
    """A table, also one inside of a report of `ltmp calibrate --latency-target … --json`.

    Raises:
        InputError: It cannot be read, or is something else.
    """
    disk.require_file(path, "a timing table written by 'ltmp bench --table'")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path} is not JSON ({err!s:.100}); {_WRITE}") from err
    except OSError as err:
        raise InputError(f"{path} cannot be read ({err.strerror}); {_WRITE}") from err
    document = document if isinstance(document, dict) else {}
    if document.get("kind") == "calibrate" and isinstance(document.get("latency"), dict):
        document = document["latency"].get("table") or {}
    kind, version = document.get("kind"), document.get("schema_version")
    if kind != KIND or version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has kind {kind!r:.40}, schema_version {version!r:.40}; expected {KIND}, "
            f"{SCHEMA_VERSION}: {_WRITE}"
        )
    if document.get("unit") != UNIT:
        raise InputError(
            f"{path} has the unit {document.get('unit')!r:.40}; expected {UNIT!r}: {_WRITE}"
        )
    try:
        return _understood(document)
    except _DAMAGED as err:
        raise InputError(f"{path} is a damaged timing table ({err!s:.100}); {_WRITE}") from err


def _understood(document: Mapping[str, Any]) -> TimeTable:
    machine = document["environment"]
    providers = machine.pop("available_providers")
    table = TimeTable(
        geometry=dict(document["geometry"]),
        family=str(document["family"]),
        precision=str(document["precision"]),
        single=document["single"] is True,
        runtime=str(document["runtime"]),
        providers=tuple(map(str, document["providers"])),
        threads=_whole(document["threads"]),
        rounds=_whole(document["rounds"]),
        images=str(document["images"]),
        batches=tuple(map(_batch, document["batches"])),
        environment=Environment(**machine, available_providers=tuple(providers)),
        versions=dict(document["versions"]),
    )
    if not table.batches or table.precision not in KINDS:
        raise ValueError(f"{len(table.batches)} batch sizes, precision {table.precision!r:.20}")
    lengths = {len(point.loads) for batch in table.batches for point in batch.points}
    if lengths != {table.geometry["depth"]}:
        raise ValueError(f"points of {sorted(lengths)} blocks")
    return table


def _batch(found: Mapping[str, Any]) -> Batch:
    points = tuple(
        Point(
            str(one["label"]),
            tuple(Load(*(_number(load[name]) for name in Load._fields)) for load in one["loads"]),
            _number(one["milliseconds"]),
        )
        for one in found["points"]
    )
    if len(points) < LEAST:
        raise ValueError(f"{len(points)} points, expected {LEAST} or more")
    twins = float(found["twins"])
    if not 0.0 <= twins < math.inf:
        raise ValueError(f"twins {twins}")
    return Batch(_whole(found["size"]), _number(found["dense"]), twins, points)


def _checked(kinds: tuple[type, ...], what: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) not in kinds or not 0 < value < 1e12:
            raise ValueError(f"{value!r:.40} is no {what} above 0")
        return value

    return check


_whole = _checked((int,), "whole number")
_number = _checked((int, float), "number")


def require_fitting(
    table: TimeTable, path: Path, geometry: Geometry, family: str, precision: str | None,
    single: bool | None = None,
) -> None:  # fmt: skip
    """Check that a table is one of this model, as it is to run.

    Args:
        table: The table.
        path: Its file, for messages.
        geometry: Of the model.
        family: How it is to be reduced.
        precision: In which numbers, where that is said.
        single: Whether by a file for single images only, where that is said.

    Raises:
        InputError: It is not.
    """
    own = shape(geometry)
    different = [k for k in (own | dict(table.geometry)) if own.get(k) != table.geometry.get(k)]
    if different:
        key = different[0]
        raise InputError(
            f"{path} is of another model: its {key} is {table.geometry.get(key)!r:.60}, this "
            f"model's {own.get(key)!r:.60}; time a file of this geometry with 'ltmp bench --table'"
        )
    for what, found, asked in (
        ("family", table.family, family),
        ("precision", table.precision, precision),
    ):
        if asked is not None and found != asked:
            raise InputError(
                f"{path} has times of {what} {found}, and {asked} is asked for; time such a file "
                "with 'ltmp bench --table'"
            )
    if single not in (None, table.single):
        flag = f", which export writes with {SINGLE}," if single else ""
        raise InputError(
            f"{path} has times of files for {FORMS[table.single]}, and a file for {FORMS[single]} "
            f"is asked for; time such a file{flag} with 'ltmp bench --table'"
        )
