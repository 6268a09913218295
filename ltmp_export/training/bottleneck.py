"""The information-bottleneck term that LTM-Transformer's authors train with; assumed in METHOD §1.

Of each image there are two features [C]: `entering`, the mean of its patches before the first
block, and `leaving`, what the head classifies. φ(f, k) is a softmax over the classes k of the
negative mean squared difference of f and the class's centre, the mean feature of its images. The
term rewards leaving features that tell the class, and entering ones that do not tell it alone:

    mean over images of Σ_b φ_in(b) · log φ_in(b)  −  mean of Σ_a φ_out(a) · log Q(a | label)

The first sum is Σ_a Σ_b φ_out(a) · φ_in(b) · log φ_in(b), as φ_out sums to 1. Centres, and Q, the
mean φ_out of a class's images, are those of the epoch before.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ltmp_export.training.processes import Process

_SMALLEST = 1e-12  # of a share whose logarithm is taken


class Bottleneck:
    """What is known of the classes, and what this epoch adds to it.

    Args:
        classes: K.
        width: C.
        device: Where the features are.
    """

    def __init__(self, classes: int, width: int, device: torch.device) -> None:
        shapes = {"entering": width, "leaving": width, "shares": classes, "images": 1}
        self.known = {n: torch.zeros(classes, side, device=device) for n, side in shapes.items()}
        self.sums = {name: torch.zeros_like(value) for name, value in self.known.items()}
        self.epochs = torch.zeros(1, device=device)  # that are known

    def begin(self) -> None:
        """Another epoch: what the last one added up is now known."""
        if float(self.sums["images"].sum()):
            for name, value in self.sums.items():
                self.known[name].copy_(value)
                value.zero_()
            self.epochs += 1

    @property
    def ready(self) -> bool:
        """Whether Q is known, which takes an epoch with known centres."""
        return float(self.epochs) >= 2

    def add(self, entering: Tensor, leaving: Tensor, labels: Tensor, place: Process) -> None:
        """Count images of this step in, those of all processes."""
        with torch.no_grad():
            shares = self._shares("leaving", leaving)
            ones = shares.new_ones(len(labels), 1)
            new = {"entering": entering, "leaving": leaving, "shares": shares, "images": ones}
            for name, values in new.items():
                added = torch.zeros_like(self.sums[name]).index_add_(0, labels, values)
                self.sums[name] += place.mean(added) * place.count

    def term(self, entering: Tensor, leaving: Tensor, labels: Tensor) -> Tensor:
        """The loss term of some images, a scalar; features [B, C], labels [B]."""
        inside, outside = self._shares("entering", entering), self._shares("leaving", leaving)
        told = self.known["shares"] / self.known["images"].clamp(min=1)  # [K, K] Q by label
        first = (inside * inside.clamp(min=_SMALLEST).log()).sum(1)
        second = (outside * told[labels].clamp(min=_SMALLEST).log()).sum(1)
        return (first - second).mean()

    def state(self) -> Mapping[str, Tensor]:
        """All of it, to be copied from and to."""
        known = {f"known.{name}": value for name, value in self.known.items()}
        sums = {f"sums.{name}": value for name, value in self.sums.items()}
        return {**known, **sums, "epochs": self.epochs}

    def _shares(self, name: str, features: Tensor) -> Tensor:
        """φ [B, K]; of a class without images 0."""
        images = self.known["images"]  # [K, 1]
        centres = self.known[name] / images.clamp(min=1)
        apart = (features[:, None] - centres).square().mean(2)  # [B, K]
        empty = (images[:, 0] == 0) & (images.sum() > 0)
        return (-apart).masked_fill(empty, -torch.inf).softmax(1)
