"""Which tokens a mask means: two masked forms of the same method.

`ALIGNED` takes the decisions of the deployed model: sources and destinations are every other one of
the *living* tokens, importance is the mean over *living* queries, and after each step the living
tokens come first, in the order of inference. Dead tokens follow, seen by nobody.

`PUBLISHED` is the masked form of the paper's training code, as METHOD §1 describes it: every other
one of *all* rows, importance over *all* queries. Its decisions are others from block 1 on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ltmp_export.backbones.positioned.eager import STILL, Bound
from ltmp_export.backbones.vit import eager
from ltmp_export.training.masked import Masked, merge, prune, similarities

_EPSILON = 1e-5  # of the published form's normalisation while training (METHOD §1)
_MOST = 5.0  # exponent of a dead token's attention: its gradient must not drown all others


@dataclass(frozen=True)
class Form:
    """A masked form.

    Attributes:
        name: "aligned" or "published".
        attend: From logits [B, H, N, N] in float32, the mask [B, N] and whether it is training:
            attention [B, H, N, N] and importance [B, N].
        merge: From tokens, θm and τ to tokens.
        prune: From tokens, θp and τ to tokens.
        compact: Whether the living tokens come first, so that rows dead in all images can go.
    """

    name: str
    attend: Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor]]
    merge: Callable[[Masked, Tensor, float], Masked]
    prune: Callable[[Masked, Tensor, float], Masked]
    compact: bool


def attention(
    attn: Any,
    x: Tensor,
    size: Tensor,
    alive: Tensor,
    form: Form,
    training: bool,
    at: Bound = STILL,
    protected: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Proportional attention under a mask (METHOD §1, steps 1-2).

    Args:
        attn: timm's attention module.
        x: [B, N, C] normalised tokens.
        size: [B, N] patches per token.
        alive: [B, N] the mask.
        form: What the mask means.
        training: Whether the published form smooths its weights.
        at: What the places of the tokens do.
        protected: Rows in front that are always kept.

    Returns:
        The projected output [B, N, C], the importance [B, N] (of protected rows +inf), the metric
        [B, N, D] (unit norm).
    """
    q, k, v, beside = eager.project(attn, x)  # [B, H, N, D] each
    with torch.autocast(x.device.type, enabled=False):  # what decides, in full precision
        q, k = q.float(), k.float()
        logits = at.biased(eager.scores(attn, at.turned(q), at.turned(k), size))
        weights, mean = form.attend(logits, alive, training)
        spared = torch.arange(mean.shape[1], device=mean.device) < protected
        importance = mean.masked_fill(spared, torch.inf)
        metric = eager.unit(at.of_metric(k).mean(1))
    return eager.mix(attn, weights.to(v.dtype), v, beside), importance, metric


def _aligned_attend(logits: Tensor, alive: Tensor, training: bool) -> tuple[Tensor, Tensor]:
    seen = alive[:, None, None]  # [B, 1, 1, N]
    highest = logits.detach().masked_fill(seen == 0, -torch.inf).amax(-1, keepdim=True)
    weights = (logits - highest).clamp(max=_MOST).exp() * seen
    weights = weights / weights.sum(-1, keepdim=True)
    queries = (alive / alive.sum(1, keepdim=True))[:, :, None]  # [B, N, 1]
    return weights, (weights.mean(1) * queries).sum(1)


def _aligned_merge(tokens: Masked, threshold: Tensor, tau: float) -> Masked:
    return _living_first(merge(tokens, _aligned_similarity(tokens), threshold, tau))


def _aligned_similarity(tokens: Masked) -> Tensor:
    similarity = similarities(tokens.metric, tokens.protected)
    return similarity.masked_fill(tokens.alive[:, None, 1::2] == 0, -torch.inf)


def _aligned_prune(tokens: Masked, threshold: Tensor, tau: float) -> Masked:
    return _living_first(prune(tokens, threshold, tau))


def _living_first(tokens: Masked) -> Masked:
    """Stable compaction: the living in their order, then the dead in theirs."""
    return tokens.take((tokens.alive == 0).to(torch.uint8).argsort(dim=1, stable=True))


def candidates(kind: str, tokens: Masked) -> Tensor:
    """The scores that a step compares with its threshold in the aligned form, of all images, [n].

    Those of living tokens without the protected; of sources that have a destination.
    """
    if kind == "prune":
        behind = tokens.protected
        return tokens.importance[:, behind:][tokens.alive[:, behind:] > 0]
    best = _aligned_similarity(tokens).amax(2)  # [B, Ns]
    return best[(tokens.alive[:, 0::2] > 0) & best.isfinite()]


def _published_attend(logits: Tensor, alive: Tensor, training: bool) -> tuple[Tensor, Tensor]:
    weights = (logits - logits.amax(-1, keepdim=True)).exp() * alive[:, None, None]
    smooth = _EPSILON if training else 0.0
    total = weights.sum(-1, keepdim=True) + smooth
    weights = (weights + smooth / weights.shape[-1]) / total
    return weights, weights.mean((1, 2))


def _published_merge(tokens: Masked, threshold: Tensor, tau: float) -> Masked:
    metric = tokens.metric * (tokens.alive > 0)[:, :, None]
    similarity = similarities(metric, tokens.protected)
    return merge(tokens, similarity, threshold, tau, published=True)


def _published_prune(tokens: Masked, threshold: Tensor, tau: float) -> Masked:
    return prune(tokens, threshold, tau, published=True)


ALIGNED = Form("aligned", _aligned_attend, _aligned_merge, _aligned_prune, True)
PUBLISHED = Form("published", _published_attend, _published_merge, _published_prune, False)
FORMS = {form.name: form for form in (ALIGNED, PUBLISHED)}
