"""Sampling tokens by the class token's attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.scores import CLASS_VALUES
from ltmp_export.plan.step import Step

MOST_SAMPLES = 2**20  # far more than tokens


@dataclass(frozen=True)
class Sample(Step):
    """Keep the patch tokens that sample points fall on (ATS, METHOD §1).

    With q the attention of the class token times the length of a token's value, summed over heads,
    and F their running sum over patch tokens in their order, divided by the whole + `floor`: each
    of the points (2j + 1) / (2S) takes the token whose F is nearest, of equally near ones the
    first. Tokens that some point takes stay, in their order, behind the protected ones. It serves
    one method: no other's number of tokens is that of different ones among fixed points.

    Attributes:
        samples: S; the last of S points is left out, by a range of floating-point numbers that
            stops before it, but for some S does not.
        floor: Added to the sum.
    """

    on_disk: ClassVar[str] = "Sample"
    action: ClassVar[str] = "sample"
    demands: ClassVar[frozenset[str]] = frozenset((CLASS_VALUES,))
    samples: int
    floor: float = 1e-6

    @property
    def points(self) -> tuple[float, ...]:
        """Where it samples, rising."""
        twice = 2 * self.samples
        number = math.ceil(((twice - 1) / twice - 1 / twice) / (2 / twice))
        return tuple((2 * j + 1) / twice for j in range(number))

    @property
    def varies(self) -> bool:
        """How many different tokens are sampled is each image's own."""
        return True

    @property
    def drops(self) -> bool:
        """What no point takes is gone."""
        return True

    def after(self, tokens: int, protected: int) -> int | None:
        """Each image has a say."""
        return None

    def most(self, tokens: int, protected: int) -> int:
        """As many as points, where all take different ones."""
        return min(tokens, protected + len(self.points))

    def possible(self, tokens: int, protected: int) -> bool:
        """Behind a class token, with a point at least."""
        return protected > 0 and 2 <= self.samples <= MOST_SAMPLES and self.floor >= 0

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "sample points", str(len(self.points))
