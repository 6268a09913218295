"""What an exported graph is, in a few lines that two versions of the writing code can be held by.

`python -m tests.makers.graph_summary` writes `fixtures/graphs.json` anew: after a change of the
graphs that is meant, never to make a test pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from timm.layers import GELUTanh, HybridEmbed, RmsNorm, SwiGLU
from timm.models.deit import VisionTransformerDistilled
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import (
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ResPostBlock,
    VisionTransformer,
)
from timm.models.vitamin import GeGluMlp, MbConvStages, VitCfg
from torch import Tensor, nn

from ltmp_export import families
from ltmp_export.backbones import chosen
from ltmp_export.backbones.swin.geometry import Swin
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from ltmp_export.model_file.model import to_onnx
from ltmp_export.plan import outputs
from ltmp_export.plan.linears import rounded
from ltmp_export.plan.plan import Plan, dense_plan
from ltmp_export.plan.positions import DESTINATION, MEAN
from ltmp_export.precision.formats import DYNAMIC, FP16, INT8, Activation, Precision
from ltmp_export.statements.choices import Choices
from tests.makers import examples, hybrids, positioned, swins

STORED = Path(__file__).parent.parent / "fixtures" / "graphs.json"
OPSETS = (16, 17, 20)

Print: TypeAlias = tuple[float, float, float]  # two projections of an array and its length
Floats: TypeAlias = dict[str, Print]


class Case(NamedTuple):
    """One export: its name, of what, and how."""

    name: str
    checkpoint: Checkpoint
    precision: Precision
    opset: int
    batch_size: int | None
    outputs: tuple[str, ...] | None = None


def cases() -> Iterator[Case]:
    """Every family in every form, precision and opset; options of a ViT in one family."""
    plain = _model({})
    for family in families.names():
        for form, plan in examples.plans(family, 3, _drawn).items():
            yield from _exports(f"{family} {form}", _checkpoint(plain, plan))
    for name, model in _others():
        for family in ("ltmp", "pm") if not _distilled(model) else ("m", "p"):
            for form, plan in examples.plans(family, 3, _drawn, model.num_prefix_tokens).items():
                yield from _exports(f"{family} {form}, {name}", _checkpoint(model, plan), (17,))
    for made, hard in ((hybrids.MOBILEVIT, True), (hybrids.EFFICIENTVIT, False)):
        masks = f"ltm_transformer {'hard' if hard else 'soft'}, {made}"
        yield from _exports(masks, _hybrid(made, hard), (17,))
    yield from _positioned()
    for form, checkpoint in _swins():
        yield from _exports(f"swin {form}", checkpoint, (17,))
    yield from _beside()
    yield from _behind_bottlenecks()
    yield from _owners()


def _owners() -> Iterator[Case]:
    """Files that tell what became of each patch, with and without a class token."""
    registers = {"class_token": False, "reg_tokens": 2, "global_pool": "avg", "num_classes": 0}
    for name, model in (("plain", _model({})), ("registers", _model(registers))):
        for family in ("ltmp", "pm", "evit") if name == "plain" else ("ltmp", "m"):
            for form, plan in examples.plans(family, 3, _drawn, model.num_prefix_tokens).items():
                checkpoint = _checkpoint(model, plan)
                given = outputs.of(checkpoint.geometry, plan)
                for batch_size in (None, 1):
                    size = "any batch" if batch_size is None else "single"
                    told = f"{family} {form}, {name}, all outputs, {size}"
                    yield Case(told, checkpoint, Precision(), 17, batch_size, given)


def _behind_bottlenecks() -> Iterator[Case]:
    """A ViT behind ViTamin's stem, with its MLPs."""
    stem = MbConvStages(VitCfg((8, 16, 48), (1, 2), 8))
    options = {"embed_layer": partial(HybridEmbed, backbone=stem, proj=False), "patch_size": 1}
    options |= {"img_size": (64, 48), "class_token": False, "global_pool": "avg"}
    model = _model(options | {"mlp_layer": GeGluMlp})
    plan = examples.plans("ltmp", 3, _drawn)["dynamic"]
    for opset in OPSETS:
        told = f"ltmp, behind bottlenecks, {opset}"
        yield Case(told, _checkpoint(model, plan), Precision(), opset, None)
    for kind, precision in _precisions(_checkpoint(model, plan)).items():
        if kind in ("fp16", "int8"):
            told = f"ltmp, behind bottlenecks, {kind}"
            yield Case(told, _checkpoint(model, plan), precision, 17, 1)


def _beside() -> Iterator[Case]:
    """ViTs whose MLPs run beside attention, with thresholds and with fixed numbers."""
    registers = {"class_token": False, "reg_tokens": 1, "global_pool": "avg", "num_heads": 2}
    for name, block in (
        ("plain", ParallelScalingBlock),
        ("differential", DiffParallelScalingBlock),
    ):
        options = {"block_fn": block, "qkv_bias": block is not ParallelScalingBlock}
        model = _model(registers | options)
        for family in ("ltmp", "pm"):
            for form, plan in examples.plans(family, 3, _drawn).items():
                checkpoint = _checkpoint(model, plan)
                for kind, precision in _precisions(checkpoint).items():
                    told = f"{family} {form}, MLP beside {name} attention, {kind}"
                    yield Case(told, checkpoint, precision, 17, None)


def _positioned() -> Iterator[Case]:
    """ViTs whose attention knows places, with thresholds and with fixed numbers."""
    for name in (positioned.CLIP, positioned.MIXED, positioned.BEIT):
        model = _filled(positioned.made(name, num_classes=5))
        merged = DESTINATION if name == positioned.BEIT else MEAN
        for family in ("ltmp", "pm"):
            for form, plan in examples.plans(family, 3, _drawn).items():
                checkpoint = _checkpoint(model, replace(plan, merged_position=merged))
                yield Case(f"{family} {form}, {name}", checkpoint, Precision(), 17, None)


def _swins() -> Iterator[tuple[str, Checkpoint]]:
    """A Swin Transformer that reduces nothing, and under masks."""
    model = _filled(SwinTransformer(**swins.DEFAULTS))
    dense = _checkpoint(model, dense_plan(sum(swins.DEFAULTS["depths"])))
    yield "dense", dense
    for word, hard in (("soft", False), ("hard", True)):
        plan = swins.started(dense.geometry, hard=hard, ratio=swins.RATIO)
        drawn = {name: _drawn(name, tuple(v.shape)).abs() for name, v in plan.parameters.items()}
        yield word, replace(dense, plan=replace(plan, parameters=drawn))


def _exports(name: str, checkpoint: Checkpoint, opsets: tuple[int, ...] = OPSETS) -> Iterator[Case]:
    for kind, precision in _precisions(checkpoint).items():
        for opset in (17,) if kind in _RARE else opsets:
            for batch_size in (None, 1):
                size = "any batch" if batch_size is None else "single"
                yield Case(
                    f"{name}, {size}, {kind}, {opset}", checkpoint, precision, opset, batch_size
                )


def _precisions(checkpoint: Checkpoint) -> dict[str, Precision]:
    def layers(scale: float | None) -> dict[str, Activation]:
        return {
            layer.path: Activation(scale, 100 + number, 2 if layer.fine else 1)
            for number, layer in enumerate(rounded(checkpoint.geometry))
        }

    own = checkpoint.geometry
    paths = [f"blocks.{block}" for block in range(3)]
    if isinstance(own, Swin):
        paths = [place.path for place in own.places()]
    kept = {f"{paths[1]}.attn.scores": 7e4, f"{paths[2]}.mlp.fc2": 8e4}
    return {
        "fp32": Precision(),
        "fp16": Precision(FP16, calibration="test", kept=kept),
        "fp16 io": Precision(FP16, io=FP16, protected=False),
        "int8": Precision(INT8, layers=layers(0.03125), calibration="test"),
        "int8 dynamic": Precision(INT8, scales=DYNAMIC, layers=layers(None)),
    }


_RARE = ("fp16 io", "int8 dynamic")  # no other form of theirs depends on the opset
_DEFAULTS: dict[str, Any] = {
    "img_size": 12,
    "patch_size": 4,
    "num_classes": 5,
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 3,
    "mlp_ratio": 2.0,
    "norm_layer": partial(nn.LayerNorm, eps=1e-6),
}


def _others() -> Iterator[tuple[str, VisionTransformer]]:
    """ViTs that between them have all options which change the graph."""
    yield (
        "options",
        _model(
            {
                "img_size": (16, 20),
                "patch_size": (4, 5),
                "qk_norm": True,
                "init_values": 1e-5,
                "pre_norm": True,
                "global_pool": "avg",
                "no_embed_class": True,
                "qkv_bias": False,
                "scale_attn_norm": True,
                "scale_mlp_norm": True,
                "act_layer": nn.SiLU,
            }
        ),
    )
    yield "average, tanh", _model({"global_pool": "avg", "act_layer": GELUTanh})
    yield "distilled", _model({}, VisionTransformerDistilled)
    rms = partial(RmsNorm, eps=1e-5)
    gated = {"mlp_layer": SwiGLU, "norm_layer": rms, "act_layer": nn.SiLU, "global_pool": "map"}
    yield "SwiGLU, RMSNorm, attention pooling", _model(gated)
    halves = {"attn_layer": "diff", "block_fn": ResPostBlock, "num_heads": 2}
    yield "differential attention, norms behind", _model(halves)


def _model(
    options: dict[str, Any], kind: type[VisionTransformer] = VisionTransformer
) -> VisionTransformer:
    return _filled(kind(**(_DEFAULTS | options)))


def _filled(model: Any) -> Any:
    """A model in eval mode, with numbers."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(_drawn(name, tuple(value.shape)))
    model.eval().requires_grad_(False)
    return model


def _distilled(model: VisionTransformer) -> bool:
    return isinstance(model, VisionTransformerDistilled)


def _drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Multiples of 1/512 that look drawn: the same numbers on every machine."""
    salt = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16)
    numbers = np.arange(salt, salt + int(np.prod(shape)), dtype=np.int64)
    values = (numbers * 7919 % 1009 - 504) / 1024
    if "norm" in name and name.endswith("weight"):
        values = 1 + values / 2
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def _hybrid(made: hybrids.Made, hard: bool) -> Checkpoint:
    """A small network of convolutions and attention, one merge in each stage."""
    model = made.make()
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(_drawn(name, tuple(value.shape)))
    geometry = made.describe(model)
    plan = hybrids.planned(geometry, hybrids.RATIO, hard=hard)
    drawn = {name: _drawn(name, tuple(value.shape)) for name, value in plan.parameters.items()}
    return replace(
        _checkpoint(_model({}), replace(plan, parameters=drawn)), geometry=geometry, model=model
    )


def _checkpoint(model: nn.Module, plan: Plan) -> Checkpoint:
    describe = chosen.module(chosen.by_class(model), "describe")
    return Checkpoint(
        path=Path("made.pth"),
        sha256="0" * 64,
        base_sha256=None,
        arch=None,
        plan=plan,
        geometry=describe.describe(model, "made"),
        model=model,
        preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, 0.875, "bicubic"),
        label_names=None,
        choices=Choices(),
        found=(),
        notes=(),
        warnings=(),
    )


def summary(case: Case) -> tuple[str, Floats]:
    """A digest of all that is exact in a case's file, and what its floats are nearly."""
    model = to_onnx(
        case.checkpoint,
        opset=case.opset,
        batch_size=case.batch_size,
        token_counts=case.batch_size is None,
        precision=case.precision,
        outputs=case.outputs,
    )
    digest = hashlib.sha256()

    def add(*parts: object) -> None:
        digest.update(repr(parts).encode())

    add(model.ir_version, [(o.domain, o.version) for o in model.opset_import], model.graph.name)
    for entry in sorted(model.metadata_props, key=lambda entry: entry.key):
        if entry.key != "ltmp.versions":
            add(entry.key, entry.value)
    for value in (*model.graph.input, *model.graph.output):
        add(value.name, str(value.type))
    for node in model.graph.node:
        attributes = sorted((a.name, _plain(a)) for a in node.attribute)
        add(node.op_type, node.domain, node.name, list(node.input), list(node.output), attributes)
    floats: Floats = {}
    for tensor in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        array = numpy_helper.to_array(tensor)
        add(tensor.name, str(array.dtype), array.shape)
        if array.dtype.kind == "f":
            floats[tensor.name] = fingerprint(array)
        else:
            add(hashlib.sha256(array.tobytes()).hexdigest())
    return digest.hexdigest(), floats


def _plain(attribute: onnx.AttributeProto) -> object:
    value = onnx.helper.get_attribute_value(attribute)
    return list(value) if isinstance(value, (list, tuple)) or hasattr(value, "extend") else value


def fingerprint(array: NDArray[Any]) -> Print:
    """Two projections of all numbers, and their length: a changed number changes these."""
    flat = array.astype(np.float64).reshape(-1)
    place = np.arange(len(flat), dtype=np.int64)
    one, other = ((place * prime % 1009 - 504) / 504 for prime in (37, 611))
    return float(flat @ one), float(flat @ other + flat.sum()), float(np.linalg.norm(flat))


def alike(one: Print, other: Print) -> bool:
    """Whether two arrays are the same to 1e-6 of their length."""
    return all(abs(a - b) <= 1e-6 * max(one[2], 1e-30) for a, b in zip(one, other, strict=True))


def record() -> None:
    """Write down what the graphs are."""
    known: dict[str, list[Print]] = {}
    graphs = {}
    for case in cases():
        digest, floats = summary(case)
        places = {}
        for name, found in floats.items():
            prints = known.setdefault(name, [])
            same = [at for at, one in enumerate(prints) if alike(one, found)]
            if not same:
                prints.append(found)
            places[name] = same[0] if same else len(prints) - 1
        graphs[case.name] = [digest, {name: place for name, place in places.items() if place}]
    STORED.write_text(json.dumps({"floats": known, "graphs": graphs}, indent=0) + "\n")


if __name__ == "__main__":
    record()
