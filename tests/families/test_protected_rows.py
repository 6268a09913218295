"""Families without thresholds and rates, on models whose rows before the patches are others."""

from __future__ import annotations

import pytest
import torch

from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.fuse.step import Fuse
from ltmp_export.steps.merge_mask.step import MergeMask
from ltmp_export.steps.merge_matrix.step import MergeMatrix
from ltmp_export.steps.mergence.step import Mergence
from ltmp_export.steps.patch_merge.step import PatchMerge
from tests.makers import random_vits
from tests.makers.random_vits import Case

SHAPE = {"depth": 2, "img_size": (16, 12)}
CASES = {
    0: Case("none", 71, SHAPE | {"class_token": False, "global_pool": "avg"}),
    2: Case("distilled", 72, SHAPE | {"distilled": True}),
    5: Case("registers", 73, SHAPE | {"reg_tokens": 4, "no_embed_class": True}),
}


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def plan(family: str, vit: Vit) -> Plan:
    """Something that each family does, with weights of its own where it has some."""
    if family == "evit":
        return Plan(family, ((Fuse(0.6),), ()))
    if family == "multiscale_mergence":
        return Plan(family, ((Mergence(7, "size"),), (Mergence(4, "similarity"),)))
    if family == "patchmerger":
        own = {"queries": drawn(5, 48), "norm.weight": drawn(48), "norm.bias": drawn(1, 48)[0]}
        named = {f"cluster_layers.0.{part}": value for part, value in own.items()}
        step = PatchMerge("cluster_layers.0", 5, 0.25, 1e-5)
        return Plan(family, ((), ()), {1: step}, named)
    if family == "pmvit":
        n, name = vit.tokens, "blocks.1.attn"
        own = {"merge_matrix": drawn(8, n), "recover_matrix": drawn(n, 8)}
        own["token_mask"] = (drawn(n) > 0).float()
        named = {f"{name}.{part}": value for part, value in own.items()}
        return Plan(family, ((), ()), {1: MergeMatrix(name, 8, n)}, named)
    named = {"ltm.mask0": drawn(12, 4).abs(), "blocks.0.ltm.center": drawn(48)}
    named["blocks.0.ltm.step"] = drawn(1)
    return Plan(family, ((MergeMask("blocks.0.ltm", "ltm.mask0", 12, 4),), ()), parameters=named)


@pytest.mark.parametrize(
    ("rows", "family"),
    [(rows, family) for rows in (2, 5) for family in ("evit", "multiscale_mergence")]
    + [(rows, family) for rows in CASES for family in ("patchmerger", "pmvit", "ltm_transformer")],
)
def test_files_are_equal(rows: int, family: str) -> None:
    model, vit = random_vits.build(CASES[rows])
    chosen = plan(family, vit)
    vit.require_possible(chosen)
    checkpoint = random_vits.bare(model, vit, chosen)
    pixels = random_vits.images(vit, 1, 3).numpy()
    images = Images(pixels, None, ("0", "1", "2"), "drawn")
    report = compare.compare(to_onnx(checkpoint, opset=17), checkpoint, images, batch_sizes=(1, 3))
    assert report.verdict == "equal", report.headline()
    kept = [rows_of.kept for rows_of in vit.rows(chosen)]
    assert kept[-1] < vit.tokens
    assert kept[-1] >= rows


@pytest.mark.parametrize("family", ["evit", "multiscale_mergence"])
def test_a_class_token_is_needed(family: str) -> None:
    """Registers alone are none."""
    case = Case(
        "registers alone", 74, SHAPE | {"class_token": False, "reg_tokens": 2, "global_pool": "avg"}
    )
    _, vit = random_vits.build(case)
    with pytest.raises(ValueError, match="go by a class token, which the model has not"):
        vit.require_possible(plan(family, vit))
