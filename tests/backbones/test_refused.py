"""Checkpoints that are refused, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.errors import InputError
from tests.makers.checkpoint_contents import Content, drop, put, rename

Write = Callable[..., Path]


MERGE_2 = "blocks.2.merge_masker.threshold"
QKV_2 = "blocks.2.attn.qkv.weight"


REFUSED: dict[str, tuple[Callable[[Content], None], str]] = {
    "NaN threshold": (put(MERGE_2, torch.tensor([torch.nan])), f"{MERGE_2} is nan"),
    "threshold above 1": (put(MERGE_2, torch.tensor([1.01])), f"{MERGE_2} is 1.0.*in .0, 1."),
    "threshold below 0": (put(MERGE_2, torch.tensor([-0.1])), r"\[0, 1\]"),
    "threshold of two": (put(MERGE_2, torch.ones(2)), "expected one float"),
    "no thresholds": (drop("masker"), "holds no thresholds"),
    "a threshold missing": (drop(MERGE_2), r"merge thresholds missing in blocks \[2\]"),
    "a kind missing": (drop("merge_masker"), "ltmp needs merge and prune"),
    "threshold without block": (
        put("blocks.6.merge_masker.threshold", torch.ones(1)),
        r"of blocks \[6\] without weights",
    ),
    "a block missing": (drop("blocks.3."), "block 3 has no weights, though block 5 has"),
    "a bias missing": (drop("blocks.3.mlp.fc1.bias"), "1 missing .blocks.3.mlp.fc1.bias"),
    "an extra key": (put("blocks.1.gate.weight", torch.ones(1)), "1 unexpected .blocks.1.gate"),
    "NaN weight": (put(QKV_2, torch.full((384, 128), torch.nan)), f"{QKV_2} holds NaN"),
    "misshapen weight": (put(QKV_2, torch.ones(3, 128)), rf"1 misshapen .{QKV_2} \(3, 128\)"),
    "flat head": (put("head.weight", torch.ones(10)), "head.weight has shape"),
    "distillation": (put("dist_token", torch.ones(1, 1, 128)), "65 rows; expected 66 or 64"),
    "no class token": (drop("cls_token"), "65 rows; expected 64"),
    "no positions": (drop("pos_embed"), "pos_embed missing: nothing tells whether.*--model"),
    "half a classifier": (drop("head.weight"), "1 unexpected .head.bias"),
    "a block far away": (put("blocks.300000.x", torch.ones(1)), "block 6 has no weights, though"),
    "integers": (
        put(QKV_2, torch.ones(384, 128, dtype=torch.int8)),
        "is torch.int8; expected a tensor",
    ),
    "sparse": (put(QKV_2, torch.zeros(384, 128).to_sparse()), "load torch._utils._rebuild_sparse"),
    "complex": (
        put(QKV_2, torch.zeros(384, 128, dtype=torch.complex64)),
        "is torch.complex64; expected a tensor of floats",
    ),
    "claims": (put(QKV_2, torch.zeros(1).expand(10**6, 10**6)), "holds fewer numbers"),
    "key twice": (put("module.head.bias", torch.ones(10)), "head.bias is there twice"),
    "nothing": (lambda c: c["state_dict"].clear(), "state_dict is empty"),
    "bad mean": (lambda c: c["args"].update(mean=["x"] * 3), "expected 3 finite numbers"),
    "no number": (lambda c: c["state_dict"].update(epoch=3), "epoch is a int"),
    "another model": (rename("ltmp_deit_small_patch16_224"), "not those of deit_small"),
    "not a ViT name": (rename("ltmp_resnet50"), "resnet50 is a ResNet; expected a plain"),
    "contradictory family": (rename("ltm_vit_digits"), "family ltm needs merge thresholds"),
    "fixed rate": (rename("mp_vit_digits"), "takes a fixed number of tokens.*state it with --r 8"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_the_reason(
    content: Content, write: Write, change: Callable[[Content], None], message: str
) -> None:
    change(content)
    with pytest.raises(InputError, match=message):
        load_checkpoint(write(content))


def test_other_architectures(tmp_path: Path) -> None:
    torch.save({"layer4.0.conv1.weight": torch.ones(2), MERGE_2: torch.ones(1)}, tmp_path / "r.pth")
    with pytest.raises(
        InputError, match="not a plain timm VisionTransformer.*it looks like a ResNet"
    ):
        load_checkpoint(tmp_path / "r.pth")
    torch.save({"epoch": 3}, tmp_path / "e.pth")
    with pytest.raises(InputError, match="holds no weights: found epoch"):
        load_checkpoint(tmp_path / "e.pth")
