"""The frozen token reduction of one model: which steps each block takes, with plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

MOST_TOKENS = 2**20  # that PatchMerger may make: far more than it does
DENSE = "dense"  # the family of a model that reduces nothing


@dataclass(frozen=True)
class Merge:
    """Merge each source token whose best similarity is above `threshold` (METHOD §1, steps 3-4)."""

    kind: ClassVar[str] = "merge"
    threshold: float


@dataclass(frozen=True)
class Prune:
    """Keep the tokens whose importance is above `threshold` (METHOD §1, step 5)."""

    kind: ClassVar[str] = "prune"
    threshold: float


@dataclass(frozen=True)
class MergeMost:
    """Merge the `count` sources of the highest best similarity (METHOD §1, fixed-rate families).

    Attributes:
        count: How many; at least 1 and no more than there are.
        ranked: Whether the unmerged sources stay in order of descending similarity, the class
            token last, instead of in their own order.
        prefix: Tokens that never merge and stay in front: the class token, and with 2 also the
            distillation token, which is the first destination.
    """

    kind: ClassVar[str] = "merge"
    count: int
    ranked: bool = False
    prefix: int = 1


@dataclass(frozen=True)
class PruneLeast:
    """Sort by importance, the class token first, and drop the last `count` (METHOD §1).

    Attributes:
        count: How many.
        ordered: Whether a later step reads the order; if not, only who stays is a decision.
    """

    kind: ClassVar[str] = "prune"
    count: int
    ordered: bool = True


@dataclass(frozen=True)
class Fit:
    """Keep the `keep` most important tokens, in their order, where there are more."""

    kind: ClassVar[str] = "fit"
    keep: int


Step: TypeAlias = Merge | Prune | MergeMost | PruneLeast | Fit
Made = TypeVar("Made")
_CLASSES: tuple[type[Step], ...] = (Merge, Prune, MergeMost, PruneLeast, Fit)
_STEPS = {step.__name__: step for step in _CLASSES}


@dataclass(frozen=True)
class PatchMerge:
    """All patch tokens become `tokens` mixtures of them (PatchMerger, arXiv 2202.12015).

    Y = softmax over the N patch tokens of (scale · W · LN(X)ᵀ), times LN(X); tokens before the
    patches pass by.

    Attributes:
        name: Prefix of its weights: `queries` W [tokens, C], `norm.weight`, `norm.bias`.
        tokens: How many.
        scale: Of the scores.
        eps: Epsilon of its LayerNorm.
    """

    name: str
    tokens: int
    scale: float
    eps: float


@dataclass(frozen=True)
class Plan:
    """What is left of a family once its scalars are frozen.

    Attributes:
        family: Name of the file in `families/` that made the plan, or "dense".
        blocks: For each transformer block, its steps in the order they are taken, between
            attention and MLP.
        patch_merges: What happens to the tokens that enter a block, by its index; at the depth,
            those that enter the head.
        parameters: Weights of the reduction itself, by checkpoint name.
    """

    family: str
    blocks: tuple[tuple[Step, ...], ...]
    patch_merges: Mapping[int, PatchMerge] = field(default_factory=dict)
    parameters: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def static(self) -> bool:
        """Whether the number of rows of every block is known before running.

        With a budget (`Fit`) some of the rows of an image may then stand for no token.
        """
        return self.counted or self.keep is not None

    @property
    def counted(self) -> bool:
        """Whether every image has the same number of tokens in every block, as if dense."""
        return all(isinstance(s, (MergeMost, PruneLeast)) for steps in self.blocks for s in steps)

    @property
    def keep(self) -> tuple[int, ...] | None:
        """The budget of each block, where there is one."""
        found = [step.keep for steps in self.blocks for step in steps if isinstance(step, Fit)]
        return tuple(found) if found else None

    def within(self, keep: Sequence[int]) -> Plan:
        """The same with a budget for each block."""
        pairs = zip(self.blocks, keep, strict=True)
        return replace(self, blocks=tuple((*steps, Fit(most)) for steps, most in pairs))

    def thresholds(self) -> dict[str, list[float]]:
        """Thresholds per kind in block order, for example `{"merge": [...], "prune": [...]}`."""
        found: dict[str, list[float]] = {}
        for steps in self.blocks:
            for step in steps:
                if isinstance(step, (Merge, Prune)):
                    found.setdefault(step.kind, []).append(step.threshold)
        return found

    def entering(self) -> dict[int, int]:
        """Patch tokens that enter a block, where they are made anew, by its index."""
        return {block: merge.tokens for block, merge in self.patch_merges.items()}

    def executed(self, counts: Sequence[int]) -> Sequence[int]:
        """Rows that the MLPs run on for an image of these counts [depth]: all of a budget's."""
        return counts if self.keep is None else self.keep

    def require_possible(self, patches: int, prefix: int) -> None:
        """Check that a model of so many patch tokens and tokens before them can take the steps.

        Raises:
            ValueError: It cannot.
        """
        tokens = patches + prefix
        room, budgets = tokens, 0
        for block, steps in enumerate(self.blocks):
            if block in self.patch_merges:
                tokens = prefix + self.patch_merges[block].tokens
            for place, step in enumerate(steps):
                if isinstance(step, (MergeMost, PruneLeast)):
                    most, tokens = (tokens - prefix) // 2, tokens - step.count
                    possible = step.count <= most and getattr(step, "prefix", prefix) == prefix
                elif isinstance(step, Fit):
                    possible = 0 < step.keep <= room and place == len(steps) - 1
                    room, budgets = step.keep, budgets + 1
                else:
                    possible = 0.0 <= step.threshold <= 1.0
                if not possible:
                    raise ValueError(f"block {block} cannot take {step}")
        if budgets not in (0, len(self.blocks)):
            raise ValueError(f"a budget for {budgets} of {len(self.blocks)} blocks")

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the parameters; see `from_json`."""
        return {
            "family": self.family,
            "blocks": [[{"step": type(s).__name__} | asdict(s) for s in b] for b in self.blocks],
            "patch_merges": {str(k): asdict(merge) for k, merge in self.patch_merges.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """The inverse of `to_json`, as far as it goes.

        Raises:
            LookupError: Something is missing, or there is no such step.
            TypeError: A step has other numbers.
            ValueError: A number cannot be what it stands for.
        """
        blocks = [[dict(step) for step in steps] for steps in values["blocks"]]
        merges = {int(k): _made(PatchMerge, merge) for k, merge in values["patch_merges"].items()}
        fits = all(0 <= block <= len(blocks) for block in merges)
        if not fits or len(merges) < len(values["patch_merges"]):
            raise ValueError(f"tokens mixed before blocks {list(values['patch_merges'])}")
        if not all(0 < merge.tokens <= MOST_TOKENS for merge in merges.values()):
            raise ValueError(f"tokens mixed into {[merge.tokens for merge in merges.values()]}")
        return cls(
            str(values["family"]),
            tuple(tuple(_made(_STEPS[s.pop("step")], s) for s in steps) for steps in blocks),
            merges,
        )


_KINDS: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int and 0 <= value < 2**31,
    "float": lambda value: type(value) in (int, float) and math.isfinite(value),
    "bool": lambda value: type(value) is bool,
    "str": lambda value: type(value) is str,
}


def _made(kind: type[Made], values: Mapping[str, Any]) -> Made:
    """A step from what anybody may have written.

    Raises:
        TypeError: It has other fields.
        ValueError: A value is of another kind.
    """
    for part in fields(kind):  # type: ignore[arg-type]
        if part.name in values and not _KINDS[str(part.type)](values[part.name]):
            raise ValueError(f"{kind.__name__} with {part.name} {values[part.name]!r:.50}")
    return kind(**values)


def has_merge(steps: Sequence[Step]) -> bool:
    """Whether a step among these merges, which reads the metric and changes sizes."""
    return any(step.kind == "merge" for step in steps)


def reads_importance(steps: Sequence[Step]) -> bool:
    """Whether a step among these asks how important tokens are: all but merging do."""
    return any(step.kind != "merge" for step in steps)


def dense_plan(depth: int) -> Plan:
    """A plan that reduces nothing: the plain ViT the reduced one is compared with."""
    return Plan(DENSE, ((),) * depth)
