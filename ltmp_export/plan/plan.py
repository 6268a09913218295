"""The frozen token reduction of one model: which steps each block takes, with plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ltmp_export.plan import faces, positions
from ltmp_export.plan.step import Step, early, late

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

DENSE = "dense"  # the family of a model that reduces nothing
# Not written where they are as in files of before.
_USUAL = {"merged_position": "", "metric_position": "", "pool_sizes": True}
_MIXES = "PatchMerge"  # what stands before a block where a file does not say what it is


class Rows(NamedTuple):
    """Tokens of one image at a block.

    Attributes:
        given: What the block before left, or the embedding.
        received: What its attention runs on.
        kept: What its MLP runs on.
        left: What the next block, or the head, is given.
    """

    given: int
    received: int
    kept: int
    left: int


@dataclass(frozen=True)
class Plan:
    """What is left of a family once its scalars are frozen.

    Attributes:
        family: Name of the file in `families/` that made the plan, or "dense".
        blocks: For each transformer block, its steps in the order they are taken, between
            attention and MLP.
        before: What happens to the tokens that enter a block, by its index; at the depth, to
            those that enter the head.
        parameters: Weights of the reduction itself, by checkpoint name.
        stated: What it goes by, by the names of `Choices`, in a family of which these tell.
        merged_position: Where a token lies that several have become, one of
            `positions.MERGED`; "" where attention knows no places.
        metric_position: Which keys tokens are compared by, one of `positions.METRIC`; "" likewise.
        pool_sizes: Whether attention pooling takes a token for as many as it stands for.
    """

    family: str
    blocks: tuple[tuple[Step, ...], ...]
    before: Mapping[int, Step] = field(default_factory=dict)
    parameters: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    stated: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    merged_position: str = ""
    metric_position: str = ""
    pool_sizes: bool = True

    def __post_init__(self) -> None:
        merged, metric = self.merged_position, self.metric_position
        if merged not in ("", *positions.MERGED) or metric not in ("", *positions.METRIC):
            raise ValueError(f"positions {merged!r:.50}, {metric!r:.50}")
        if type(self.pool_sizes) is not bool:
            raise ValueError(f"pooling by sizes {self.pool_sizes!r:.50}")

    @property
    def static(self) -> bool:
        """Whether the number of rows of every block is known before running.

        With a budget (`Fit`) some of the rows of an image may then stand for no token.
        """
        return self.counted or self.keep is not None

    @property
    def counted(self) -> bool:
        """Whether every image has the same number of tokens in every block, as if dense."""
        return not any(step.varies for steps in self.blocks for step in steps)

    @property
    def keep(self) -> tuple[int, ...] | None:
        """The budget of each block, where there is one."""
        budgets = [step.budget for steps in self.blocks for step in steps]
        found = [most for most in budgets if most is not None]
        return tuple(found) if found else None

    def deciding(self, block: int) -> tuple[Step, ...]:
        """The steps of a block that decide: one before it, if it does, and those in it."""
        step = self.before.get(block)
        return (
            self.blocks[block] if step is None or not step.decides else (step, *self.blocks[block])
        )

    def within(self, keep: Sequence[int]) -> Plan:
        """The same with a budget for each block."""
        fit: Callable[..., Step] = faces.by_name()["Fit"]
        pairs = zip(self.blocks, keep, strict=True)
        return replace(self, blocks=tuple((*steps, fit(keep=most)) for steps, most in pairs))

    def thresholds(self) -> dict[str, list[float]]:
        """Thresholds per action in block order, for example `{"merge": [...], "prune": [...]}`."""
        found: dict[str, list[float]] = {}
        for steps in self.blocks:
            for step in steps:
                if step.learned is not None:
                    found.setdefault(step.action, []).append(step.learned)
        return found

    def counts(self, tokens: int, protected: int) -> tuple[int, ...]:
        """Tokens that each MLP of a `counted` plan runs on, from so many before the first block."""
        return tuple(rows.kept for rows in self.rows(tokens, protected))

    def rows(
        self, tokens: int, protected: int, counts: Sequence[int] | None = None
    ) -> tuple[Rows, ...]:
        """Tokens at each block, from so many before the first.

        Args:
            tokens: Before the first block.
            protected: How many of them stand before the patches.
            counts: [depth] what each MLP runs on; None where the plan alone says it.
        """
        found, given = [], tokens
        for block, steps in enumerate(self.blocks):
            before = self.before.get(block)
            received = given if before is None else before.most(given, protected)
            kept = received
            for step in early(steps):
                kept = step.most(kept, protected)
            kept = kept if counts is None else int(counts[block])
            left = self.behind(block, given, received, kept)
            for step in late(steps):
                left = step.most(left, protected)
            found.append(Rows(given, received, kept, left))
            given = left
        if len(found) in self.before:
            found[-1] = found[-1]._replace(left=self.before[len(found)].most(given, protected))
        return tuple(found)

    def behind(self, block: int, given: T, received: T, kept: T) -> T:
        """What stands behind a block: what is restored, or else what it keeps; see `Rows`."""
        if block in self.before and self.before[block].restores:
            return given
        return received if self.restoring(block) is not None else kept

    @property
    def restores(self) -> bool:
        """Whether some block gives back behind its MLP what its MLP does not run on."""
        steps = [*self.before.values(), *(step for steps in self.blocks for step in steps)]
        return any(step.restores for step in steps)

    @property
    def ends(self) -> bool:
        """Whether it ends with a step behind the last MLP, whose tokens are what it is for."""
        return bool(self.blocks) and any(step.late for step in self.blocks[-1])

    @property
    def fractional(self) -> bool:
        """Whether sizes may be no whole numbers."""
        return any(step.fractional for steps in self.blocks for step in steps)

    @property
    def mixes(self) -> bool:
        """Whether some patch may be part of several of the tokens that are left."""
        steps = [*self.before.values(), *(step for steps in self.blocks for step in steps)]
        return any(step.mixes and not step.restores for step in steps)

    def restoring(self, block: int) -> Step | None:
        """The step of a block, behind its attention, that restores what it is given, or None."""
        return next((step for step in self.blocks[block] if step.restores), None)

    def executed(self, counts: Sequence[int]) -> Sequence[int]:
        """Rows that the MLPs run on for an image of these counts [depth]: all of a budget's."""
        return counts if self.keep is None else self.keep

    def require_possible(self, patches: int, protected: int) -> None:
        """Check that a model of so many patch tokens and tokens before them can take the steps.

        Raises:
            ValueError: It cannot.
        """
        most, budgets = patches + protected, 0
        for block, steps in enumerate(self.blocks):
            entering = [self.before[block]] if block in self.before else []
            passed = [most]
            if entering and entering[0].demands and (not block or self.blocks[block - 1]):
                raise ValueError(f"nothing offers block {block} what {entering[0]} goes by")
            for place, step in enumerate((*entering, *steps)):
                fits = step.budget is None or place == len(entering) + len(steps) - 1
                fits = fits and (place < len(entering) or not step.restores or len(steps) == 1)
                if not fits or not step.possible(passed[-1], protected):
                    raise ValueError(f"block {block} cannot take {step}")
                left = step.budget
                rows = step.after(passed[-1], protected) if left is None else left
                passed.append(passed[-1] if rows is None else rows)
                budgets += left is not None
            most = self.behind(block, passed[0], passed[len(entering)], passed[-1])
        if any(step.late for steps in self.blocks[:-1] for step in steps) or (
            budgets and self.ends
        ):
            raise ValueError("a step behind an MLP, and blocks or a budget behind it")
        if budgets not in (0, len(self.blocks)):
            raise ValueError(f"a budget for {budgets} of {len(self.blocks)} blocks")

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the parameters; see `from_json`."""
        return {
            "family": self.family,
            "blocks": [[{"step": s.on_disk} | asdict(s) for s in steps] for steps in self.blocks],
            "patch_merges": {str(block): _placed(step) for block, step in self.before.items()},
            **{k: v for k, usual in _USUAL.items() if (v := getattr(self, k)) != usual},
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
        known = faces.by_name()
        placed = {int(k): _named(step) for k, step in values["patch_merges"].items()}
        before = {block: _made(known[step.pop("step")], step) for block, step in placed.items()}
        fits = all(0 <= block <= len(blocks) for block in before)
        if not fits or len(before) < len(values["patch_merges"]):
            raise ValueError(f"tokens mixed before blocks {list(values['patch_merges'])}")
        if not all(step.possible(0, 0) for step in before.values()):
            raise ValueError(f"tokens mixed by {list(before.values())!s:.200}")
        return cls(
            str(values["family"]),
            tuple(tuple(_made(known[s.pop("step")], s) for s in steps) for steps in blocks),
            before,
            **{key: values[key] for key in _USUAL if key in values},
        )


def before(values: Mapping[str, Any]) -> Step:
    """A step that stands before a block, from what `Plan.to_json` wrote of it."""
    return faces.made(_named(values))


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """What files hold of a step before a block, with its name."""
    return {"step": _MIXES, **values}


def _placed(step: Step) -> dict[str, Any]:
    """A step before a block, as files hold it: the first kind there was has no name in them."""
    name = {} if step.on_disk == _MIXES else {"step": step.on_disk}
    return name | asdict(step)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int and 0 <= value < 2**31,
    "float": lambda value: type(value) in (int, float) and math.isfinite(value),
    "bool": lambda value: type(value) is bool,
    "str": lambda value: type(value) is str,
}


def _made(step: type[Step], values: Mapping[str, Any]) -> Step:
    """A step from what anybody may have written.

    Raises:
        TypeError: It has other fields.
        ValueError: A value is of another kind.
    """
    for part in fields(step):
        if part.name in values and not _KINDS[str(part.type)](values[part.name]):
            raise ValueError(f"{step.on_disk} with {part.name} {values[part.name]!r:.50}")
    return step(**values)


def demands(steps: Sequence[Step]) -> frozenset[str]:
    """The scores that steps among these demand."""
    return frozenset().union(*(step.demands for step in steps))


def resizes(steps: Sequence[Step]) -> bool:
    """Whether a token may stand for more patches after these steps than before."""
    return any(step.resizes for step in steps)


def dense_plan(depth: int) -> Plan:
    """A plan that reduces nothing: the plain ViT the reduced one is compared with."""
    return Plan(DENSE, ((),) * depth)
