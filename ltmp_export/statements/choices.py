"""What a user may state about a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ltmp_export import families

# What the parts of a stated choice may be.
_KINDS: Mapping[str, tuple[type, ...]] = {
    "family": (str,),
    "model": (str,),
    "use_ema": (bool,),
    "head_name": (str,),
    "num_heads": (int,),
    "image_size": (int,),
    "mean": (int, float),
    "std": (int, float),
    "rate": (str,),
    "reduction_target": (int, float),
    "merge_at": (int,),
    "merge_scale": (str,),
    "merge_weights": (str,),
    "keep_rate": (int, float),
    "keep_rule": (str,),
    "fuse_token": (bool,),
    "grid_rounding": (str,),
    "diffrate": (str,),
    "budget": (str,),
    "dominant": (int,),
    "contextual": (int,),
    "compression_ratio": (int, float),
    "hard": (bool,),
    "restore": (bool,),
    "merged_position": (str,),
    "metric_position": (str,),
    "pool": (str,),
    "act": (str,),
    "norm_eps": (int, float),
    "assume_defaults": (bool,),
}
# What only some families take, which then say so (`families.Family.stated`).
OF_FAMILIES = (
    "merge_at", "merge_scale", "merge_weights", "keep_rate", "keep_rule", "fuse_token",
    "grid_rounding", "diffrate", "budget", "dominant", "contextual",
    "compression_ratio", "hard", "restore",
)  # fmt: skip
# What is stated for one family alone, and which.
_TELLING = {"diffrate": "diffrate", "dominant": "visionzip", "contextual": "visionzip"}
_LISTS = ("image_size", "mean", "std", "merge_at")

WAYS = ("rate", "reduction_target", "keep_rate", "compression_ratio")  # to say how much goes


@dataclass(frozen=True)
class Choices:
    """What a user may state about a checkpoint; None leaves it to the file.

    Attributes:
        family: One of `families.names()`.
        model: timm name of the dense model.
        base_checkpoint: Weights of a thresholds-only checkpoint: a file, or `timm:NAME`.
        use_ema: Take averaged weights (True), never (False), or only where there are no others.
        head_name: The layer that is the classifier, as the file names it; "none": there is none.
        num_heads: Attention heads.
        image_size: (height, width) in pixels; the position embedding is resized to it.
        mean: Per-channel mean of the normalisation, in [0, 1].
        std: Per-channel standard deviation of the normalisation.
        rate: Tokens that each block takes in a family with a fixed number, as
            `checkpoint.rates.parse` reads it.
        reduction_target: Share of the multiply-accumulates to be left instead, which picks r.
        merge_at: Blocks before which PatchMerger's layers stand, or behind whose attention patches
            are selected and merged.
        merge_scale: "one" or "sqrt": PatchMerger's scores as they are, or divided by √C.
        merge_weights: Of the mean of what merges, one of `steps.mergence.step.WEIGHTINGS`.
        keep_rate: Share of the patches that each selection keeps.
        keep_rule: How many patches that is, one of `plan.kept.RULES`.
        fuse_token: Whether the patches that are not kept become a token.
        grid_rounding: How float32 rounded the grid of a pattern, one of `plan.rings.ROUNDINGS`.
        diffrate: DiffRate's counts: a `compression_rate.json`, as text.
        budget: Which of them: a budget in it, or MODEL:BUDGET.
        dominant: Tokens that stay behind a tower, the class token among them (VisionZip).
        contextual: Tokens that all others become there.
        compression_ratio: Share of the patches that a mask leaves.
        hard: Whether a mask gives each patch to one target.
        restore: Whether the patches are there again behind each block that merges.
        merged_position: Where a token lies that several have become, one of
            `plan.positions.MERGED`.
        metric_position: Which keys tokens are compared by, one of `plan.positions.METRIC`.
        pool: "token" (class token) or "avg" (over patches).
        act: Activation of the MLPs, one of `plan.geometry.ACTIVATIONS`.
        norm_eps: Epsilon of every LayerNorm.
        assume_defaults: Take what is usual where it would be asked for otherwise.
    """

    family: str | None = None
    model: str | None = None
    base_checkpoint: Path | None = None
    use_ema: bool | None = None
    head_name: str | None = None
    num_heads: int | None = None
    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    rate: str | None = None
    reduction_target: float | None = None
    merge_at: tuple[int, ...] | None = None
    merge_scale: str | None = None
    merge_weights: str | None = None
    keep_rate: float | None = None
    keep_rule: str | None = None
    fuse_token: bool | None = None
    grid_rounding: str | None = None
    diffrate: str | None = None
    budget: str | None = None
    dominant: int | None = None
    contextual: int | None = None
    compression_ratio: float | None = None
    hard: bool | None = None
    restore: bool | None = None
    merged_position: str | None = None
    metric_position: str | None = None
    pool: str | None = None
    act: str | None = None
    norm_eps: float | None = None
    assume_defaults: bool | None = None

    def named(self) -> tuple[Choices, tuple[str, ...]]:
        """The same with the family's own name, and what is to be said of another one.

        What is stated for one family alone names it, too.
        """
        if self.family is None:
            told = [one for name, one in _TELLING.items() if getattr(self, name) is not None]
            return (replace(self, family=told[0]) if told else self), ()
        own = families.ALIASES.get(self.family)
        if own is None:
            return self, ()
        return replace(self, family=own), (f"{self.family} is family {own} here",)

    def to_json(self) -> dict[str, Any]:
        """What was stated, as plain values; the base checkpoint's path is left out."""
        values = asdict(self) | {"base_checkpoint": None}
        return {key: value for key, value in values.items() if value is not None}

    def over(self, earlier: Choices) -> Choices:
        """These, and what was stated earlier where these say nothing."""
        stated = {key: value for key, value in vars(self).items() if value is not None}
        same = dict.fromkeys(WAYS)
        if any(getattr(self, way) is not None for way in same):  # ways to say the same
            earlier = replace(earlier, **same)
        return replace(earlier, **stated)

    @property
    def rated(self) -> bool:
        """Whether it is said how many tokens each block takes."""
        return self.rate is not None or self.reduction_target is not None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Choices:
        """The inverse of `to_json`.

        Raises:
            ValueError: A value is not of its kind.
            TypeError: There is no choice of that name.
        """
        pairs: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        for key, value in pairs.items():
            parts = value if isinstance(value, tuple) else (value,)
            listed = key in _LISTS
            if isinstance(value, tuple) != listed or (key == "image_size" and len(parts) != 2):
                raise ValueError(f"{key} cannot be {value!r}")
            kinds = _KINDS.get(key, ())
            if not all(type(part) in kinds for part in parts):
                raise ValueError(f"{key} cannot be {value!r}")
        return cls(**pairs)
