"""Several attentions side by side, then several MLPs, taken as one of each."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import ParallelThingsBlock, VisionTransformer
from torch import Tensor

from ltmp_export.backbones import offered
from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.plan.plan import dense_plan
from ltmp_export.plan.work import dense_macs
from ltmp_export.reference import Reference
from ltmp_export.statements.choices import Choices
from tests.backbones import test_oracle
from tests.makers import counted_macs
from tests.makers.random_vits import bare
from tests.timm_groups import fill

NAME = "vit_small_patch16_18x2_224"
STATED = Choices(family="m", rate="3", num_heads=2, image_size=(16, 12), mean=(0.5,) * 3,
                 std=(0.5,) * 3)  # fmt: skip
QKV = "blocks.1.attns.2.attn.qkv.weight"
OF_LARGEST = 2e-4


def made(**options: Any) -> VisionTransformer:
    """Three of each in two blocks, with scales and biases."""
    block = partial(ParallelThingsBlock, num_parallel=3)
    shape: dict[str, Any] = {
        "img_size": (16, 12),
        "patch_size": 4,
        "num_classes": 5,
        "embed_dim": 48,
        "depth": 2,
    }
    model = VisionTransformer(
        **shape, num_heads=2, mlp_ratio=2.0, init_values=1e-5, block_fn=block, **options
    )
    fill(model, torch.Generator().manual_seed(5))
    return model.eval().requires_grad_(False)


def drawn() -> Tensor:
    contrast = torch.linspace(0.3, 2.0, 4)[:, None, None, None]
    return contrast * torch.randn((4, 3, 16, 12), generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize("options", [{}, {"qkv_bias": False, "proj_bias": False}], ids=str)
def test_nothing_reduced_is_timm_and_what_is_reduced_the_reference(
    options: dict[str, Any], tmp_path: Path
) -> None:
    model, images, path = made(**options), drawn(), tmp_path / "bare.pth"
    torch.save(model.state_dict(), path)
    checkpoint = load_checkpoint(path, STATED)
    assert (checkpoint.vit.heads, checkpoint.vit.head_width, checkpoint.vit.mlp_width) == (
        *(6, 24),
        288,
    )
    wanted = model(images).numpy()
    off = np.abs(checkpoint.model(images).numpy() - wanted).max()
    assert off <= OF_LARGEST * np.abs(wanted).max()
    dense = bare(checkpoint.model, checkpoint.vit, dense_plan(2))
    file = to_onnx(dense, opset=17, batch_size=1)
    assert counted_macs.executed(file, images[:1].numpy()) == dense_macs(checkpoint.vit)
    pixels = Images(images.numpy(), None, tuple("abcd"), "test")
    report = compare.compare(to_onnx(checkpoint, opset=17), checkpoint, pixels, batch_sizes=(1, 4))
    assert report.verdict == "equal", report.headline()


def test_scores_are_means_over_the_heads_of_all(tmp_path: Path) -> None:
    model, image = made(), drawn()[0]
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    checkpoint = load_checkpoint(tmp_path / "bare.pth", STATED)
    plan = test_oracle.frozen("ltmp", 2, 1.0, 0.0)
    trace = Reference(checkpoint.model, plan).run(image)
    merging, pruning = trace.decisions[0]
    maps, keys = [], []
    for one in model.blocks[0].attns:
        q, k, _ = one.attn.qkv(one.norm(trace.embedded)).reshape(-1, 3, 2, 24).unbind(1)
        maps += [(q[:, h] @ k[:, h].T / 24**0.5).softmax(-1) for h in range(2)]
        keys.append(k)
    importance, metric = torch.stack(maps).mean((0, 1)), torch.cat(keys, 1).mean(1)
    ordered = (scores[1:].sort().values for scores in (pruning.score, importance))
    torch.testing.assert_close(*ordered, rtol=0, atol=1e-6)
    metric = metric / metric.norm(dim=-1, keepdim=True)
    best = (metric[2::2] @ metric[1::2].T).amax(1)
    torch.testing.assert_close(merging.score[1:], best, rtol=0, atol=1e-5)


def test_by_its_name(tmp_path: Path) -> None:
    """The name's heads are those of each attention; so are stated ones."""
    model = timm.create_model(NAME, depth=1, num_classes=3, img_size=32)
    fill(model.eval(), torch.Generator().manual_seed(1))
    path, image = tmp_path / "bare.pth", torch.randn(1, 3, 32, 32)
    torch.save(model.state_dict(), path)
    found = load_checkpoint(path, Choices(family="m", rate="1", model=NAME))
    with torch.inference_mode():
        torch.testing.assert_close(found.model(image), model(image), rtol=1e-4, atol=1e-4)
    assert found.vit.heads == 12
    torch.save(found.model.state_dict(), path)  # as what is trained is written
    again = load_checkpoint(path, Choices(family="m", rate="1", model=NAME))
    assert again.vit == found.vit
    torch.save(model.state_dict(), path)
    with pytest.raises(InputError, match="nothing tells the number of heads"):
        load_checkpoint(path, Choices(family="m", rate="1"))
    assert offered.survey(NAME).missing == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.0.attns.0.attn.qkv.weight": torch.ones(3)}, "expected 2 non-empty dimensions"),
        ({QKV: None}, "blocks.1.attns.2.attn.qkv.weight is missing"),
        ({QKV: torch.ones(144, 1)}, r"qkv.weight has shape \(144, 1\); expected \(144, 48\)"),
        ({"blocks.0.ffns.0.norm.weight": torch.ones(())}, r"norm.weight has shape \(\)"),
        ({"blocks.0.attns.0.attn.q_norm.weight": torch.ones(24)}, "what is not supported.*q_norm"),
        ({"blocks.0.attns.4.norm.weight": torch.ones(48)}, r"attns.3.\S+ is missing"),
    ],
)
def test_refused(change: dict[str, Tensor | None], message: str, tmp_path: Path) -> None:
    state = {**made().state_dict(), **change}
    torch.save({k: v for k, v in state.items() if v is not None}, tmp_path / "bare.pth")
    with pytest.raises(InputError, match=message):
        load_checkpoint(tmp_path / "bare.pth", STATED)
