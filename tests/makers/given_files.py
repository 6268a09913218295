"""Files that are accepted or refused, made in the current folder, and command lines for them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import ParallelThingsBlock, VisionTransformer

from tests.conftest import DIGITS_LTMP, cluster_layers, load_torch
from tests.makers.checkpoint_contents import Hostile
from tests.makers.random_vits import ODD, build
from tests.makers.vit_pytorch import random_weights

State = dict[str, Any]
ARCH = "ltmp_vit_digits_patch4_32"
MERGE_2 = "blocks.2.merge_masker.threshold"


def top() -> State:
    """The digits checkpoint, free to be changed."""
    content = load_torch(DIGITS_LTMP)
    return content | {"state_dict": dict(content["state_dict"])}


def state() -> State:
    """Its state_dict."""
    return dict(top()["state_dict"])


def with_prefix(prefix: str) -> State:
    return {prefix + key: value for key, value in state().items()}


def saved(content: Any, *arguments: str, do: str = "inspect", **options: Any) -> list[str]:
    """Save it, and a command on it."""
    torch.save(content, "c.pth", **options)
    return [do, "c.pth", *arguments]


def changed(**values: Any) -> list[str]:
    """Export with other values in the state_dict; None takes one out."""
    content = top()
    for key, value in values.items():
        content["state_dict"].pop(key, None)
        if value is not None:
            content["state_dict"][key] = value
    return saved(content, do="export")


def renamed(arch: str) -> list[str]:
    return saved(top() | {"arch": arch, "args": argparse.Namespace()}, do="export")


def thresholds(*arguments: str, **more: Any) -> list[str]:
    """A file with thresholds only."""
    kept = {key: value for key, value in state().items() if "masker" in key}
    return saved(top() | {"state_dict": kept, "optimizer": {}} | more, *arguments, do="export")


def base(content: State) -> str:
    """A file with the dense weights, changed."""
    torch.save(dense() | content, "base.pth")
    return "base.pth"


def hugging_face() -> list[str]:
    Path("folder").mkdir()
    save_file(state(), "folder/model.safetensors")
    Path("folder/config.json").write_text(json.dumps({"architecture": ARCH}))
    return ["inspect", "folder"]


def safetensors() -> list[str]:
    save_file(state(), "model.safetensors", metadata={"arch": ARCH})
    return ["inspect", "model.safetensors"]


def lightning() -> list[str]:
    content = {"pytorch-lightning_version": "2.4.0", "state_dict": with_prefix("model.")}
    return saved(content | {"hyper_parameters": {"model_name": ARCH}})


def initial() -> list[str]:
    start = {k: torch.tensor([0.9 if "merge" in k else 0.0]) for k in state() if "masker" in k}
    return changed(**start)


def resnet() -> list[str]:
    return saved({"layer1.0.conv1.weight": torch.ones(2), MERGE_2: torch.ones(1)}, do="export")


def dense(**more: torch.Tensor) -> State:
    """The weights without the thresholds, and others."""
    return {key: value for key, value in state().items() if "masker" not in key} | more


def distilled() -> list[str]:
    """A second token, its head, and thresholds."""
    content = state() | {"dist_token": torch.ones(1, 1, 128)}
    content |= {f"head_dist.{part}": content[f"head.{part}"] for part in ("weight", "bias")}
    content["pos_embed"] = torch.cat([content["pos_embed"][:, :1], content["pos_embed"]], 1)
    return saved(top() | {"state_dict": content}, do="export")


def unclassed() -> list[str]:
    """Without class token, of a family that needs one."""
    content = {key: value for key, value in dense().items() if key != "cls_token"}
    return saved({"state_dict": content, "arch": "multiscale_mergence_vit"}, do="export")


def patchmerger(*arguments: str) -> list[str]:
    return saved(dense(**cluster_layers(128, 24, 9)), *arguments, do="export")


def things() -> list[str]:
    shape: dict[str, Any] = {"img_size": 12, "patch_size": 4, "embed_dim": 48, "depth": 1}
    model = VisionTransformer(**shape, num_heads=2, num_classes=3, block_fn=ParallelThingsBlock)
    return saved(model.state_dict(), *TWO_HEADS)


def vit_pytorch() -> list[str]:
    return saved(random_weights(), "--num-heads", "2", do="inspect")


def heads() -> list[str]:
    """A model of odd width, and a position embedding of no square."""
    model, _ = build(ODD)
    content = model.state_dict() | {
        f"blocks.{i}.prune_masker.threshold": torch.tensor([0.01]) for i in range(3)
    }
    return saved(content, do="export")


def malicious() -> list[str]:
    return saved(top() | {"extra": Hostile(Path("ran"))}, do="export")


def claims() -> list[str]:
    return changed(cls_token=torch.zeros(1).expand(10**6, 10**6))


def cut() -> list[str]:
    Path("c.pth").write_bytes(DIGITS_LTMP.read_bytes()[:100_000])
    return ["export", "c.pth"]


def exported(change: Callable[[onnx.ModelProto], None]) -> str:
    """An exported file, changed."""
    from ltmp_export import export

    export(DIGITS_LTMP, "model.onnx", check=False)
    model = onnx.load("model.onnx")
    change(model)
    onnx.save(model, "model.onnx")
    return "model.onnx"


def outside() -> list[str]:
    def move(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == "head.weight")
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")

    return ["check", exported(move), str(DIGITS_LTMP)]


def pictures(images: Any, labels: Any = None) -> list[str]:
    np.savez("images.npz", images=images, **({} if labels is None else {"labels": labels}))
    return ["check", exported(lambda model: None), str(DIGITS_LTMP), "--images", "images.npz"]


def clip() -> list[str]:
    """A norm before the blocks."""
    norm = {f"norm_pre.{part}": torch.ones(128) for part in ("weight", "bias")}
    return saved(state() | norm, "--family", "ltmp", *TWO_HEADS, do="export")


def unprepared() -> list[str]:
    np.savez("images.npz", images=DIGIT, labels=np.array([3, 1]))
    return saved(dense(), *TWO_HEADS, "--data", "images.npz", do="eval")


def headless() -> State:
    return {key: value for key, value in dense().items() if not key.startswith("head")}


def classifier() -> list[str]:
    content = {f"backbone.{key}": value for key, value in headless().items()}
    given = ("--family", "m", "--r", "8", *TWO_HEADS, "--no-check")
    return saved(content | {"classifier.weight": torch.ones(4, 128)}, *given, do="export")


def classifiers() -> list[str]:
    """Two layers that may be the classifier."""
    content = {f"backbone.{key}": value for key, value in headless().items()}
    both = {f"{name}.weight": torch.ones(4, 128) for name in ("classifier", "fc")}
    return saved(content | both, do="export")


def torchvision_vit() -> list[str]:
    import torchvision

    model = torchvision.models.VisionTransformer(32, 8, 1, 2, 64, 128, num_classes=5)
    return saved(model.state_dict(), *TWO_HEADS)


def transformers_swin() -> list[str]:
    """A folder of a model that is not covered."""
    Path("folder").mkdir()
    weights = {"swin.embeddings.patch_embeddings.projection.weight": torch.ones(4, 3, 4, 4)}
    save_file(weights, "folder/model.safetensors")
    config = {"architectures": ["SwinModel"], "model_type": "swin"}
    Path("folder/config.json").write_text(json.dumps(config))
    return ["export", "folder"]


def mae() -> list[str]:
    decoder = {
        "decoder_pos_embed": torch.zeros(1, 65, 8),
        "decoder_embed.weight": torch.ones(8, 128),
    }
    return saved({"model": dense(**decoder)}, *TWO_HEADS)


def zoo(model: str = "topk", *, do: str = "inspect", **others: Any) -> list[str]:
    """A file of TokenReduction's; None takes an entry of its top level away."""
    args = argparse.Namespace(
        model=f"{model}_small_patch4_32", reduction_loc=[1, 2], keep_rate=[0.25, 0.2]
    )
    content = {"model": dense(), "model_ema": dense(), "ema_best": True, "args": args} | others
    left = {key: value for key, value in content.items() if value is not None}
    return saved(left, "--num-heads", "2", do=do)


def dino() -> list[str]:
    """A student and its average."""
    both = {key: with_prefix("module.backbone.") for key in ("student", "teacher")}
    return saved(both, do="export")


def given_up() -> list[str]:
    name = "vit_small_patch16_224_dino"
    model = timm.create_model("vit_small_patch16_224", depth=1, num_classes=3)
    return saved({"state_dict": model.state_dict(), "arch": name}, "--family", "m", "--r", "8")


def numbered() -> list[str]:
    """A picture in each of ten folders, 1 to 10."""
    for number in range(1, 11):
        Path("data", str(number)).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(f"data/{number}/a.png")
    normalised = ("--mean", "0.5", "--std", "0.5")
    return saved(dense(), *TWO_HEADS, *normalised, "--data", "data", do="eval")


TWO_HEADS = ("--num-heads", "2")
NOT_A_NUMBER = np.full((2, 3, 32, 32), np.nan, np.float32)
DIGIT = np.zeros((2, 32, 32), np.uint8)
