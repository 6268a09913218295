"""Merging by a mask that is learned and follows the tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.step import Step

EPS = 1e-6  # of each sum that divides, and of the LayerNorm: assumed
MASK, TARGET = "mask", "target"  # what it hands on


@dataclass(frozen=True)
class MergeMask(Step):
    """N patches become P, each a mean of patches by a column of a mask G [N, P] (METHOD §1).

    Z are the patches behind attention, Ẑ is Z with each row normalised, G' the mask of the step
    before, or the first one.

        E = X0 - c, minus its mean over P, with X0 = colnorm(G')ᵀ · Ẑ
        G = relu(G' - η · Ẑ · Eᵀ / C)
        X̃ = colnorm(G)ᵀ · Z

    colnorm divides each column by its sum + 1e-6, rownorm each row. Of a hard mask each row has
    one number that is not 0, its largest, of equal ones the lowest. With `restore` there are N
    patches again behind the MLP, Z + rownorm(G) · (MLP's output - X̃); without, columns of
    nothing but 0 stand for no token afterwards (LTM-Transformer, arXiv 2407.15219, all assumed but
    the frame).

    Attributes:
        name: Prefix of its weights: `center` c [C], `step` η [1].
        start: Name of the first mask [of, tokens].
        of: N, of each set.
        tokens: P, of each set.
        sets: How many sets an image's patches are divided into, each with a mask of its own: they
            stand one after the other.
        first: Whether G' is the first mask.
        hard: Whether each patch goes to one target.
        restore: Whether the patches are there again behind the MLP.
    """

    on_disk: ClassVar[str] = "MergeMask"
    action: ClassVar[str] = "merge by a mask"
    name: str
    start: str
    of: int
    tokens: int
    sets: int = 1
    first: bool = True
    hard: bool = False
    restore: bool = False

    @property
    def restores(self) -> bool:
        """As `restore` says."""
        return self.restore

    @property
    def mixes(self) -> bool:
        """A soft mask takes patches to several targets."""
        return not self.hard

    @property
    def drops(self) -> bool:
        """A row of zeros reaches no target."""
        return not self.restore

    @property
    def unrecorded(self) -> frozenset[str]:
        """A soft mask has no targets to tell of, and who is restored does not miss any."""
        soft, whole = () if self.hard else ("target",), ("reached",) if self.restore else ()
        return frozenset((*soft, *whole))

    def after(self, tokens: int, protected: int) -> int:
        """Those that pass by, and the targets of each set."""
        return protected + self.sets * self.tokens

    def possible(self, tokens: int, protected: int) -> bool:
        """Of the number it was made for, in one set where some pass by."""
        fits = tokens == protected + self.sets * self.of and (self.sets == 1 or not protected)
        return fits and 0 < self.tokens <= self.of and self.sets > 0

    def macs(self, tokens: int, protected: int, width: int) -> int:
        """Ẑ by the masks before and of it, their likeness; and back, unless rows are looked up."""
        products = 4 if self.restore and not self.hard else 3
        return products * self.sets * self.of * self.tokens * width

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        sets = f"{self.sets} x " if self.sets > 1 else ""
        return "merged by a mask", f"{sets}{self.of} to {self.tokens}{', hard' * self.hard}"
