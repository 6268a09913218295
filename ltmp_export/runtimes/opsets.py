"""Which opsets files can be written at, by what they are to hold: tried on tiny models.

That onnxruntime loads an opset says nothing of its operators: 1.32 loads 28, and has no kernel
there for QuantizeLinear. So tiny models of the forms that are written, in the precision asked for,
are loaded before any work.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from ltmp_export.backbones import chosen
from ltmp_export.backbones.vit import lower
from ltmp_export.errors import ExportError, InputError
from ltmp_export.graph.builder import OLDEST_OPSET, GraphBuilder
from ltmp_export.plan import outputs
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.linears import EMBEDDING, Linear, rounded
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.vit import Vit
from ltmp_export.precision.formats import FP32, INT8, PRODUCTS, STATIC, Activation, Precision
from ltmp_export.runtimes.session import Session
from ltmp_export.steps.absorb.step import Absorb
from ltmp_export.steps.cluster.step import Cluster
from ltmp_export.steps.contextual.step import Contextual
from ltmp_export.steps.medoids.step import Medoids
from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.merge_mask.step import MergeMask
from ltmp_export.steps.merge_most.step import MergeMost
from ltmp_export.steps.merge_some.step import MergeSome
from ltmp_export.steps.patch_merge.step import PatchMerge
from ltmp_export.steps.predict.step import Predict
from ltmp_export.steps.prune.step import Prune
from ltmp_export.steps.prune_least.step import PruneLeast
from ltmp_export.steps.rank.step import Rank
from ltmp_export.steps.sample.step import Sample
from ltmp_export.steps.slim.step import Slim
from ltmp_export.steps.transport.step import Transport

DEFAULT_ACTIVATION = "gelu"
CERTAIN_OPSET = 19  # up to which any onnxruntime this package takes has all that float32 needs
_LEARNED = Plan("ltmp", ((Merge(0.5), Prune(0.1)), (Prune(0.1), Merge(0.5))))
_COUNTED = ((PruneLeast(2), MergeMost(2)), (MergeMost(1, ranked=True),))
_KEPT, _RESTORED = (
    MergeMask(f"blocks.{block}.ltm", "ltm.mask0", 16, 4, hard=True, restore=block == 1)
    for block in range(2)
)
_SHARED = Transport("transport", 8, 1.0, 2)
_SAMPLED = Plan("ats", ((), (Sample(6),)))
_FORMS: tuple[tuple[Plan, int | None], ...] = (
    (_LEARNED, None),
    (_LEARNED, 1),
    (_LEARNED.within((9, 7)), None),
    (Plan("m", _COUNTED, {1: PatchMerge("mixer", 4, 1.0, 1e-5)}), None),
    (Plan("dynamicvit", ((), ()), {0: Predict("predictor", 12), 1: Slim("slim", 8, 4)}), None),
    (Plan("dpcknn", ((), ()), {0: Cluster("cluster", 12, 3), 1: _SHARED}), None),
    (_SAMPLED, None),
    (_SAMPLED, 1),
    (Plan("kmedoids", ((), ()), {1: Medoids(12, 2)}), None),
    *((Plan("dymu", ((MergeSome(0.5),), ())), size) for size in (None, 1)),
    (Plan("visionzip", ((), (Contextual(4, 3),))), None),
    (Plan("diffrate", ((Rank(14), Absorb(9)), (Rank(6), Absorb(3)))), None),
    (Plan("ltm_transformer", ((_KEPT,), ())), None),
    (Plan("ltm_transformer", ((), (_RESTORED,))), None),
)  # and batch size; what a dense model holds they hold, too


@dataclass(frozen=True)
class Form:
    """What decides which operators a file holds, as far as it is known before any work.

    Attributes:
        kind: Precision.
        io: Of `images` and `logits`.
        scales: Of int8 activations.
        protected: Whether decisions are protected.
        activation: Of the MLPs.
        backbone: Kind of network.
        int8_form: Of int8 layers.
    """

    kind: str = FP32
    io: str = FP32
    scales: str = STATIC
    protected: bool = True
    activation: str = DEFAULT_ACTIVATION
    backbone: str = chosen.VIT
    int8_form: str = PRODUCTS


def require(
    opset: int,
    precision: Precision | None = None,
    activation: str = DEFAULT_ACTIVATION,
    backbone: str = chosen.VIT,
) -> None:
    """Check that files in a precision can be written and run at this opset.

    Args:
        opset: Version of the standard domain.
        precision: In which numbers they are to compute, float32 by default.
        activation: Of the MLPs, see `plan.vit.Vit`.
        backbone: Kind of network, see `backbones.chosen`.

    Raises:
        InputError: It is older or newer than supported, or onnxruntime lacks an operator there.
    """
    asked = precision or Precision()
    if asked.kind == FP32 and OLDEST_OPSET <= opset <= CERTAIN_OPSET:
        return
    form = Form(
        asked.kind, asked.io, asked.scales, asked.protected, activation, backbone, asked.int8_form
    )
    runtime = f"the installed onnxruntime {version('onnxruntime')}"
    if not OLDEST_OPSET <= opset <= newest_opset():
        raise InputError(
            f"opset {opset} is not supported; choose from {OLDEST_OPSET} to {newest(form)} "
            f"(the newest at which {runtime} has all that {asked.kind} needs)"
        )
    if lacking := missing(form, opset):
        raise InputError(
            f"opset {opset} is not supported in {asked.kind}: {runtime} {lacking}; choose from "
            f"{OLDEST_OPSET} to {newest(form)} with --opset"
        )


@functools.cache
def newest_opset() -> int:
    """The newest opset of the standard domain that the installed onnxruntime loads.

    What it runs there is another question, see `newest`.
    """
    for opset in range(onnx.defs.onnx_opset_version(), OLDEST_OPSET, -1):
        g = GraphBuilder(opset, {})
        g.output(g.input("x", TensorProto.FLOAT, [1]), "y", TensorProto.FLOAT, [1])
        with contextlib.suppress(ExportError):
            Session(g.build("probe", {}), threads=1, quiet=True)
            return opset
    return OLDEST_OPSET


@functools.cache
def newest(form: Form) -> int:
    """The newest opset at which files of a form run."""
    tried = range(newest_opset(), OLDEST_OPSET, -1)
    return next((opset for opset in tried if not missing(form, opset)), OLDEST_OPSET)


@functools.cache
def missing(form: Form, opset: int) -> str:
    """What onnxruntime lacks for a form at an opset it loads, as in "has no kernel for …"."""
    for model in _models(form, opset):
        try:
            Session(model, threads=1, quiet=True, optimised=False)
        except ExportError as err:
            operator = re.search(r"implementation for (\w+)\(\d+\)", str(err))
            if operator is None:
                return f"does not run such files there ({str(err).splitlines()[0]:.200})"
            return f"has no kernel for {operator[1]} there"
    return ""


def _models(form: Form, opset: int) -> Iterator[onnx.ModelProto]:
    """Tiny models of a form, which together hold the operators that files of it hold."""
    if form.backbone != chosen.VIT:
        probe = chosen.module(form.backbone, "probe")
        tiny: Geometry = probe.geometry(form.activation)
        yield from probe.models(opset, _precision(form, rounded(tiny)), form.activation)
        return
    vit = Vit(
        "probe", image_size=(8, 8), patch_size=(2, 2), in_chans=1, classes=2, depth=2, width=8,
        mlp_width=8, heads=2, head_width=4, norm_eps=1e-6, activation=form.activation, pool="token",
    )  # fmt: skip
    weights, precision = _weights(vit), _precision(form, rounded(vit))
    for plan, batch_size in _FORMS:
        yield lower.lower(
            vit, plan, weights, opset=opset, batch_size=batch_size, token_counts=True,
            outputs=outputs.of(vit, plan), precision=precision,
        )  # fmt: skip


def _precision(form: Form, linears: Iterable[Linear]) -> Precision:
    """That of a form, with scales that mean nothing for int8 layers."""
    layers = {}
    if form.kind == INT8:
        scale = 0.1 if form.scales == STATIC else None
        layers = {layer.path: Activation(scale, terms=1 + (layer.block == 0)) for layer in linears}
    return Precision(
        form.kind, form.protected, form.io, form.scales, layers, int8_form=form.int8_form
    )


def _weights(vit: Vit) -> dict[str, NDArray[np.float32]]:
    """Weights of a model with each part that a ViT may have, by timm name."""
    width, patch = vit.width, (vit.in_chans, *vit.patch_size)
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, vit.tokens, width),
        "mixer.queries": (4, width),
        "ltm.mask0": (vit.patches, 4),
        "slim.scale": (1, 1, 1),
        "transport.v": (8, width),
    }
    own = {
        "predictor.in_conv.1": (width, width),
        "predictor.out_conv.0": (width // 2, width),
        "predictor.out_conv.2": (width // 4, width // 2),
        "predictor.out_conv.4": (2, width // 4),
        "slim.weight.1": (4, width),
        "slim.weight.3": (8, 4),
        "cluster.score": (1, width),
    }
    for path, sides in own.items():
        shapes |= {f"{path}.weight": sides, f"{path}.bias": sides[:1]}
    for layer in vit.linears():
        shapes[f"{layer.path}.weight"] = (layer.outs, layer.ins)
        shapes[f"{layer.path}.bias"] = (layer.outs,)
    shapes[f"{EMBEDDING}.weight"] = (width, *patch)
    norms = dict.fromkeys(("norm", "mixer.norm", "predictor.in_conv.0", "slim.weight.0"), width)
    for block in (f"blocks.{index}" for index in range(vit.depth)):
        norms |= {f"{block}.norm1": width, f"{block}.norm2": width}
        norms |= {f"{block}.attn.q_norm": vit.head_width, f"{block}.attn.k_norm": vit.head_width}
        shapes |= {f"{block}.ls1.gamma": (width,), f"{block}.ls2.gamma": (width,)}
        shapes |= {f"{block}.ltm.center": (width,), f"{block}.ltm.step": (1,)}
    for path, length in norms.items():
        shapes |= {f"{path}.weight": (length,), f"{path}.bias": (length,)}
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
