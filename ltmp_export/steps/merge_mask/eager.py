"""Merging by a learned mask, in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from ltmp_export.steps.merge_mask.step import EPS, MASK, TARGET, MergeMask
from ltmp_export.steps.tokens import Choice, Decision, Partners, Tokens, Verdict, above

_NOBODY = -1.0  # what a patch gives a target that it does not go to


@dataclass(frozen=True, kw_only=True)
class Masking(Decision):
    """The mask, or which targets it reaches, and to which one each patch goes.

    Scores are the mask [S · N · P] where patches are restored, so that nothing is decided by them;
    else [S · P] the largest weight that each target gets, before what is negative becomes 0.

    Attributes:
        into: Of all tokens, among the targets of their set; None where the mask is soft.
    """

    protected: int = 0
    into: Partners | None

    @property
    def unit(self) -> Tensor:
        """Weights of a mask are taken as they are."""
        return torch.ones_like(self.score)

    @property
    def partners(self) -> Partners | None:
        """Where a patch goes."""
        return self.into

    def row(self, index: int) -> int:
        """The patch of a weight, among the patches; or the target."""
        if isinstance(self.step, MergeMask) and self.step.restore:
            return index // self.step.tokens
        return index


def take(
    step: MergeMask, tokens: Tokens, forced: Choice | None, weights: Mapping[str, Tensor]
) -> tuple[Tokens, Decision]:
    """Patches [S · N, C] → [S · P, C] behind the protected ones; the mask is handed on."""
    protected = tokens.protected
    z = tokens.x[protected:].reshape(step.sets, step.of, -1)
    before = weights[step.start].to(z.dtype) if step.first else tokens.handed[MASK]
    raw = mask(step, z, before, weights)
    soft, gives = raw.relu(), raw
    into = _partners(soft, protected) if step.hard else None
    used, target = soft, None
    if into is not None:
        index = into.index if forced is None or forced.partner is None else forced.partner
        target = index[protected:].reshape(step.sets, step.of, 1)
        used = torch.zeros_like(soft).scatter(2, target, soft.gather(2, target))
        gives = torch.full_like(raw, _NOBODY).scatter(2, target, raw.gather(2, target))
    score = soft.flatten() if step.restore else gives.amax(1).flatten()
    verdict = choose(step, score)
    alive = verdict.chosen if forced is None else forced.chosen
    merged = column_shares(used).mT @ z  # [S, P, C]
    size = tokens.size.new_ones(protected + step.sets * step.tokens)
    if not step.restore:
        size[protected:] = _living(step, alive, protected).to(size.dtype)
    left = replace(
        tokens,
        x=torch.cat([tokens.x[:protected], merged.flatten(0, 1)]),
        size=size,
        scores={},
        handed={MASK: used} | ({} if target is None else {TARGET: target}),
        members=_members(step, tokens, used) if step.hard else None,
    )
    decision = Masking(step, verdict.threshold, score, verdict.chosen, None, into=into)
    return left, decision


def _members(step: MergeMask, tokens: Tokens, used: Tensor) -> Tensor | None:
    """The patches of each target by a hard mask [S, N, P], where they are followed."""
    if tokens.members is None:
        return None
    own, patches = tokens.members[: tokens.protected], tokens.members[tokens.protected :]
    goes = (used > 0).mT.to(patches.dtype)  # [S, P, N]
    return torch.cat([own, (goes @ patches.reshape(step.sets, step.of, -1)).flatten(0, 1)])


def restore(
    step: MergeMask, given: Tokens, made: Tokens, left: Tokens, weights: Mapping[str, Tensor]
) -> Tokens:
    """Z + rownorm(G) · (what the MLP made of X̃ - X̃); protected rows as the MLP left them."""
    protected = given.protected
    change = (left.x - made.x)[protected:].reshape(step.sets, step.tokens, -1)
    used = made.handed[MASK]
    shares = used / (used.sum(2, keepdim=True) + EPS)
    patches = given.x[protected:] + (shares @ change).flatten(0, 1)
    x = torch.cat([left.x[:protected], patches])
    return replace(given, x=x, scores={}, handed=made.handed)


def choose(step: MergeMask, score: Tensor) -> Verdict:
    """Targets that get anything; of a mask that is restored, all there is."""
    return above(score, -torch.inf if step.restore else 0.0)


def mask(step: MergeMask, z: Tensor, before: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """What relu makes the mask [..., N, P] of patches [..., N, C] of, see `MergeMask`.

    Columns that were empty before are all alike: if it will be hard, only the first of them keeps
    its weights, which is where ties lead, whatever the products round to.

    Args:
        step: What is asked.
        z: Patches behind attention.
        before: [..., N, P] the mask before.
        weights: Of the reduction.
    """
    names = (f"{step.name}.center", f"{step.name}.step")
    center, rate = (weights[name].to(z.dtype) for name in names)
    unit = layer_norm(z, z.shape[-1:], eps=EPS)
    apart = column_shares(before).mT @ unit - center  # [..., P, C]
    apart = apart - apart.mean(-2, keepdim=True)
    found = before - rate * (unit @ apart.mT) / z.shape[-1]
    if not step.hard:
        return found
    empty = (before == 0).all(-2, keepdim=True)  # [..., 1, P]
    return found.masked_fill(empty & (empty.cumsum(-1) > 1), 0.0)


def column_shares(used: Tensor) -> Tensor:
    """[..., N, P], each column divided by its sum + 1e-6."""
    return used / (used.sum(-2, keepdim=True) + EPS)


def _living(step: MergeMask, alive: Tensor, protected: int) -> Tensor:
    """[S · P] bool, targets that stand for a token: of a set without any and without others all."""
    by_set = alive.reshape(step.sets, step.tokens)
    if not protected:
        by_set = by_set | ~by_set.any(1, keepdim=True)
    return by_set.flatten()


def _partners(soft: Tensor, protected: int) -> Partners:
    """The target of the largest weight of each patch, of equal ones the lowest."""
    weights = torch.cat([soft.new_zeros(protected, soft.shape[2]), soft.flatten(0, 1)])
    best = weights.amax(1)
    index = (weights == best[:, None]).int().argmax(1)
    runner_up = weights.scatter(1, index[:, None], -torch.inf).amax(1)
    moved = torch.arange(len(weights)) >= protected
    return Partners(moved, index, best, runner_up, weights)


def along(step: MergeMask, left: Tokens, x: Tensor) -> Tensor:
    """What lies where the patches lay [S · N, any] → [S · P, any], by the same mask."""
    shares = column_shares(left.handed[MASK])
    return (shares.mT @ x.reshape(step.sets, step.of, -1)).flatten(0, 1)
