"""What a check found: comparisons, batch invariance, blocks, and the verdict of them all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ltmp_export.errors import CheckFailedError
from ltmp_export.files.plain import plain
from ltmp_export.parity.tolerances import (
    BOUND_FACTOR,
    LEAST_ALLOWED,
    LEAST_BOUND,
    MEAN_FACTOR,
    ROUNDING_FACTOR,
)
from ltmp_export.precision.formats import FP32
from ltmp_export.runtimes.session import ONNXRUNTIME

if TYPE_CHECKING:
    from ltmp_export.parity.decisions import Disagreement
    from ltmp_export.parity.lower_precision import Fidelity
    from ltmp_export.parity.masked_distance import MaskedDistance
    from ltmp_export.parity.pictured import PicturesDistance
    from ltmp_export.parity.summaries import StepSummary
    from ltmp_export.runtimes.saturation import Products

SCHEMA_VERSION = 7
VERDICTS = ("fail", "inconclusive", "borderline", "equal")  # the first one found decides
DECISIONS, OUTPUTS = "decisions", "outputs"  # at what is proved, see `CheckReport.proved_at`
BOUNDED = "bounded"  # what a file of lower precision is at best, see `CheckReport.verdict`


@dataclass(frozen=True)
class Flip:
    """A decision that differs, and the largest distance that rounding explains."""

    decision: Disagreement
    bound: float

    @property
    def explained(self) -> bool:
        """Whether the decision is borderline."""
        return self.decision.distance <= self.bound

    def describe(self) -> str:
        """One clause for a person."""
        return self.decision.describe(self.bound)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        derived = {"margin": self.decision.margin, "distance": self.decision.distance}
        found = asdict(self.decision) | derived
        del found["words"]  # `what` tells
        return found | {"bound": self.bound, "explained": self.explained}


@dataclass(frozen=True)
class Comparison:
    """One image in one batch, the file against the reference.

    Attributes:
        number: Index of the image.
        image: Its name.
        group: What it belongs to: its folder, or the whole set.
        batch_size: Images in the batch it was run in.
        order: "given", or "reversed" within the batch.
        verdict: One of `VERDICTS`.
        where: "embedding", "block N" or "head": the first place that is not equal, else "".
        block: Its index, if it is a block.
        reason: Why it is not equal, else "".
        counts: Tokens after each block in the file.
        expected_counts: The same in the reference, deciding by itself.
        overflow: Tokens that the file's budget had no room for, over all blocks.
        flips: The decisions that differ.
        errors: Of each output, by name, the largest relative difference under the same decisions.
        allowed: The tolerance for each.
        top1: Index of the file's largest logit, where it gives logits.
        expected_top1: The same in the reference.
        margin: Relative distance of the reference's closest decision.
        margin_block: Block of that decision.
    """

    number: int
    image: str
    group: str
    batch_size: int
    order: str
    verdict: str
    where: str
    block: int | None
    reason: str
    counts: tuple[int, ...]
    expected_counts: tuple[int, ...]
    overflow: int
    flips: tuple[Flip, ...]
    errors: Mapping[str, float]
    allowed: Mapping[str, float]
    top1: int | None
    expected_top1: int | None
    margin: float
    margin_block: int | None

    def title(self) -> str:
        """Image and batch, for a person."""
        return f"{self.image}, batch {batch_name(self.batch_size, self.order)}"


@dataclass(frozen=True)
class Invariance:
    """One image in a batch, against the same image alone, both in the file.

    Attributes:
        image: Name of the image.
        group: What it belongs to.
        batch_size: Images in the batch.
        order: "given" or "reversed".
        verdict: One of `VERDICTS`; "borderline" where decisions differ that rounding explains.
        block: First block with another decision, or None.
        reason: Why it is not equal, else "".
        errors: Of each output, by name, the largest relative difference.
    """

    image: str
    group: str
    batch_size: int
    order: str
    verdict: str
    block: int | None
    reason: str
    errors: Mapping[str, float]

    def title(self) -> str:
        """Image and batch, for a person."""
        return f"{self.image}, batch {batch_name(self.batch_size, self.order)} against alone"


@dataclass(frozen=True)
class CheckReport:
    """All that a check found.

    Attributes:
        verdict: The worst of all, see `VERDICTS`. In lower precision these tell whether the file
            computes what it states; if it does and is within the bounds of `fidelity`, "bounded",
            if it is not, "fail".
        reason: What is wrong with the file as a whole, or why nothing was compared, else "".
        model: The exported file, or what stands for it.
        checkpoint: The checkpoint file.
        images: Where the images come from.
        comparisons: One for each image, batch size and order.
        invariance: One for each image, batch size above 1 and order.
        blocks: One for each step of each block.
        warnings: What looks wrong without deciding the verdict.
        keep_tokens: The budget of each block in the file, or None.
        masked: How far the published masked form is from what is deployed, if that was asked for.
        precision: Of the file.
        fidelity: In lower precision how near it is to the float32 model.
        products: The file's integer products, if it has any.
        saturates: Whether such products saturate on this processor where weights are too large.
        runtime: What computed the file's results, with its version where that is known.
        pictures: Of a file that takes pictures, how far from timm's what it makes of them is.
        proved_at: "decisions" where the file's inner tensors were compared, else "outputs".
    """

    verdict: str
    reason: str
    model: str
    checkpoint: str
    images: str
    comparisons: tuple[Comparison, ...]
    invariance: tuple[Invariance, ...] = ()
    blocks: tuple[StepSummary, ...] = ()
    warnings: tuple[str, ...] = ()
    keep_tokens: tuple[int, ...] | None = None
    masked: MaskedDistance | None = None
    precision: str = FP32
    fidelity: Fidelity | None = None
    products: Products | None = None
    saturates: bool | None = None
    runtime: str = ONNXRUNTIME
    proved_at: str = DECISIONS
    pictures: PicturesDistance | None = None

    def with_pictures(self, found: PicturesDistance) -> CheckReport:
        """The same, and how pictures are prepared; it fails where that is no rounding."""
        if found.right:
            return replace(self, pictures=found)
        reason = "; ".join(part for part in (self.reason, found.describe()) if part)
        return replace(self, verdict="fail", reason=reason, pictures=found)

    def passed(self, strict: bool = False) -> bool:
        """Whether the verdict is equal or bounded, and when strict nothing in it is borderline."""
        if strict and any(one.verdict == "borderline" for one in self.judged()):
            return False
        return self.verdict in ("equal", "borderline", BOUNDED)

    def judged(self) -> tuple[Comparison | Invariance, ...]:
        """Everything that has a verdict."""
        return (*self.comparisons, *self.invariance)

    def of(self, verdict: str) -> tuple[Comparison, ...]:
        """The comparisons with that verdict."""
        return tuple(c for c in self.comparisons if c.verdict == verdict)

    def fitting(self) -> tuple[int, int]:
        """Images that fit into the budget in every run, and all images."""
        losing = {c.number for c in self.comparisons if c.overflow}
        total = len({c.number for c in self.comparisons})
        return total - len(losing), total

    def told(self) -> list[str]:
        """A line for each image and reason why something is not equal, the worst first."""
        batches: dict[tuple[str, str, str, str], list[str]] = {}
        for verdict in VERDICTS:
            for one in self.judged():
                if one.verdict == verdict and one.reason:
                    against = " against alone" if isinstance(one, Invariance) else ""
                    where = batches.setdefault((verdict, one.image, against, one.reason), [])
                    where.append(batch_name(one.batch_size, one.order))
        return [
            f"{verdict} {image}, batch{'es' if where[1:] else ''} {', '.join(where)}{against}: "
            f"{reason}"
            for (verdict, image, against, reason), where in batches.items()
        ]

    def first_failing(self, strict: bool = False) -> Comparison | None:
        """The first comparison that does not pass; of an image in a batch that is not as alone."""
        passing = ("equal",) if strict else ("equal", "borderline")
        failing = {
            (i.image, i.batch_size, i.order) for i in self.invariance if i.verdict not in passing
        }
        for c in self.comparisons:
            if c.verdict not in passing or (c.image, c.batch_size, c.order) in failing:
                return c
        return None

    def require(self, besides: str = "") -> None:
        """Do nothing if the check passed.

        Args:
            besides: What else is to be said of the file where it did not.

        Raises:
            CheckFailedError: It did not; the message names the first failing image.
        """
        if not self.passed():
            reason = f"{self.reason} ({besides})".strip() if besides else self.reason
            raise CheckFailedError(replace(self, reason=reason).headline())

    def headline(self) -> str:
        """Why the check did not pass, in one line."""
        wrong = [one for v in ("fail", "inconclusive") for one in self.judged() if one.verdict == v]
        if not wrong:
            return self.reason
        first = f"{wrong[0].title()}: {wrong[0].reason}"
        line = f"{len(wrong)} of {len(self.judged())} comparisons do not pass; the first is {first}"
        return f"{self.reason}; {line}" if self.reason else line

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `schemas/check.schema.json` describes; NaN and infinity become null."""
        document = asdict(self) | {
            "schema_version": SCHEMA_VERSION,
            "kind": "check",
            "allowed": {"factor": ROUNDING_FACTOR, "least": LEAST_ALLOWED, "mean": MEAN_FACTOR},
            "borderline": {"factor": BOUND_FACTOR, "least": LEAST_BOUND},
        }
        if self.fidelity is not None:
            document["fidelity"]["bounds"] = self.fidelity.bounds._asdict()
        for written, comparison in zip(document["comparisons"], self.comparisons, strict=True):
            written["flips"] = [flip.to_json() for flip in comparison.flips]
        return dict(plain(document))


def worst(judged: Iterable[Comparison | Invariance]) -> str:
    """The verdict of several together; of none, "inconclusive"."""
    found = {one.verdict for one in judged}
    return next((v for v in VERDICTS if v in found), "inconclusive")


def batch_name(size: int, order: str) -> str:
    """A batch, for a person."""
    return str(size) if order == "given" else f"{size} {order}"
