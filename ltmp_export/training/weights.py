"""Weights that learn under a static plan, by labels and by what the dense model says."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltmp_export.plan.vit import Vit
from ltmp_export.plan.work import executed_share
from ltmp_export.training.bottleneck import Bottleneck
from ltmp_export.training.goal import Goal
from ltmp_export.training.processes import Process
from ltmp_export.training.record import Part, Record
from ltmp_export.training.settings import StaticSettings
from ltmp_export.training.static_model import StaticVit

CLIP = 1.0  # the most that the norm of a step's gradient may be
LR_NEW = 5e-3
DISTILLATION, BOTTLENECK = "distillation", "bottleneck"
_BEGINS = 0.3  # share of the epochs before the bottleneck's term counts


class Weights(Goal):
    """All weights of a ViT, and the reduction's own.

    Args:
        model: What is trained. The dense model that teaches it, if one does, is its ViT as it is
            now, nothing reduced.
        vit: Its geometry.
        settings: How.
    """

    def __init__(self, model: StaticVit, vit: Vit, settings: StaticSettings) -> None:
        self.model: StaticVit = model
        self.settings, self.plan = settings, model.plan
        self.ratio = executed_share(vit, self.plan, [self.plan.counts(vit.tokens, vit.prefix)])
        self.teacher: nn.Module | None = None
        self.bottleneck: Bottleneck | None = None
        self.epoch = 0
        if settings.distil:
            self.teacher = copy.deepcopy(model.vit).eval().requires_grad_(False)
        if settings.bottleneck:
            device = next(model.parameters()).device
            self.bottleneck = Bottleneck(vit.classes, vit.width, device)
        weighed = {DISTILLATION: settings.distil, BOTTLENECK: settings.bottleneck}
        self.terms = tuple(name for name, weight in weighed.items() if weight)
        self.figures = len(self.terms)
        model.requires_grad_(True)
        self.optimizers = [optimizer(model, settings)]

    def watched(self) -> Iterable[nn.Parameter]:
        """All that learns."""
        return self.model.parameters()

    def begin(self, epoch: int, step: int) -> None:
        """The bottleneck is told of a new epoch."""
        self.epoch = epoch
        if self.bottleneck is not None and not step:
            self.bottleneck.begin()

    def state(self) -> Mapping[str, Tensor]:
        """The bottleneck's."""
        return {} if self.bottleneck is None else self.bottleneck.state()

    def loss(
        self, output: Any, entropy: Tensor, part: Part, ahead: Tensor | None, place: Process
    ) -> tuple[Tensor, list[Tensor]]:
        """(1 - d) · cross-entropy + d · KL(dense ‖ reduced) + w · bottleneck; tells the terms."""
        loss, told = entropy, []
        if self.teacher is not None:
            with torch.no_grad(), place.autocast(self.settings.precision):
                taught = self.teacher.to(place.device)(part.images)
            apart = divergence(taught.float(), output.logits.float())
            told.append(apart.detach())
            loss = (1 - self.settings.distil) * entropy + self.settings.distil * apart
        if self.bottleneck is not None:
            features = output.entering.float(), output.leaving.float(), part.labels
            term = torch.zeros_like(entropy)
            if self.bottleneck.ready and self.epoch >= _BEGINS * self.settings.epochs:
                term = self.bottleneck.term(*features)
            self.bottleneck.add(*features, place)
            told.append(term.detach())
            loss = loss + self.settings.bottleneck * term
        return loss, told

    def record(
        self, epoch: int, number: int, rate: float, entropy: float, accuracy: float,
        told: Sequence[float],
    ) -> Record:  # fmt: skip
        """With the terms of the loss."""
        terms, share = dict(zip(self.terms, told, strict=True)), self.settings.distil
        loss = (1 - share) * entropy + share * terms.get(DISTILLATION, 0.0)
        loss += self.settings.bottleneck * terms.get(BOTTLENECK, 0.0)
        return Record(epoch, number, loss, entropy, accuracy, self.ratio, rate, {}, terms)

    def limit(self, scaler: torch.amp.GradScaler) -> None:
        """Bring the norm of all gradients together to at most `CLIP`."""
        for one in self.optimizers:
            scaler.unscale_(one)
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)

    def thresholds(self) -> dict[str, list[float]]:
        """There are none."""
        return {}

    def own(self) -> Mapping[str, Tensor]:
        """The reduction's own weights, by their names in a checkpoint."""
        return self.model.own()

    def deployed(self) -> nn.Module:
        """The model itself."""
        return self.model


def divergence(taught: Tensor, logits: Tensor) -> Tensor:
    """KL(taught ‖ given) of the classes' probabilities, both logits [B, classes]; mean, in nats."""
    wanted, given = taught.log_softmax(1), logits.log_softmax(1)
    return F.kl_div(given, wanted, reduction="batchmean", log_target=True)


def optimizer(model: StaticVit, settings: StaticSettings) -> torch.optim.Optimizer:
    """AdamW without decay: a rate for the ViT, another for what the reduction has of its own."""
    new = LR_NEW if settings.lr_new is None else settings.lr_new
    rates = [(list(model.vit.parameters()), settings.lr), (list(model.new), new)]
    groups = [{"params": p, "lr": rate, "initial_lr": rate} for p, rate in rates if p]
    return torch.optim.AdamW(groups, weight_decay=0.0)
