"""What a page tells of: values that other commands found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltmp_export.drawing.followed import Followed
    from ltmp_export.parity.report import CheckReport
    from ltmp_export.timing.report import BenchReport

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Tokens:
    """Tokens of some images.

    Attributes:
        images: Where they come from, and how many.
        initial: Before the first block.
        counts: [images][depth] behind each block.
    """

    images: str
    initial: int
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Pictures:
    """Images to be shown.

    Attributes:
        images: Where they come from, and how many.
        prepared: What became of them before the model saw them.
        courses: What became of each of them, at least one.
    """

    images: str
    prepared: str
    courses: Followed

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        courses = [{"image": one.image} | one.to_json() for one in self.courses]
        return {"images": self.images, "prepared": self.prepared, "courses": courses}


@dataclass(frozen=True)
class Findings:
    """All that is told; what is None was not asked for, or there is none.

    Attributes:
        facts: Of the file, as `commands.inspect` gives them.
        sha256: Of the file.
        tokens: Their numbers by block.
        pictures: Who owns which patch.
        check: The file against its checkpoint.
        margins: Of the checkpoint, as `parity.margins` gives them.
        bench: Times.
        notes: What was assumed.
        warnings: What else to know.
    """

    facts: Mapping[str, Any]
    sha256: str
    tokens: Tokens | None = None
    pictures: Pictures | None = None
    check: CheckReport | None = None
    margins: Mapping[str, Any] | None = None
    bench: BenchReport | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `schemas/report.schema.json` describes; no more parts than the page."""
        parts = {
            "check": None if self.check is None else self.check.to_json(),
            "tokens": None if self.tokens is None else asdict(self.tokens),
            "pictures": None if self.pictures is None else self.pictures.to_json(),
            "margins": self.margins,
            "bench": None if self.bench is None else self.bench.to_json(),
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "report",
            "model": self.facts,
            "sha256": self.sha256,
            **{name: part for name, part in parts.items() if part is not None},
            "notes": self.notes,
            "warnings": self.warnings,
        }
