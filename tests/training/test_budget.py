"""The share of the work that training steers by."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ltmp_export.plan.vit import Vit
from ltmp_export.plan.work import dense_macs, macs
from ltmp_export.training.budget import mac_ratio
from tests.makers import random_vits
from tests.makers.trainers import CASE


class TestBudget:
    def test_is_the_formula_of_the_paper(self) -> None:
        """METHOD §1, word for word, for an MLP four times as wide."""
        vit = geometry_of("vit_tiny")
        kept = torch.tensor([0.9, 0.5, 0.4], dtype=torch.float64)
        n, d = vit.patches + 1, vit.width
        before = [1.0, 0.9, 0.5]
        terms = [
            2 * m * n * d**2 + (m * n) ** 2 * d + 4 * after * n * d**2
            for m, after in zip(before, kept.tolist(), strict=True)
        ]
        wanted = sum(terms) / len(terms) / (6 * n * d**2 + n**2 * d)
        assert float(mac_ratio(vit, kept)) == pytest.approx(wanted, rel=1e-12)

    def test_is_what_the_blocks_execute(self) -> None:
        """On images of equal counts, patch embedding and classifier apart; for any widths."""
        _, vit = random_vits.build(CASE)
        counts = [30, 21, 9, 4]
        fixed = macs(vit, counts) - blocks_macs(vit, counts)
        wanted = (macs(vit, counts) - fixed) / (dense_macs(vit) - fixed)
        kept = torch.tensor(counts, dtype=torch.float64) / (vit.patches + 1)
        assert float(mac_ratio(vit, kept)) == pytest.approx(wanted, rel=1e-12)

    def test_of_nothing_removed(self) -> None:
        _, vit = random_vits.build(CASE)
        assert float(mac_ratio(vit, torch.ones(vit.depth))) == pytest.approx(1.0)


def geometry_of(name: str) -> Vit:
    _, vit = random_vits.build(CASE)
    return replace(vit, name=name, width=192, mlp_width=768, heads=3, head_width=64, depth=3)


def blocks_macs(vit: Vit, counts: list[int]) -> int:
    """Everything but patch embedding and classifier, by hand."""
    incoming, total, inner = vit.patches + 1, 0, vit.heads * vit.head_width
    for outgoing in counts:
        total += 4 * incoming * vit.width * inner + 2 * incoming**2 * inner
        total += 2 * outgoing * vit.width * vit.mlp_width
        incoming = outgoing
    return total
