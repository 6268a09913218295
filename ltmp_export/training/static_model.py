"""A timm ViT under a plan of fixed token counts, in batches and differentiable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ltmp_export.backbones.positioned import eager as positions
from ltmp_export.backbones.positioned.eager import STILL, Bound
from ltmp_export.backbones.vit import eager
from ltmp_export.errors import InputError
from ltmp_export.plan.plan import Plan, demands
from ltmp_export.plan.scores import CLASS_ATTENTION, IMPORTANCE, METRIC
from ltmp_export.plan.step import Step
from ltmp_export.steps import batches
from ltmp_export.steps.batches import Batch


class Output(NamedTuple):
    """What a batch gives.

    Attributes:
        logits: [B, classes].
        counts: [B, depth] int64 tokens after each block, those before the patches included.
        entering: [B, C] mean of the patches before the first block.
        leaving: [B, C] what the head classifies, before it: normalised and pooled.
    """

    logits: Tensor
    counts: Tensor
    entering: Tensor
    leaving: Tensor


class StaticVit(nn.Module):
    """A plain ViT that takes the steps of a plan, the same number of tokens of every image.

    Args:
        model: timm's model; it is shared, not copied.
        plan: Which steps its blocks take. Its parameters are copied, and learn.

    Raises:
        InputError: A step cannot be trained.
    """

    def __init__(self, model: VisionTransformer, plan: Plan) -> None:
        super().__init__()
        require_trainable(plan)
        self.vit: Any = model
        self.plan = plan
        self.positions = positions.of(model, plan)
        self.names = tuple(plan.parameters)
        self.new = nn.ParameterList(
            nn.Parameter(value.detach().clone()) for value in plan.parameters.values()
        )

    def forward(self, images: Tensor) -> Output:
        """Classify normalised images [B, channels, height, width]."""
        weights = self.own()
        x = eager.embed(self.vit, images)[1]  # [B, N, C]
        where = self.positions.initial(x.detach())
        if where is not None:
            where = where.taken(lambda rows: rows.expand(len(x), -1, -1))
        front = self.vit.num_prefix_tokens
        tokens = Batch(x, x.new_ones(x.shape[:2]), {}, front, positions=where)
        counts = []
        for index, steps in enumerate(self.plan.blocks):
            tokens, rows = self._block(index, steps, tokens, weights)
            counts.append(rows)
        logits = eager.classify(self.vit, tokens.x, tokens.size)
        entering = x[:, self.vit.num_prefix_tokens :].mean(1)
        leaving = eager.pooled(self.vit, self.vit.norm(tokens.x), tokens.size)
        return Output(logits, torch.tensor(counts).expand(len(images), -1), entering, leaving)

    def _block(
        self, index: int, steps: Sequence[Step], tokens: Batch, weights: Mapping[str, Tensor]
    ) -> tuple[Batch, int]:
        """Tokens that leave a block, and on how many its MLP ran."""
        block, at = self.vit.blocks[index], self.positions.at(index, tokens.positions)
        given = made = attend(block, tokens, demands(steps), at)
        with torch.autocast(tokens.x.device.type, enabled=False):  # decisions, in full precision
            for step in steps:
                made = batches.take(step, made, weights)
        left = replace(made, x=eager.feed_forward(block, made.x), scores={})
        with torch.autocast(tokens.x.device.type, enabled=False):
            for step in steps:
                if step.restores:
                    left = batches.restore(step, given, made, left, weights)
        return left, made.x.shape[1]

    def own(self) -> Mapping[str, Tensor]:
        """The reduction's own weights, by their names in a checkpoint."""
        return dict(zip(self.names, self.new, strict=True))


def attend(block: Any, tokens: Batch, wanted: frozenset[str], at: Bound = STILL) -> Batch:
    """The first half of a block, and these scores of its tokens (METHOD §1, steps 1-2)."""
    attn = eager.attends(block)
    q, k, v, beside = eager.project(attn, eager.given(block, 1, tokens.x))  # [B, H, N, D] each
    with torch.autocast(q.device.type, enabled=False):  # what decides, in full precision
        q, k = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in (q, k))
        found = eager.scores(attn, at.turned(q), at.turned(k), tokens.size)
        weights = at.biased(found).softmax(-1)
        scores = {}
        if CLASS_ATTENTION in wanted:
            scores[CLASS_ATTENTION] = _spared(weights[:, :, 0].mean(1), tokens.protected)
        if IMPORTANCE in wanted:
            scores[IMPORTANCE] = _spared(weights.mean(1).mean(1), tokens.protected)
        if METRIC in wanted:
            scores[METRIC] = eager.unit(at.of_metric(k).mean(1))
    attended = eager.mix(attn, weights.to(v.dtype), v, beside)
    return replace(tokens, x=tokens.x + eager.scaled(block, 1, attended), scores=scores)


def _spared(score: Tensor, protected: int) -> Tensor:
    """[B, N] with +inf for the rows that always stay."""
    first = torch.arange(score.shape[1], device=score.device) < protected
    return score.masked_fill(first, torch.inf)


def require_trainable(plan: Plan) -> None:
    """Check that every step of a plan can be taken of a batch.

    Raises:
        InputError: One cannot.
    """
    if plan.before:
        raise InputError(f"family {plan.family} cannot be trained: its steps stand before blocks")
    for step in (step for steps in plan.blocks for step in steps):
        try:
            batches.require(type(step))
        except InputError as err:
            raise InputError(f"family {plan.family} cannot be trained: {err}") from err
