"""What every step is to a plan: one thing that happens to the tokens of a block, in plain numbers.

A step is a folder of `steps/` with a face for everyone who deals with it; `faces` finds them. The
dataclass in its `step.py` is a `Step`, whose fields are written to files as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar


@dataclass(frozen=True)
class Step:
    """One thing that happens to tokens.

    Attributes:
        on_disk: What files call it.
        action: What a person calls it: "merge", "prune", …
        demands: The `scores` it decides by, or hands on.
        resizes: Whether a token may stand for several patches afterwards, which attention then
            has to know.
    """

    on_disk: ClassVar[str]
    action: ClassVar[str]
    demands: ClassVar[frozenset[str]] = frozenset()
    resizes: ClassVar[bool] = False

    @property
    def restores(self) -> bool:
        """Whether the tokens that it is given are there again behind the MLP of its block.

        Its faces then have `restore` beside what they do before.
        """
        return False

    @property
    def late(self) -> bool:
        """Whether it comes behind the MLP of its block, the last one."""
        return False

    @property
    def decides(self) -> bool:
        """Whether, where it stands before a block, it decides by scores of its own."""
        return False

    @property
    def mixes(self) -> bool:
        """Whether a patch may be part of several tokens afterwards."""
        return False

    @property
    def drops(self) -> bool:
        """Whether a patch may be part of no token afterwards."""
        return False

    @property
    def joins(self) -> bool:
        """Whether a token may have become of several."""
        return self.resizes

    @property
    def varies(self) -> bool:
        """Whether it may leave another number of tokens of each image."""
        return False

    @property
    def fractional(self) -> bool:
        """Whether sizes may be no whole numbers afterwards."""
        return False

    @property
    def learned(self) -> float | None:
        """The threshold it compares its scores with, or None."""
        return None

    @property
    def number(self) -> int | None:
        """How many tokens it takes, or keeps, where the plan says so."""
        return None

    @property
    def budget(self) -> int | None:
        """The most rows that it leaves to an image that has more, or None."""
        return None

    @property
    def idle(self) -> bool:
        """Whether it may be left out, for it takes no token and leaves all where they are."""
        return False

    @property
    def unrecorded(self) -> frozenset[str]:
        """Names among its record's tensors that one of these numbers does not write."""
        return frozenset()

    def shown(self) -> tuple[str, str]:
        """What a table calls its number, and the number."""
        raise NotImplementedError

    @property
    def brief(self) -> str:
        """It in a few words."""
        return f"{self.action} {self.shown()[1] if self.number is None else self.number}"

    def limited(self, tokens: int, protected: int) -> Step:
        """The same with a number that so many tokens allow, where it has one."""
        return self

    def after(self, tokens: int, protected: int) -> int | None:
        """Tokens that are left of so many; None where each image has a say in it."""
        raise NotImplementedError

    def most(self, tokens: int, protected: int) -> int:
        """The most tokens that are left of so many."""
        left = self.after(tokens, protected)
        return tokens if left is None else left

    def possible(self, tokens: int, protected: int) -> bool:
        """Whether it can be taken of so many tokens, or, of an unknown number, at the most."""
        raise NotImplementedError

    def macs(self, tokens: int, protected: int, width: int) -> int:
        """Multiply-accumulates of its own matrix products with so many tokens [C = width]."""
        return 0


@dataclass(frozen=True)
class Learned(Step):
    """A step by a threshold in [0, 1], which training finds.

    Attributes:
        threshold: What its scores must be above.
    """

    threshold: float

    @property
    def varies(self) -> bool:
        """Each image has a say."""
        return True

    @property
    def learned(self) -> float:
        """The threshold."""
        return self.threshold

    def at(self, threshold: float) -> Learned:
        """The same with another threshold."""
        return replace(self, threshold=threshold)

    def after(self, tokens: int, protected: int) -> int | None:
        """Each image has a say."""
        return None

    def possible(self, tokens: int, protected: int) -> bool:
        """Of any tokens."""
        return 0.0 <= self.threshold <= 1.0

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return f"{self.action} threshold", f"{self.threshold:.6f}"


def early(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Those between attention and MLP."""
    return tuple(step for step in steps if not step.late)


def late(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Those behind the MLP."""
    return tuple(step for step in steps if step.late)
