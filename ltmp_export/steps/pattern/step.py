"""Keeping the patches that lie in a fixed pattern, before a block."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from ltmp_export.plan.step import Step

_RANGES = re.compile(r"\d+-\d+(,\d+-\d+)*")
MOST_PATCHES = 2**20


@dataclass(frozen=True)
class Pattern(Step):
    """Keep some of `of` patch tokens, the same of every image, in their order (METHOD §1).

    Attributes:
        rows: Which, among the patch tokens that are there: "0-3,7-9", both ends included, rising.
        of: How many patch tokens there are.
    """

    on_disk: ClassVar[str] = "Pattern"
    action: ClassVar[str] = "keep"
    rows: str
    of: int

    @property
    def drops(self) -> bool:
        """What is not in the pattern is gone."""
        return True

    @property
    def number(self) -> int:
        """How many stay."""
        return len(self.kept)

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """The rows; none where they are no rising rows of so many."""
        if not _RANGES.fullmatch(self.rows) or not 0 < self.of <= MOST_PATCHES:
            return ()
        ends = [int(end) for part in self.rows.split(",") for end in part.split("-")]
        rising = all(a <= b if i % 2 == 0 else a < b for i, (a, b) in enumerate(_pairs(ends)))
        if not rising or ends[-1] >= self.of:
            return ()
        spans = zip(ends[::2], ends[1::2], strict=True)
        return tuple(row for first, last in spans for row in range(first, last + 1))

    def after(self, tokens: int, protected: int) -> int:
        """The protected and the kept ones."""
        return protected + self.number

    def possible(self, tokens: int, protected: int) -> bool:
        """Of as many as it was made for."""
        return 0 < self.number <= self.of and tokens in (0, self.of + protected)

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "patches kept before it", str(self.number)


def _pairs(values: list[int]) -> Iterable[tuple[int, int]]:
    return itertools.pairwise(values)


def ranges(rows: Iterable[int]) -> str:
    """Rising rows as `Pattern` has them."""
    found: list[list[int]] = []
    for row in rows:
        if found and found[-1][1] == row - 1:
            found[-1][1] = row
        else:
            found.append([row, row])
    return ",".join(f"{first}-{last}" for first, last in found)
