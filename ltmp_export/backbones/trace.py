"""What PyTorch computes of one image, block by block: what a file is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ltmp_export.plan.outputs import LOGITS
from ltmp_export.steps.tokens import Decision


@dataclass(frozen=True)
class Trace:
    """One image through a model under a plan.

    Attributes:
        logits: [classes]; of a model without classifier its features, as timm's model gives them.
        embedded: [N, C] tokens before the first block.
        tokens: [n, C] after each block.
        sizes: [n] patches per token, after each block.
        counts: Tokens that each block's MLP runs on, those before the patches included.
        decisions: For each block, what its steps saw and chose.
        excess: Of each int8 layer, see `precision.eager.RoundedLinear`.
        final: What else a file may give, by the names of `plan.outputs`.
    """

    logits: Tensor
    embedded: Tensor
    tokens: tuple[Tensor, ...]
    sizes: tuple[Tensor, ...]
    counts: tuple[int, ...]
    decisions: tuple[tuple[Decision, ...], ...]
    excess: Mapping[str, float] = field(default_factory=dict)
    final: Mapping[str, Tensor] = field(default_factory=dict)

    def output(self, name: str) -> Tensor:
        """What a file gives by that name, of one image."""
        return self.logits if name == LOGITS else self.final[name]
