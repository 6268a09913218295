"""A timm ViT whose thresholds are parameters, run under a mask: what training differentiates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ltmp_export.backbones.positioned import eager as positions
from ltmp_export.backbones.vit import eager
from ltmp_export.families import Family
from ltmp_export.plan.plan import Plan, dense_plan
from ltmp_export.steps.positions import Positions
from ltmp_export.training.forms import Form, attention
from ltmp_export.training.masked import Masked


class Output(NamedTuple):
    """What a batch gives.

    Attributes:
        logits: [B, classes].
        alive: For each block the mask after it [B, N]; it carries the gradient. Without gradients,
            the aligned form leaves out rows that are dead in every image.
    """

    logits: Tensor
    alive: tuple[Tensor, ...]

    @property
    def counts(self) -> Tensor:
        """[B, depth] int64 tokens after each block, protected ones included."""
        return torch.stack([mask.detach().sum(1).round().long() for mask in self.alive], 1)


class State(NamedTuple):
    """Tokens between two blocks: x [B, N, C], size and alive [B, N]; where they lie."""

    x: Tensor
    size: Tensor
    alive: Tensor
    positions: Positions | None = None


class MaskedVit(nn.Module):
    """A plain ViT with a threshold for each step of each block.

    Args:
        model: timm's model; it is shared, not copied.
        family: Which steps a block takes.
        thresholds: Start values, per kind one for each block.
        form: What the mask means.
        tau: Temperature of the gradient of a decision.
        plan: What is stated of places, where attention knows of them.
    """

    def __init__(
        self,
        model: VisionTransformer,
        family: Family,
        thresholds: Mapping[str, Sequence[float]],
        form: Form,
        tau: float = 0.1,
        plan: Plan | None = None,
    ) -> None:
        super().__init__()
        self.vit: Any = model
        self.protected = self.vit.num_prefix_tokens
        self.family = family
        self.gates = family.gates()
        self.steps = tuple(self.gates)
        self.thresholds = nn.ParameterDict(
            {kind: nn.Parameter(torch.tensor(thresholds[kind])) for kind in family.scalars}
        )
        self.form = form
        self.tau = tau
        self.plan = plan or dense_plan(0)
        self.positions = positions.of(model, self.plan)

    def forward(self, images: Tensor) -> Output:
        """Classify normalised images [B, channels, height, width]."""
        state = self.embed(images)
        masks = []
        for index in range(len(self.vit.blocks)):
            tokens = self.attend(index, state)
            for kind in self.gates:
                tokens = self.step(kind, tokens, self.thresholds[kind][index])
            state = self.finish(index, tokens)
            masks.append(state.alive)
        return Output(self.classify(state), tuple(masks))

    def embed(self, images: Tensor) -> State:
        """The tokens before the first block."""
        x = eager.embed(self.vit, images)[1]  # [B, N, C]
        ones = torch.ones(x.shape[:2], device=x.device)
        where = self.positions.initial(ones)
        if where is not None:
            where = where.taken(lambda rows: rows.expand(len(x), -1, -1))
        return State(x, ones, ones, where)

    def attend(self, index: int, state: State) -> Masked:
        """The first half of a block: what its steps decide on."""
        block, (x, size, alive, where) = self.vit.blocks[index], state
        at = self.positions.at(index, where)
        attended, importance, metric = attention(
            eager.attends(block), eager.given(block, 1, x), size, alive, self.form,
            self.training, at, self.protected,
        )  # fmt: skip
        x = x + eager.scaled(block, 1, attended)
        return Masked(x, size, alive, importance, metric, where, self.protected)

    def step(self, kind: str, tokens: Masked, threshold: Tensor) -> Masked:
        """Take a step, in full precision."""
        with torch.autocast(tokens.x.device.type, enabled=False):
            taken: Masked = self.gates[kind](self.form, tokens, threshold, self.tau)
        return taken

    def finish(self, index: int, tokens: Masked) -> State:
        """The second half of a block, on the rows that matter from here on."""
        block = self.vit.blocks[index]
        state = State(tokens.x, tokens.size, tokens.alive, tokens.positions)
        if self.form.compact and not torch.is_grad_enabled():
            most = state.alive.sum(1).max().nan_to_num()  # of NaN images nothing matters any more
            longest = max(2, int(most))  # a source and a destination
            where = state.positions
            if where is not None:
                where = where.taken(lambda rows: rows[:, :longest])
            x, size, alive = (part[:, :longest] for part in (state.x, state.size, state.alive))
            state = State(x, size, alive, where)
        return state._replace(x=eager.feed_forward(block, state.x))

    def classify(self, state: State) -> Tensor:
        """Logits [B, classes]."""
        return eager.classify(self.vit, state.x, state.alive * state.size)

    def values(self) -> dict[str, list[float]]:
        """The thresholds as they are, per kind one for each block."""
        return {kind: values.detach().tolist() for kind, values in self.thresholds.items()}

    def clamp(self) -> None:
        """Bring every threshold back into [0, 1]."""
        with torch.no_grad():
            for values in self.thresholds.values():
                values.clamp_(0.0, 1.0)
