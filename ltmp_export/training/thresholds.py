"""Thresholds that learn, for a share of the multiply-accumulates, or of the dense model's time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ltmp_export.plan.plan import dense_plan
from ltmp_export.plan.vit import Vit
from ltmp_export.training.budget import mac_ratio, time_share
from ltmp_export.training.forms import ALIGNED
from ltmp_export.training.goal import Goal
from ltmp_export.training.model import MaskedVit
from ltmp_export.training.processes import Process
from ltmp_export.training.record import Part, Record
from ltmp_export.training.settings import Settings

TIME = "time_share"  # of the dense model's, among the terms


class Thresholds(Goal):
    """A threshold for each step of each block; the weights only where the settings say so.

    The budget term needs the mean mask over all images of a step, so processes tell it each other,
    and a step in parts first runs all parts for it.

    Args:
        model: What is trained; frozen but for its thresholds unless `settings.train_all`.
        vit: Its geometry.
        settings: How.
    """

    figures = 1

    def __init__(self, model: MaskedVit, vit: Vit, settings: Settings) -> None:
        self.model: MaskedVit = model
        self.vit, self.settings = vit, settings
        self.plan = dense_plan(vit.depth)  # thresholds have no work beside what the counts tell
        self.target = settings.reduction_target
        if settings.time is not None:
            self.figures, self.terms = 2, (TIME,)
        model.vit.requires_grad_(settings.train_all is not None)
        self.optimizers = optimizers(model, settings)

    def watched(self) -> Iterable[nn.Parameter]:
        """Thresholds that become NaN would be clamped to nothing."""
        found: Iterable[nn.Parameter] = self.model.thresholds.values()
        return found

    def ahead(self, outputs: Iterable[Any]) -> Tensor:
        """[depth] the mean mask of a step's images, before any of its parts learns."""
        return torch.stack([self._kept(output.alive) for output in outputs]).mean(0)

    def loss(
        self, output: Any, entropy: Tensor, part: Part, ahead: Tensor | None, place: Process
    ) -> tuple[Tensor, list[Tensor]]:
        """Cross-entropy and budget term; tells the MAC ratio, and that of time if it is one."""
        own = self._kept(output.alive)  # [depth]
        mean = place.mean(own.detach() if ahead is None else ahead)
        # forward the mean over all images of the step, backward this part's share of it
        kept = own + (mean - own).detach()
        share = self.share(kept)
        budget = self.settings.budget_weight * (share - self.settings.reduction_target) ** 2
        told = [] if self.settings.time is None else [share.detach()]
        return entropy + budget, [mac_ratio(self.vit, kept.detach()), *told]

    def share(self, kept: Tensor) -> Tensor:
        """What the target is one of, from the mean mask after each block [depth]."""
        time = self.settings.time
        return mac_ratio(self.vit, kept) if time is None else time_share(self.vit, time, kept)

    def record(
        self, epoch: int, number: int, rate: float, entropy: float, accuracy: float,
        told: Sequence[float],
    ) -> Record:  # fmt: skip
        """With the thresholds as they are now."""
        ratio, off = told[0], told[-1] - self.settings.reduction_target
        loss = entropy + self.settings.budget_weight * off**2
        terms = dict(zip(self.terms, told[1:], strict=True))
        return Record(epoch, number, loss, entropy, accuracy, ratio, rate, self.thresholds(), terms)

    def settle(self) -> None:
        """Bring every threshold back into [0, 1]."""
        self.model.clamp()

    def thresholds(self) -> dict[str, list[float]]:
        """The thresholds as they are, per kind one for each block."""
        return self.model.values()

    def own(self) -> Mapping[str, Tensor]:
        """Nothing but thresholds."""
        return {}

    def deployed(self) -> nn.Module:
        """What the thresholds do when they are deployed, in whichever form they were trained."""
        model = self.model
        return MaskedVit(model.vit, model.family, self.thresholds(), ALIGNED, plan=model.plan)

    def _kept(self, alive: Sequence[Tensor]) -> Tensor:
        rows = self.vit.tokens
        return torch.stack([mask.sum() / (len(mask) * rows) for mask in alive])


def optimizers(model: MaskedVit, settings: Settings) -> list[torch.optim.Optimizer]:
    """Plain SGD for the thresholds (METHOD §1); AdamW without decay for all else, if it learns."""
    groups = [
        {"params": [values], "lr": settings.lr[kind], "initial_lr": settings.lr[kind]}
        for kind, values in model.thresholds.items()
    ]
    made: list[torch.optim.Optimizer] = [torch.optim.SGD(groups)]
    if settings.train_all is not None:
        rate = settings.train_all
        rest = {"params": list(model.vit.parameters()), "lr": rate, "initial_lr": rate}
        made.append(torch.optim.AdamW([rest], weight_decay=0.0))
    return made
