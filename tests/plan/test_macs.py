"""Multiply-accumulates, by hand and by the linear layers of the roofline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from ltmp_export.plan import work
from ltmp_export.plan.plan import dense_plan
from ltmp_export.plan.vit import Vit
from ltmp_export.timing import roofline

DEIT_S = Vit(
    "deit_small_patch16_224",
    (224, 224), (16, 16), 3, 1000, 12, 384, 1536, 6, 64, 1e-6, "gelu", "token",
)  # fmt: skip
SMALL = Vit("small", (8, 8), (4, 4), 3, 10, 2, 16, 32, 2, 8, 1e-6, "gelu", "token")
DISTILLED = replace(SMALL, prefix=2)
COUNTS = [197, 150, 100, 90, 80, 70, 60, 50, 40, 30, 20, 10]


def test_macs_of_deit_small() -> None:
    assert work.dense_macs(DEIT_S) == pytest.approx(4.60e9, rel=1e-3)
    by_hand = 196 * 16 * 16 * 3 * 384 + 1000 * 384
    for before, after in zip([197, *COUNTS[:-1]], COUNTS, strict=True):
        by_hand += 4 * before * 384**2 + 2 * before**2 * 384 + 8 * after * 384**2
    assert work.macs(DEIT_S, COUNTS) == by_hand


def test_linear_layers_are_all_but_the_attention_products() -> None:
    products = sum(2 * before**2 * 384 for before in [197, *COUNTS[:-1]])
    (linear,) = roofline.gmacs(DEIT_S, dense_plan(DEIT_S.depth), np.array([COUNTS]))
    assert linear * 1e9 == pytest.approx(work.macs(DEIT_S, COUNTS) - products)


@pytest.mark.parametrize(("prefix", "tokens", "heads"), [(0, 4, 1), (1, 5, 1), (2, 6, 2)])
def test_tokens_before_the_patches(prefix: int, tokens: int, heads: int) -> None:
    """Each is one more token, and a distillation token has a classifier of its own."""
    vit = replace(SMALL, prefix=prefix, pool="token" if prefix else "avg")
    blocks = 2 * (4 * tokens * 16**2 + 2 * tokens**2 * 16 + 2 * tokens * 16 * 32)
    assert work.dense_macs(vit) == 4 * 48 * 16 + blocks + heads * 10 * 16
    products = 2 * 2 * tokens**2 * 16
    (linear,) = roofline.gmacs(vit, dense_plan(vit.depth), np.array([[tokens, tokens]]))
    assert linear * 1e9 == pytest.approx(work.dense_macs(vit) - products)


def test_rows_of_a_batch_are_those_of_its_images() -> None:
    counts = np.array([[5, 3], [4, 1]])
    assert roofline.rows(SMALL, dense_plan(SMALL.depth), counts[0]) == [
        4,
        5,
        5,
        5,
        5,
        5,
        5,
        3,
        3,
        1,
    ]
    batches = [np.array([0, 1]), np.array([1, 1])]
    assert roofline.batch_rows(SMALL, dense_plan(SMALL.depth), counts, batches) == [
        [8, 10, 10, 9, 9, 9, 9, 4, 4, 2],
        [8, 10, 10, 8, 8, 8, 8, 2, 2, 2],
    ]


def test_linear_layers_of_two_heads_as_a_model() -> None:
    model = roofline.model(DISTILLED)
    assert [value.name for value in model.graph.output][-2:] == ["head/y", "head_dist/y"]
    assert len(model.graph.input) == len(
        roofline.rows(DISTILLED, dense_plan(DISTILLED.depth), [6, 3])
    )


def test_linear_layers_as_a_model() -> None:
    model = roofline.model(SMALL)
    onnx.checker.check_model(model, full_check=True)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert weights["patch_embed.proj"] == (16, 48)
    assert weights["blocks.1.attn.qkv"] == (48, 16)
    assert weights["blocks.1.mlp.fc1"] == (32, 16)
    assert (
        len(model.graph.input)
        == len(roofline.rows(SMALL, dense_plan(SMALL.depth), [5, 3]))
        == len(model.graph.output)
    )
