"""Merging of even rows into odd ones, eager: what `merge`, `merge_most` share (METHOD §1, 3-4)."""

from __future__ import annotations

import torch
from torch import Tensor

from ltmp_export.plan import pairing
from ltmp_export.plan.scores import IMPORTANCE, METRIC
from ltmp_export.plan.step import Step
from ltmp_export.steps.positions import Positions
from ltmp_export.steps.tokens import Choice, Matching, Tokens, choose


def merge(step: Step, tokens: Tokens, forced: Choice | None) -> tuple[Tokens, Matching]:
    """Merge even rows into their most similar odd rows.

    Returns:
        The tokens in the order [unmerged sources ; all destinations], x the size-weighted mean,
        size the sum and importance the maximum of what went into each; and the decision. Protected
        destinations come right after the protected sources.
    """
    decision = match(step, tokens)
    source, destination = slice(0, None, 2), slice(1, None, 2)
    merged, partners, order = decision.chosen, decision.partner, decision.order  # [Ns]
    if forced is not None and forced.partner is not None:
        merged, partners, order = forced.chosen, forced.partner, forced.order
    partner = partners[merged]  # [K]
    stay = torch.nonzero(~merged)[:, 0] if order is None else order

    weighted = tokens.x * tokens.size[:, None]  # [N, C]
    x = weighted[destination].index_add(0, partner, weighted[source][merged])  # [Nd, C]
    size = tokens.size[destination].index_add(0, partner, tokens.size[source][merged])
    size = torch.cat([tokens.size[source][stay], size])  # [N - K]
    scores = {name: torch.cat([s[source][stay], s[destination]]) for name, s in
              tokens.scores.items()}  # fmt: skip
    if IMPORTANCE in scores:
        own = tokens.scores[IMPORTANCE]
        received = own[destination].scatter_reduce(0, partner, own[source][merged], "amax")
        scores[IMPORTANCE] = torch.cat([own[source][stay], received])
    result = Tokens(
        x=torch.cat([weighted[source][stay], x]) / size[:, None],
        size=size,
        scores=scores,
        protected=tokens.protected,
        members=_members(tokens, stay, merged, partner),
        positions=_positions(tokens, stay, merged, partner),
    )
    return result.take(_protected_first(tokens.protected, len(stay), len(size))), decision


def _members(tokens: Tokens, stay: Tensor, merged: Tensor, partner: Tensor) -> Tensor | None:
    """The patches of [unmerged sources ; destinations], where they are followed."""
    if tokens.members is None:
        return None
    sources, destinations = tokens.members[0::2], tokens.members[1::2]
    return torch.cat([sources[stay], destinations.index_add(0, partner, sources[merged])])


def _positions(tokens: Tokens, stay: Tensor, merged: Tensor, partner: Tensor) -> Positions | None:
    """Of [unmerged sources ; destinations]."""
    where = tokens.positions
    if where is None:
        return None
    sources = where.taken(lambda rows: rows[0::2])
    destinations = where.taken(lambda rows: rows[1::2])
    received = destinations.received(partner, sources.taken(lambda rows: rows[merged]))
    return received.taken(lambda rows: torch.cat([sources.rows[stay], rows]))


def _protected_first(protected: int, stay: int, tokens: int) -> Tensor:
    """Rows of [unmerged sources ; destinations], the protected ones in front, in their order."""
    even, odd = (protected + 1) // 2, protected // 2
    rows = torch.arange(tokens)
    front = [stay + row // 2 if row % 2 else row // 2 for row in range(protected)]
    behind = (rows >= even) & ((rows < stay) | (rows >= stay + odd))
    return torch.cat([torch.tensor(front, dtype=torch.long), rows[behind]])


def match(step: Step, tokens: Tokens) -> Matching:
    """Find each source's best destination and decide whether it merges (METHOD §1, step 3)."""
    metric, protected = tokens.scores[METRIC], tokens.protected
    source, destination = metric[0::2], metric[1::2]  # [Ns, D], [Nd, D]
    similarity = source @ destination.mT  # [Ns, Nd]
    similarity[: pairing.protected_sources(protected)] = -torch.inf
    similarity[:, : pairing.protected_destinations(protected)] = -torch.inf
    if not len(destination):  # one token is left
        similarity = source.new_full((len(source), 1), -torch.inf)
    alone = pairing.destinations(len(metric), protected) == 0
    score = similarity.amax(1)
    partner = (similarity == score[:, None]).int().argmax(1)  # the lowest index on a tie
    runner_up = similarity.scatter(1, partner[:, None], -torch.inf).amax(1)
    verdict = choose(step, score)
    return Matching(
        step, verdict.threshold, score, verdict.chosen, verdict.order,
        protected=len(score) if alone else pairing.protected_sources(protected),
        partner=partner, runner_up=runner_up, similarity=similarity[:, : len(destination)],
    )  # fmt: skip
