"""Where a token lies that several have become, and what similarity knows of it: stated choices."""

from __future__ import annotations

from ltmp_export.errors import InputError

MEAN, DESTINATION = "mean", "destination"
MERGED = (MEAN, DESTINATION)  # the mean of its patches' places, or that of the one merged into
UNROTATED, ROTATED = "unrotated", "rotated"
METRIC = (UNROTATED, ROTATED)  # keys before they are turned, or after

ROTARY, RELATIVE = "rotary", "relative"
KINDS = (ROTARY, RELATIVE, "")


def require_none(geometry: object) -> None:
    """Check that attention knows nothing of places, where mixtures of patches stay mixed.

    Raises:
        InputError: It does, and a mixture lies nowhere.
    """
    kind: str = getattr(geometry, "positions", "")
    if kind:
        raise InputError(
            "state --restore: attention of this model knows where tokens lie, and a mixture of "
            "patches, which stays with the default, lies nowhere"
        )
