"""Keeping the tokens that a small network prefers, in PyTorch (DynamicViT)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ltmp_export.steps.predict.step import Predict
from ltmp_export.steps.tokens import Choice, Decision, Tokens, Verdict, first


@dataclass(frozen=True, kw_only=True)
class Prediction(Decision):
    """Who stays, by log-probabilities."""

    @property
    def unit(self) -> Tensor:
        """Errors of logarithms are absolute."""
        return torch.ones_like(self.score)


def take(
    step: Predict, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Keep those of the highest scores."""
    protected = tokens.protected
    own = scores(step, tokens.x[protected:], weights)
    score = torch.cat([own.new_full((protected,), torch.inf), own])
    verdict = choose(step, score)
    decision = Prediction(step, verdict.threshold, score, verdict.chosen, verdict.order, protected)
    order = verdict.order if forced is None else forced.order
    return tokens.take(torch.arange(len(score)) if order is None else order), decision


def choose(step: Predict, score: Tensor) -> Verdict:
    """Protected tokens, whose score is +inf, and the highest, in the order of their scores."""
    number = int(score.isposinf().sum()) + step.keep
    verdict, ranking = first(score, number)
    return verdict._replace(order=ranking[:number])


def scores(step: Predict, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """[n, C] patch tokens → [n] log-probabilities that they stay."""

    def of(layer: str) -> tuple[Tensor, Tensor]:
        named = (weights[f"{step.name}.{layer}.{part}"] for part in ("weight", "bias"))
        weight, bias = (value.to(x.dtype) for value in named)
        return weight, bias

    normed = F.layer_norm(x, x.shape[-1:], *of("in_conv.0"), step.eps)
    hidden = F.gelu(F.linear(normed, *of("in_conv.1")))  # [n, C]
    half = hidden.shape[1] // 2
    pooled = hidden[:, half:].mean(0, keepdim=True) + step.floor  # [1, C / 2]
    z = torch.cat([hidden[:, :half], pooled.expand(len(x), -1)], 1)
    for layer in ("out_conv.0", "out_conv.2"):
        z = F.gelu(F.linear(z, *of(layer)))
    return F.linear(z, *of("out_conv.4")).log_softmax(-1)[:, 0]
