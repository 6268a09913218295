"""Files of Meta and BAAI whose models are timm's `Eva`: as timm's own filter takes them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.eva import checkpoint_filter_fn

from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices
from tests.makers import positioned
from tests.tolerances import OTHER_LIBRARY

State = dict[str, Any]


def renamed(state: State, *pairs: tuple[str, str]) -> State:
    """The state under other names."""
    made = {}
    for key, value in state.items():
        for ours, theirs in pairs:
            key = key.replace(ours, theirs)
        made[key] = value
    return made


def dinov3(state: State) -> State:
    """Names of facebookresearch/dinov3: queries, keys and values with one bias, masked for keys."""
    gated = [(".mlp.fc2", ".mlp.w3")] if "blocks.0.mlp.fc1_g.weight" in state else []
    made = renamed(
        state, ("gamma_", "ls"), ("reg_token", "storage_tokens"), (".fc1_g", ".w1"),
        (".fc1_x", ".w2"), *gated,
    )  # fmt: skip
    made = {f"{k}.gamma" if k.endswith((".ls1", ".ls2")) else k: v for k, v in made.items()}
    for key in [key for key in made if key.endswith("q_bias")]:
        q, v = made.pop(key), made.pop(key.replace("q_bias", "v_bias"))
        whole = key.replace("q_bias", "qkv.bias")
        made[whole] = torch.cat([q, torch.full_like(q, 7.0), v])
        made[f"{whole}_mask"] = torch.cat([q * 0 + 1, q * 0, q * 0 + 1])
    more = {"rope_embed.periods": torch.ones(2), "mask_token": torch.zeros(1, 32)}
    return made | more | {"local_cls_norm.weight": torch.ones(32)}


def pe(state: State) -> State:
    """Names of facebookresearch/perception_models, a whole one with its half for texts."""
    made: State = {
        "logit_scale": torch.ones(()),
        "transformer.resblocks.0.ln_1.weight": torch.ones(2),
    }
    pool = {leaf: [state[f"attn_pool.{part}.{leaf}"] for part in ("q", "kv")]
            for leaf in ("weight", "bias") if f"attn_pool.q.{leaf}" in state}  # fmt: skip
    own = {k: v for k, v in state.items() if not k.startswith(("attn_pool.q.", "attn_pool.kv."))}
    own |= {f"attn_pool.attn.in_proj_{leaf}": torch.cat(parts) for leaf, parts in pool.items()}
    for key, value in renamed(
        own, ("attn_pool.proj", "attn_pool.attn.out_proj"),
        ("attn_pool.norm", "attn_pool.layernorm"),
        ("attn_pool.latent", "attn_pool.probe"), ("patch_embed.proj", "conv1"),
        ("pos_embed", "positional_embedding"), ("cls_token", "class_embedding"),
        ("blocks.", "transformer.resblocks."), ("norm_pre", "ln_pre"),
        ("attn.qkv.", "attn.in_proj_"),
        ("attn.proj.", "attn.out_proj."), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
        ("norm1", "ln_1"), ("norm2", "ln_2"),
    ).items():  # fmt: skip
        name = f"ln_post.{key.removeprefix('norm.')}" if key.startswith("norm.") else key
        if name.endswith(("gamma_1", "gamma_2")):
            name = f"{name.replace('gamma_', 'ls_')}.gamma"
        if name in ("positional_embedding", "class_embedding"):
            value = value[0] if name.startswith("pos") else value[0, 0]
        if name.startswith("head."):
            if name == "head.weight":
                made["visual.proj"] = value.T.contiguous()
            continue
        made[f"visual.{name}"] = value
    return made


def eva02(state: State) -> State:
    """Names of baaivision/EVA."""
    made = renamed(
        state, ("mlp.norm.", "mlp.ffn_ln."), ("attn.norm.", "attn.inner_attn_ln."),
        ("q_proj.bias", "q_bias"), ("v_proj.bias", "v_bias"), ("fc1_g", "w1"), ("fc1_x", "w2"),
        ("mlp.fc1.", "mlp.w12."), ("mlp.fc2", "mlp.w3"),
    )  # fmt: skip
    return made | {
        "rope.freqs_cos": torch.ones(4, 4),
        "blocks.0.attn.rope.freqs_sin": torch.ones(2),
    }


def pretrained(state: State) -> State:
    """The same before fine-tuning, its last norm under the name of one behind the blocks."""
    made = {k.replace("fc_norm", "norm"): v for k, v in eva02(state).items() if "head" not in k}
    return made | {"lm_head.weight": torch.ones(9, 32), "mask_token": torch.ones(1, 1, 32)}


LAYER_SCALE = "vit_pe_lang_large_patch14_448"  # PE with LayerScale, no norm behind
FILES: dict[str, tuple[str, Callable[[State], State], str]] = {
    "DINOv3": (positioned.DINO, dinov3, "names of Meta's DINOv3: taken as timm's"),
    "DINOv3 plus": (positioned.PLUS, dinov3, "names of Meta's DINOv3: taken as timm's"),
    "PE core": (positioned.CORE, pe, "names of Meta's Perception Encoder: taken as timm's"),
    "PE spatial": (positioned.SPATIAL, pe, "names of Meta's Perception Encoder: taken as timm's"),
    "PE lang": (LAYER_SCALE, pe, "names of Meta's Perception Encoder: taken as timm's"),
    "EVA-02 CLIP": (positioned.CLIP, eva02, "names of BAAI's EVA: taken as timm's"),
    "EVA-02 small": ("eva02_tiny_patch14_224", eva02, "names of BAAI's EVA: taken as timm's"),
    "EVA-02 pretrained": ("eva02_base_patch14_224", pretrained, "names of BAAI's EVA: taken as ti"),
}  # fmt: skip


def require_the_same(found: Checkpoint, theirs: Any) -> None:
    """Check that what was read computes what timm's model does."""
    pixels = positioned.images().expand(-1, 3, -1, -1)
    with torch.inference_mode():
        expected = theirs(pixels)
        worst = (found.model(pixels) - expected).abs().max() / expected.abs().max()
    assert worst < OTHER_LIBRARY, worst


@pytest.mark.parametrize("kind", FILES)
def test_files_of_the_authors(kind: str, tmp_path: Path) -> None:
    name, written, told = FILES[kind]
    headless = any(word in kind for word in ("pretrained", "spatial", "lang"))
    bare: State = {"num_classes": 0} if headless else {}
    sizes: State = {"patch_size": 16, "in_chans": 3} | bare
    theirs: Any = positioned.made(name, **sizes)
    state = written(dict(theirs.state_dict()))
    if "PE" in kind and not bare:  # a projection has no bias
        theirs.head.bias.zero_()
    converted = checkpoint_filter_fn(copy.deepcopy(state), theirs)
    theirs.load_state_dict(converted)
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(InputError, match="a ViT of timm's Eva class, and nothing tells which; st"):
        load_checkpoint(tmp_path / "c.pth", dense=True)
    stated = Choices(model=name, num_heads=positioned.HEADS, image_size=positioned.SIZE)
    found = load_checkpoint(tmp_path / "c.pth", stated, dense=True)
    assert any(told in line for line in found.found), found.found
    require_the_same(found, theirs)
    assert found.vit.classes == (0 if bare else 5)


def test_a_bias_where_the_models_name_has_none(tmp_path: Path) -> None:
    """Meta's files have one of zeros in some models, which timm leaves out; others are used."""
    name = "vit_small_patch16_dinov3"
    theirs = positioned.made(f"{name}_qkvb", in_chans=3)
    torch.save(dinov3(dict(theirs.state_dict())), tmp_path / "c.pth")
    stated = Choices(model=name, num_heads=positioned.HEADS, image_size=positioned.SIZE)
    require_the_same(load_checkpoint(tmp_path / "c.pth", stated, dense=True), theirs)
