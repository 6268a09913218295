"""The method as its paper states it: eager, one image at a time, on timm's own submodules.

This is what an exported file is compared with. It shares no code with the exported form.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from ltmp_export.backbones import chosen
from ltmp_export.backbones.positioned import eager as positions
from ltmp_export.backbones.positioned.eager import STILL, Bound
from ltmp_export.backbones.trace import Trace
from ltmp_export.backbones.vit import eager as vit
from ltmp_export.backbones.vit import ownership
from ltmp_export.errors import InputError
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.outputs import FEATURES, OWNERS
from ltmp_export.plan.plan import Plan, dense_plan
from ltmp_export.plan.scores import CLASS_ATTENTION, CLASS_VALUES, IMPORTANCE, METRIC
from ltmp_export.plan.step import Step
from ltmp_export.precision import eager as rounded
from ltmp_export.precision.eager import Taken
from ltmp_export.precision.widened import widened
from ltmp_export.steps.tokens import Choice, Decision, Tokens, restore, take

SMALL = 2**23  # weights up to which two threads take as long as one, and twice its processor time


class Reference:
    """Runs a plan on a timm model, unrewritten, one image at a time.

    Args:
        model: A timm model with the weights, in eval mode, that `describe` of its backbone knows.
        plan: The steps of each block.
        dtype: Precision of everything; of float64 see `precision.widened`.
        outputs: What a trace is to tell beside logits and features, of `plan.outputs`.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        dtype: torch.dtype = torch.float32,
        outputs: Collection[str] = (),
    ) -> None:
        self.kind = chosen.by_class(model)
        self.model: Any = model if dtype == torch.float32 else widened(model, dtype)
        self.plan = plan
        self.dtype = dtype
        self.outputs = outputs
        self.positions = positions.of(self.model, plan)
        self._rounded = rounded.layers(self.model)
        self._small = _is_small(model)

    @torch.inference_mode()
    def run(
        self,
        image: Tensor,
        forced: Sequence[Sequence[Choice]] | None = None,
        taken: Mapping[str, Taken] | None = None,
    ) -> Trace:
        """Classify one normalised image [channels, height, width].

        Args:
            image: The image.
            forced: For each block and step, what to take instead of the own decision; the trace
                holds the own decisions all the same. Blocks beyond its end decide freely.
            taken: What int8 layers are to make of their inputs; those not in it round freely.
        """
        for path, layer in self._rounded.items():
            layer.taken = (taken or {}).get(path)
        run = self._run_vit if self.kind in chosen.vits() else self._run_other
        with single_thread(self._small):
            trace = run(image.to(self.dtype), forced)
        return replace(trace, excess={p: layer.excess for p, layer in self._rounded.items()})

    def _run_other(self, image: Tensor, forced: Sequence[Sequence[Choice]] | None) -> Trace:
        """Another network than a ViT."""
        eager = chosen.module(self.kind, "eager")
        trace: Trace = eager.run(self.model, self.plan, image, forced)
        return trace

    def _run_vit(self, image: Tensor, forced: Sequence[Sequence[Choice]] | None) -> Trace:
        """A ViT."""
        model = self.model
        embedded, entering = vit.embed(model, image[None])  # [1, N, C] both
        x = entering[0]
        where = self.positions.initial(x)
        state = Tokens(x, x.new_ones(len(x)), {}, model.num_prefix_tokens, positions=where)
        pruned = None
        if not {*OWNERS}.isdisjoint(self.outputs):
            state, pruned = ownership.first(state)
        tokens, sizes, counts, decisions = [], [], [], []
        choices: list[Sequence[Choice | None]] = list(forced or ())
        depth = len(self.plan.blocks)
        choices += [[None] * len(self.plan.deciding(at)) for at in range(len(choices), depth)]
        for index, (steps, taken) in enumerate(zip(self.plan.blocks, choices, strict=True)):
            first = len(taken) - len(steps)  # of those in the block
            entered, before = self._entering(index, state, taken[:first], pruned)
            left, count, decided = self._block(index, steps, taken[first:], entered, pruned)
            decided = (*before, *decided)
            state = self._behind(index, state, entered, left)
            counts.append(count)
            tokens.append(state.x)
            sizes.append(state.size)
            decisions.append(decided)
        state, _ = self._entering(len(tokens), state, (), pruned)
        size = state.size if self.plan.pool_sizes else torch.ones_like(state.size)
        logits = vit.classify(model, state.x, size)
        final = {FEATURES: vit.features(model, state.x, size)}
        final |= ownership.outputs(model, state, pruned, self.outputs)
        return Trace(
            logits, embedded[0], tuple(tokens), tuple(sizes), tuple(counts), tuple(decisions),
            final=final,
        )  # fmt: skip

    def _entering(
        self, block: int, tokens: Tokens, choices: Sequence[Choice | None], pruned: Tensor | None
    ) -> tuple[Tokens, tuple[Decision, ...]]:
        """Tokens as they enter a block, or after all blocks the head, and what was decided."""
        step = self.plan.before.get(block)
        if step is None:
            return tokens, ()
        left, decision = take(step, tokens, choices[0] if choices else None, self.plan.parameters)
        ownership.note(tokens, left, pruned)
        return left, () if decision is None else (decision,)

    def _behind(self, block: int, given: Tokens, made: Tokens, left: Tokens) -> Tokens:
        """Tokens as they leave a block."""
        step = self.plan.before.get(block)
        if step is None or not step.restores:
            return left
        return restore(step, given, made, left, self.plan.parameters)

    def _block(
        self,
        index: int,
        steps: Sequence[Step],
        choices: Sequence[Choice | None],
        tokens: Tokens,
        pruned: Tensor | None,
    ) -> tuple[Tokens, int, tuple[Decision, ...]]:
        """Tokens that leave a block, on how many its MLP ran, and what its steps decided.

        What owned the patches that are pruned is put down in `pruned`, where that is asked for.
        """
        block, at = self.model.blocks[index], self.positions.at(index, tokens.positions)
        normed = vit.given(block, 1, tokens.x)
        attended, scores = attention(vit.attends(block), normed, tokens.size, at, tokens.protected)
        x = tokens.x + vit.scaled(block, 1, attended)
        tokens = given = replace(tokens, x=x, scores=scores)
        pairs = list(zip(steps, choices, strict=True))
        tokens, decisions = self._taken([p for p in pairs if not p[0].late], tokens, pruned)
        left = replace(tokens, x=vit.feed_forward(block, tokens.x))
        count = len(left.x)
        left, behind = self._taken([p for p in pairs if p[0].late], left, pruned)
        for step in steps:
            if step.restores:
                left = restore(step, given, tokens, left, self.plan.parameters)
        return left, count, (*decisions, *behind)

    def _taken(
        self, pairs: Sequence[tuple[Step, Choice | None]], tokens: Tokens, pruned: Tensor | None
    ) -> tuple[Tokens, list[Decision]]:
        """Tokens after steps, each with what it is to choose, and what these decided."""
        decisions = []
        for step, choice in pairs:
            before = tokens
            tokens, decision = take(step, tokens, choice, self.plan.parameters)
            ownership.note(before, tokens, pruned)
            if decision is not None:
                decisions.append(decision)
        return tokens, decisions


def attention(
    attn: Attention, x: Tensor, size: Tensor, at: Bound = STILL, protected: int = 1
) -> tuple[Tensor, dict[str, Tensor]]:
    """Proportional attention, and what steps decide by (METHOD §1, steps 1-2; arXiv 2210.09461).

    Args:
        attn: timm's attention module; with a `precision.eager.MeanKey` if the metric has a
            projection of its own.
        x: [N, C] normalised tokens.
        size: [N] patches per token.
        at: What the places of the tokens do.
        protected: How many rows in front are never merged away or pruned; row 0 is the class token
            where a step goes by its attention.

    Returns:
        The projected output [N, C], with that of an MLP side by side, and the scores by the names
        of `plan.scores`: those of the protected +inf, the metric's rows of length 1.
    """
    q, k, v, beside = vit.project(attn, x)  # [H, N, D] each
    found = vit.scores(attn, at.turned(q), at.turned(k), size)
    weights = at.biased(found).softmax(-1)  # [H, N, N]
    importance, of_class = weights.mean(0).mean(0), weights[:, 0].mean(0)
    values = weights[:, 0] * v.norm(dim=-1).repeat_interleave(len(weights) // len(v), 0)
    of_values = values.sum(0)  # [N]
    for score in (importance, of_class, of_values):
        score[:protected] = torch.inf
    keys = attn.mean_key(x)[None] if hasattr(attn, "mean_key") else k
    metric = at.of_metric(keys).mean(0)
    return vit.mix(attn, weights, v, beside), {
        IMPORTANCE: importance,
        CLASS_ATTENTION: of_class,
        CLASS_VALUES: of_values,
        METRIC: vit.unit(metric),
    }


def _is_small(model: nn.Module) -> bool:
    return sum(weight.numel() for weight in model.parameters()) <= SMALL


@contextlib.contextmanager
def single_thread(wanted: bool) -> Iterator[None]:
    """Let PyTorch compute in this thread alone, if that is wanted."""
    before = torch.get_num_threads()
    if not wanted or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def verify_against_timm(model: nn.Module, geometry: Geometry) -> None:
    """Compare with timm's own forward what the reference computes when nothing is reduced.

    Whatever timm does in a forward that neither the reference nor the exported form knows of
    shows here, before anything is exported.

    Raises:
        InputError: They differ by more than rounding.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(geometry.input_size, generator=generator) * 2 - 1
    with torch.inference_mode(), single_thread(_is_small(model)):
        wanted = model(image[None])[0]
    got = Reference(model, dense_plan(geometry.depth)).run(image).logits
    error = float((wanted - got).abs().max())
    allowed = 1e-4 * max(1.0, float(wanted.abs().max()))  # measured: 1e-6 on DeiT-S
    if not error <= allowed:
        raise InputError(
            f"timm's own forward of {geometry.name} differs from {chosen.name_of(geometry.kind)} "
            f"as this tool knows it by {error:.2g} (allowed {allowed:.1g}): the model has a "
            "feature that is not supported"
        )
