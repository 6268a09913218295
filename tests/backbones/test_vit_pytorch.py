"""vit-pytorch's PatchMerger under timm's names, against its own forward written out here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import Attention
from torch import Tensor
from torch.nn import functional as F

from ltmp_export.backbones.vit import lower, vit_pytorch
from ltmp_export.backbones.vit.build import BuiltVit, build
from ltmp_export.checkpoint.contents import take_apart
from ltmp_export.errors import InputError
from ltmp_export.model_file.validate import validate
from ltmp_export.plan.plan import dense_plan
from ltmp_export.reference import Reference, verify_against_timm
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.timm_names import resolve
from tests.makers.stated import says
from tests.makers.vit_pytorch import DEPTH, WIDTH, Weights, random_weights

TOLERANCE = 1e-4  # measured: 3e-6


def older(weights: Weights) -> Weights:
    """The names before PreNorm went; the last norm stood after the mean then."""
    names = {r"(\.\d+)\.1\.net\.0\.": r"\1.1.norm.", r"(\.\d+)\.1\.net\.1\.": r"\1.1.fn.net.0."}
    names |= {r"(\.\d+)\.1\.net\.4\.": r"\1.1.fn.net.3.", r"\.0\.to_": ".0.fn.to_"}
    names |= {r"^mlp_head\.1\.": "mlp_head.2.", r"^transformer\.norm\.": "mlp_head.1."}
    renamed = {}
    for key, value in weights.items():
        fitting = [(old, new) for old, new in names.items() if re.search(old, key)]
        renamed[re.sub(*fitting[0], key) if fitting else key] = value
    return renamed


def forward(w: Mapping[str, Tensor], images: Tensor, heads: int, patch: int = 4) -> Tensor:
    """The model [B, channels, height, width] → [B, classes] without its merger, slowly."""

    def norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    logits = []
    for image in images:
        rows = []
        for top in range(0, image.shape[1], patch):
            for left in range(0, image.shape[2], patch):
                part = image[:, top : top + patch, left : left + patch]
                rows.append(part.permute(1, 2, 0).flatten())  # (p1 p2 c)
        x = linear("to_patch_embedding.2", norm("to_patch_embedding.1", torch.stack(rows)))
        x = norm("to_patch_embedding.3", x) + w["pos_embedding"][0, : len(rows)]
        for layer in (f"transformer.layers.{index}" for index in range(DEPTH)):
            qkv = norm(f"{layer}.0.norm", x) @ w[f"{layer}.0.to_qkv.weight"].T
            mixed = []
            for q, k, v in zip(*(part.chunk(heads, -1) for part in qkv.chunk(3, -1)), strict=True):
                mixed.append((q @ k.T * q.shape[1] ** -0.5).softmax(-1) @ v)
            out = torch.cat(mixed, -1)
            out = linear(f"{layer}.0.to_out.0", out) if f"{layer}.0.to_out.0.bias" in w else out
            x = x + out
            hidden = linear(f"{layer}.1.net.1", norm(f"{layer}.1.net.0", x))
            x = x + linear(f"{layer}.1.net.4", F.gelu(hidden))
        logits.append(linear("mlp_head.1", norm("transformer.norm", x).mean(0)))
    return torch.stack(logits)


def pixels(count: int, channels: int = 3, height: int = 12, width: int = 12) -> Tensor:
    shape = (count, channels, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def vit_alone(weights: Weights) -> Weights:
    """Under timm's names, without the merger."""
    named = vit_pytorch.as_timm(weights)
    alone = {key: v for key, v in named.items() if not key.startswith("cluster_layers.")}
    assert len(named) == len(alone) + 3
    return alone


def built(weights: Weights, heads: int | None = 2, **stated: Any) -> BuiltVit:
    """The ViT alone."""
    return build(vit_alone(weights), None, says(heads, **stated))


def session(found: BuiltVit, opset: int = 17, batch_size: int | None = None) -> Session:
    weights = {key: value.numpy() for key, value in found.model.state_dict().items()}
    plan = dense_plan(found.vit.depth)
    proto = lower.lower(found.vit, plan, weights, opset=opset, batch_size=batch_size)
    validate(proto, opset)
    return Session(proto)


def agree(found: BuiltVit, images: Tensor, wanted: Tensor) -> None:
    """Timm's forward, the reference and the exported form all give what is wanted."""
    with torch.inference_mode():
        torch.testing.assert_close(found.model(images), wanted, atol=TOLERANCE, rtol=0)
    reference = Reference(found.model, dense_plan(found.vit.depth))
    each = torch.stack([reference.run(image).logits for image in images])
    torch.testing.assert_close(each, wanted, atol=TOLERANCE, rtol=0)
    (logits,) = session(found).run(images.numpy())
    close(logits, wanted)


def close(logits: NDArray[Any], wanted: Tensor) -> None:
    np.testing.assert_allclose(logits, wanted.numpy(), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_the_same_model(channels: int) -> None:
    weights = random_weights(channels)
    found = built(weights)
    assert found.vit.input_size == (channels, 12, 12)
    assert (found.vit.prefix, found.vit.tokens, found.vit.pool) == (0, 9, "avg")
    assert (found.vit.norm_eps, found.vit.patch_size) == (1e-5, (4, 4))
    assert not any(answer.assumed for answer in found.answers.values())
    verify_against_timm(found.model, found.vit)
    images = pixels(3, channels)
    agree(found, images, forward(weights, images, heads=2))


@pytest.mark.parametrize("opset", [16, 17, 20])
@pytest.mark.parametrize("batch_size", [None, 1])
def test_exported(opset: int, batch_size: int | None) -> None:
    weights = random_weights()
    ready = session(built(weights), opset, batch_size)
    for count in (1, 3) if batch_size is None else (1,):
        images = pixels(count)
        close(ready.run(images.numpy())[0], forward(weights, images, heads=2))


def test_every_weight_matters() -> None:
    """Each of them changes the slow forward, so one that is lost or in the wrong place shows."""
    weights, images = random_weights(), pixels(2)
    whole = forward(weights, images, heads=2)
    for key in weights:
        if "patch_merger" not in key:
            changed = {**weights, key: weights[key].roll(1, -1)}
            assert (forward(changed, images, heads=2) - whole).abs().max() > 10 * TOLERANCE, key


def test_older_names_with_the_norm_after_the_mean() -> None:
    weights, images = random_weights(), pixels(2)
    x = _before_head(weights, images)
    normed = F.layer_norm(x, (WIDTH,), *_pair(weights, "transformer.norm"))
    found = built(older(weights))
    agree(found, images, F.linear(normed, *_pair(weights, "mlp_head.1")))
    assert type(found.model.norm).__name__ == "Identity"


def _pair(weights: Weights, name: str) -> tuple[Tensor, Tensor]:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def _before_head(weights: Weights, images: Tensor) -> Tensor:
    """[B, C] mean of tokens without the last norm, from the timm model."""
    model: Any = built(weights).model
    with torch.inference_mode():
        x: Tensor = model.blocks(model.norm_pre(model._pos_embed(model.patch_embed(images))))
    return x.mean(1)


def test_older_names_of_layers_alone() -> None:
    """Layers and head changed at different times."""
    weights, images = random_weights(), pixels(2)
    mixed = {key: v for key, v in older(weights).items() if not key.startswith("mlp_head.")}
    ends = ("mlp_head.", "transformer.norm.")
    mixed |= {key: v for key, v in weights.items() if key.startswith(ends)}
    agree(built(mixed), images, forward(weights, images, heads=2))


def test_a_head_as_wide_as_the_tokens_has_no_projection() -> None:
    weights, images = random_weights(heads=1, head_width=WIDTH), pixels(2)
    assert not any("to_out" in key for key in weights)
    assert vit_pytorch.has_one_head(weights)
    agree(built(weights, heads=1), images, forward(weights, images, heads=1))
    agree(built(older(weights), heads=1), images, _older_forward(weights, images))


def _older_forward(weights: Weights, images: Tensor) -> Tensor:
    model: Any = built(weights, heads=1).model
    with torch.inference_mode():
        x = model.blocks(model._pos_embed(model.patch_embed(images))).mean(1)
        logits: Tensor = model.head(model.norm(x))
    return logits


@pytest.mark.skipif(
    "attn_head_dim" not in inspect.signature(Attention).parameters, reason="an older timm"
)
@pytest.mark.parametrize(("heads", "head_width"), [(2, 5), (3, 10), (5, 8)])
def test_attention_of_another_width(heads: int, head_width: int) -> None:
    """Narrower and wider than the tokens; 5 heads do not even divide their width."""
    weights, images = random_weights(heads=heads, head_width=head_width), pixels(2)
    found = built(weights, heads=heads)
    assert (found.vit.heads, found.vit.head_width) == (heads, head_width)
    agree(found, images, forward(weights, images, heads=heads))


def test_attention_of_another_width_needs_a_timm_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vit_pytorch, "Attention", lambda dim, num_heads: None)
    with pytest.raises(InputError, match="attention 10 channels wide in a model of 24: .* update"):
        built(random_weights(heads=2, head_width=5))


def test_heads_that_are_not_stated() -> None:
    """Attention need not be as wide as the tokens, so no width tells them, its usual 64 neither."""
    with pytest.raises(InputError, match="the number of heads .width 128.; state --num-heads"):
        built(random_weights(heads=2, head_width=64), heads=None)
    found = built(random_weights(heads=2, head_width=64), heads=None, assume_defaults=True)
    assert (found.vit.heads, found.vit.head_width) == (2, 64)
    assert found.answers["num_heads"].assumed
    assert not any(found.answers[key].assumed for key in ("act", "norm_eps", "pool"))


def test_image_sizes() -> None:
    """A square unless stated; another one is resized to, as timm does it."""
    weights, images = random_weights(patches=6), pixels(2, height=8)
    with pytest.raises(InputError, match="6 rows, which is no square of patches"):
        built(weights)
    stated = built(weights, stored_size=(8, 12))
    assert not stated.warnings
    agree(stated, images, forward(weights, images, heads=2))
    larger = built(weights, stored_size=(8, 12), image_size=(12, 20))
    assert larger.warnings[0].startswith("position embedding resized from 2x3 to 3x5 patches")
    position = weights["pos_embedding"][:, :-1]
    resized = resample_abs_pos_embed(position, [3, 5], [2, 3], num_prefix_tokens=0)
    images = pixels(2, height=12, width=20)
    agree(larger, images, forward({**weights, "pos_embedding": resized}, images, heads=2))


def test_sides_between_patches_are_refused() -> None:
    """What timm would cut off, vit-pytorch does not take at all."""
    with pytest.raises(InputError, match="images that are no whole number of patches"):
        built(random_weights(), stored_size=(14, 14))


@pytest.mark.parametrize("prefix", ["", "model.", "module.net."])
@pytest.mark.parametrize("rename", [dict, older], ids=["new", "older"])
def test_files(tmp_path: Path, prefix: str, rename: Any) -> None:
    """Read from a file, whatever stands before the names."""
    weights = rename(random_weights())
    content = {"state_dict": {f"{prefix}{key}": value for key, value in weights.items()}}
    torch.save(content, tmp_path / "model.pt")
    contents = take_apart(tmp_path / "model.pt")
    assert "names of vit-pytorch: taken as timm's" in contents.found
    expected = vit_pytorch.as_timm(weights)
    assert contents.weights.keys() == expected.keys()
    assert all(torch.equal(contents.weights[key], expected[key]) for key in expected)
    assert "num_heads" not in contents.args


def test_a_file_without_projections_has_one_head(tmp_path: Path) -> None:
    torch.save(random_weights(heads=1, head_width=WIDTH), tmp_path / "model.pt")
    assert take_apart(tmp_path / "model.pt").args["num_heads"] == 1


def test_the_mergers_weights_are_kept() -> None:
    weights = random_weights()
    named = vit_pytorch.as_timm(weights)
    for part in ("queries", "norm.weight", "norm.bias"):
        assert named[f"cluster_layers.0.{part}"] is weights[f"transformer.patch_merger.{part}"]


def test_other_names_are_not_taken_for_it() -> None:
    assert not vit_pytorch.is_vit_pytorch({"patch_embed.proj.weight": 0, "mlp_head.1.weight": 0})
    assert not vit_pytorch.is_vit_pytorch({"transformer.layers.0.0.norm.weight": 0})


def without(*parts: str) -> Weights:
    weights = random_weights()
    return {key: v for key, v in weights.items() if not any(part in key for part in parts)}


def put(key: str, *shape: int) -> Weights:
    return {**random_weights(), key: torch.ones(shape)}


REFUSED: dict[str, tuple[Weights, str]] = {
    "class token": (put("cls_token", 1, 1, WIDTH), "only its PatchMerger .*1 unexpected .cls_tok"),
    "another ViT": (without("patch_merger"), "3 missing .transformer.patch_merger.queries; "),
    "no norms in the embedding": (without("embedding.2", "embedding.3"), "4 missing .to_patch_em"),
    "no head": (without("mlp_head"), "2 missing .mlp_head.1.weight; mlp_head.1.bias"),
    "no positions": (without("pos_embedding"), "1 missing .pos_embedding"),
    "no layers": (without("layers"), "transformer.layers.0 has no weights"),
    "a layer less": (without("layers.0"), "transformer.layers.0 has no weights"),
    "a layer far away": (put("transformer.layers.999999.x", 1), "layers.2 has no weights"),
    "half a layer": (without("layers.1.1."), "6 missing .transformer.layers.1.1.net.0.weight; "),
    "half older": (put("transformer.layers.0.1.fn.net.0.weight", 1), "missing .*unexpected"),
    "a bias of qkv": (put("transformer.layers.0.0.to_qkv.bias", 72), "1 unexpected .transformer"),
    "one projection": (without("layers.1.0.to_out"), "2 missing .transformer.layers.1.0.to_out"),
    "no projection": (
        {key: v for key, v in random_weights(heads=3).items() if "to_out" not in key},
        "no projection after attention .*queries, keys and values of blocks.0 are 108 wide",
    ),
    "2 channels": (random_weights(channels=2), "a patch has 32 numbers .*square patches of 3 ch"),
    "no width": (put("to_patch_embedding.2.weight", WIDTH, 0), "has shape .24, 0.; expected 2"),
    "flat": (put("to_patch_embedding.2.weight", WIDTH * 48), "has shape .1152,.; expected 2 dim"),
    "scalar": (put("to_patch_embedding.1.weight"), "has shape ..; expected 1 dim"),
    "flat positions": (put("pos_embedding", 10, WIDTH), "pos_embedding has shape .10, 24.; exp"),
    "one position": (put("pos_embedding", 1, 1, WIDTH), "pos_embedding has 1 row; expected one m"),
    "two norms": (put("to_patch_embedding.1.bias", 12), "norms of 48 and 12 pixels, a projection"),
    "a projection": (put("to_patch_embedding.2.weight", WIDTH, 12), "a projection of 12"),
    "narrow qkv": (
        put("transformer.layers.0.0.to_qkv.weight", 30, WIDTH),
        "3 misshapen .blocks.0.attn.proj",
    ),
    "torn qkv": (put("transformer.layers.0.0.to_qkv.weight", 2, WIDTH), "2 rows; expected a mult"),
    "two positions": (put("pos_embedding", 2, 10, WIDTH), "pos_embed is of 2 images; expected 1"),
    "wide positions": (put("pos_embedding", 1, 10, 7), "1 misshapen .pos_embed .1, 9, 7."),
}


@pytest.mark.parametrize(("weights", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(weights: Weights, message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(weights)


def test_a_grid_that_is_no_square_is_refused() -> None:
    named = vit_alone(random_weights())
    with pytest.raises(InputError, match="9 rows, which is no square"):
        build({**named, "cls_token": torch.ones(1, 1, WIDTH)}, None, says(2))


def test_another_models_name_is_refused() -> None:
    named = vit_alone(random_weights())
    with pytest.raises(InputError, match="not those of vit_tiny_patch16_224"):
        build(named, None, says(2), timm_name=resolve("vit_tiny_patch16_224"))
