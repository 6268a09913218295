"""Clustering patch tokens around peaks of their density, before a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.remaking import Remaking


@dataclass(frozen=True)
class Cluster(Remaking):
    """All patch tokens become `tokens` weighted means of clusters of them (DPC-KNN, METHOD §1).

    With d their distances divided by the root of the width, a token's density is exp(−mean of its
    `neighbours` smallest d², itself included), its peak the smallest d to a token of higher
    density, of the densest one the largest d of the image. Centres are the tokens of the highest
    density times peak; each other goes to the nearest one. Weights of the mean are exp of a linear
    layer. It serves one method: no other's clusters begin with densities.

    Attributes:
        name: Prefix of its weights: `score`, the linear layer.
        tokens: How many clusters.
        neighbours: How many make a density.
        weighted: Whether there is that layer; else all weigh 1.
    """

    on_disk: ClassVar[str] = "Cluster"
    action: ClassVar[str] = "cluster"
    neighbours: int
    weighted: bool = True

    @property
    def decides(self) -> bool:
        """By densities and distances."""
        return True

    @property
    def joins(self) -> bool:
        """Clusters have."""
        return True

    @property
    def number(self) -> int:
        """How many clusters."""
        return self.tokens

    def possible(self, tokens: int, protected: int) -> bool:
        """Of more tokens, and as many as make a density; of an unknown number if there are any."""
        sound = self.neighbours > 0 and super().possible(tokens, protected)
        patches = tokens - protected
        return sound and (not tokens or max(self.tokens + 1, self.neighbours) <= patches)

    def macs(self, tokens: int, protected: int, width: int) -> int:
        """The distances, the sums of clusters, and the layer."""
        patches = tokens - protected
        return patches * width * (patches + self.tokens + self.weighted)

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "clusters before it", str(self.tokens)
