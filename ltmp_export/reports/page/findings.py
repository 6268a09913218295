"""What a page tells of: values that other commands found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltmp_export.drawing.courses import Course
    from ltmp_export.parity.report import CheckReport
    from ltmp_export.timing.report import BenchReport


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
        courses: At least one.
    """

    images: str
    prepared: str
    courses: tuple[Course, ...]


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
