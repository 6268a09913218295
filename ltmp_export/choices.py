"""What a user may state about a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# What the parts of a stated choice may be.
_KINDS: Mapping[str, tuple[type, ...]] = {
    "family": (str,),
    "model": (str,),
    "use_ema": (bool,),
    "num_heads": (int,),
    "image_size": (int,),
    "mean": (int, float),
    "std": (int, float),
}


@dataclass(frozen=True)
class Choices:
    """What a user may state about a checkpoint; None leaves it to the file.

    Attributes:
        family: One of `families.names()`.
        model: timm name of the dense model.
        base_checkpoint: Weights of a thresholds-only checkpoint: a file, or `timm:NAME`.
        use_ema: Take averaged weights (True), never (False), or only where there are no others.
        num_heads: Attention heads.
        image_size: (height, width) in pixels; the position embedding is resized to it.
        mean: Per-channel mean of the normalisation, in [0, 1].
        std: Per-channel standard deviation of the normalisation.
    """

    family: str | None = None
    model: str | None = None
    base_checkpoint: Path | None = None
    use_ema: bool | None = None
    num_heads: int | None = None
    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """What was stated, as plain values; the base checkpoint's path is left out."""
        values = asdict(self) | {"base_checkpoint": None}
        return {key: value for key, value in values.items() if value is not None}

    def over(self, earlier: Choices) -> Choices:
        """These, and what was stated earlier where these say nothing."""
        stated = {key: value for key, value in vars(self).items() if value is not None}
        return replace(earlier, **stated)

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
            listed = key in ("image_size", "mean", "std")
            if isinstance(value, tuple) != listed or (key == "image_size" and len(parts) != 2):
                raise ValueError(f"{key} cannot be {value!r}")
            if not all(isinstance(part, _KINDS.get(key, ())) for part in parts):
                raise ValueError(f"{key} cannot be {value!r}")
        return cls(**pairs)
