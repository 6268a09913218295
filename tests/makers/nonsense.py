"""What makes no sense, as hypothesis strategies: values, checkpoints, command lines."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ltmp_export.timing import report as timing
from tests.makers.strategies import DEPTHS, MARK, floats, integers, mutated, texts


def _containers(values: SearchStrategy[Any]) -> SearchStrategy[Any]:
    keys = st.one_of(texts, st.integers(-2, 9))
    return st.one_of(
        st.lists(values, max_size=4),
        st.lists(values, max_size=4).map(tuple),
        st.dictionaries(keys, values, max_size=4),
        st.dictionaries(keys, values, max_size=3).map(OrderedDict),
        st.dictionaries(st.sampled_from(("a", "model", "mean")), values, max_size=3).map(
            lambda pairs: argparse.Namespace(**pairs)
        ),
    )


_DTYPES = [*(torch.float32,) * 3, torch.float16, torch.bfloat16, torch.float64, torch.int64]
_DTYPES += [torch.uint8, torch.bool, torch.complex64]
small_tensors = st.builds(
    lambda shape, dtype, fill: torch.full(shape, fill).to(dtype),
    st.lists(st.integers(0, 5), max_size=5),
    st.sampled_from(_DTYPES),
    st.sampled_from((0.0, 1.0, -1.0, 0.5, float("nan"), float("inf"), 1e30)),
)
json_leaves = st.one_of(st.none(), st.booleans(), integers, floats, texts)
numbers = st.lists(st.one_of(integers, floats), max_size=5)
leaves = st.one_of(
    json_leaves,
    numbers,
    numbers.map(tuple),
    small_tensors,
    st.binary(max_size=5),
    st.sampled_from(
        (
            torch.float32,
            torch.Size([1, 2]),
            torch.device("cpu"),
            PurePosixPath("a/b"),
            np.float32(0.5),
            np.int64(7),
            {1, 2},
            frozenset((1,)),
            range(3),
            1j,
            "avg",
            "token",
            "map",
            "ltmp_deit_tiny_patch16_224",
            "ltm_resnet18",
            "m_x",
        )
    ),
)
values = st.recursive(leaves, _containers, max_leaves=6)


def _json_containers(values: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.one_of(
        st.lists(values, max_size=4), st.dictionaries(texts, values, max_size=4), numbers
    )


json_values = st.one_of(
    st.recursive(json_leaves, _json_containers, max_leaves=8),
    st.sampled_from((10**400, 10**4200, -(10**400), [10**400] * 3, [3, 10**4000, 10**4000])),
)


@st.composite
def json_texts(draw: st.DrawFn, document: Mapping[str, Any]) -> bytes:
    """A JSON document with other values, deep ones, or damage."""
    made = dict(document)
    for _ in range(draw(st.integers(1, 3)) if document else 0):
        key = draw(st.sampled_from(sorted(document)))
        inner = made[key]
        if isinstance(inner, dict) and inner and draw(st.integers(0, 3)):
            made[key] = inner | {draw(st.sampled_from(sorted(inner))): draw(json_values)}
        else:
            made[key] = draw(json_values)
    text = json.dumps(made).encode()
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return draw(mutated(text))
    if kind == 1:
        deep = b"[" * draw(st.sampled_from(DEPTHS))
        return text[:-1] + b', "mean": ' + deep + b"1" + deep.replace(b"[", b"]") + b"}"
    return text


# What a report and a repro of this tool begin as

REPRO: dict[str, Any] = dict.fromkeys(
    ("model", "checkpoint", "verdict", "reason", "where"), "m.onnx"
)
REPRO |= {"schema_version": 1, "model_sha256": "0", "checkpoint_sha256": "0", "row": 0}
REPRO |= {"batch": ["a", "b"], "choices": {"num_heads": 2, "mean": [0.5]}, "base_checkpoint": None}
REPRO |= {"image": "a"}
TIMINGS = [
    {"model": name, "batch_size": 1, "samples": [[1.0, 2.0]] * 10} for name in ("reduced", "dense")
]
REPORT: dict[str, Any] = {
    "kind": "bench",
    "schema_version": timing.SCHEMA_VERSION,
    "baseline": "dense",
}
REPORT |= {"timings": TIMINGS, "images_sha256": "0", "images": "a", "threads": 1}


# Checkpoints


def vit_state(
    *,
    width: int = 8,
    patch: Sequence[int] = (4, 4),
    channels: int = 1,
    rows: int = 5,
    classes: int = 3,
    depth: int = 2,
    hidden: int = 8,
    head: int = 4,
    seed: int = 0,
) -> dict[str, Any]:
    """A ViT's state_dict of any geometry; q_norm tells the number of heads."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def layer(name: str, *shape: int) -> dict[str, Any]:
        return {f"{name}.weight": normal(*shape), f"{name}.bias": normal(shape[0])}

    state = {"cls_token": normal(1, 1, width), "pos_embed": normal(1, rows, width)}
    state |= layer("patch_embed.proj", width, channels, *patch)
    for i in range(depth):
        block = f"blocks.{i}"
        for norm in ("norm1", "norm2"):
            state |= layer(f"{block}.{norm}", width)
        for norm in ("q_norm", "k_norm"):
            state |= layer(f"{block}.attn.{norm}", head)
        state |= layer(f"{block}.attn.qkv", 3 * width, width)
        state |= layer(f"{block}.attn.proj", width, width)
        state |= layer(f"{block}.mlp.fc1", hidden, width)
        state |= layer(f"{block}.mlp.fc2", width, hidden)
        state[f"{block}.merge_masker.threshold"] = torch.tensor([0.5])
        state[f"{block}.prune_masker.threshold"] = torch.tensor([0.1])
    return state | layer("norm", width) | layer("head", classes, width)


def training_checkpoint(state: Mapping[str, Any]) -> dict[str, Any]:
    """What timm's script writes around a state_dict."""
    args = dict.fromkeys(("model", "mean", "std", "crop_pct", "interpolation", "img_size", "gp"))
    args |= {"num_classes": 3, "in_chans": 1, "input_size": None, "label_names": None}
    args |= {"mean": [0.5], "std": [0.5]}
    groups = [{"params": [0, 1], "lr": 0.1}]
    return {
        "epoch": 3,
        "arch": "ltmp_tiny",
        "state_dict": dict(state),
        "optimizer": {"state": {}, "param_groups": groups},
        "args": argparse.Namespace(**args),
        "version": 2,
    }


_NAMES = ["state_dict_ema", "model", "model_ema", "hyper_parameters", "optimizer_states"]
_NAMES += ["pytorch-lightning_version"]
_PREFIXES = ("module.", "_orig_mod.", "model.", "ema.", "a.b.", "blocks.0.", "\x1b[1m")
_KEYS = ["blocks.7.x", "blocks.00.merge_masker.threshold", "blocks." + "9" * 5000 + ".x"]
_KEYS += ["blocks." + "9" * 5000 + ".merge_masker.threshold", "dist_token", "fc_norm.weight"]


@st.composite
def checkpoints(draw: st.DrawFn, state: Mapping[str, Any]) -> Any:
    """A checkpoint with one to four things in it that are not right."""
    top: dict[Any, Any] = training_checkpoint(state)
    for _ in range(draw(st.integers(1, 4))):
        weights, args = top["state_dict"], top["args"]
        kind = draw(st.sampled_from(("top", "args", "args", "weights", "tensor", "keys", "new")))
        if kind == "top":
            key = draw(st.sampled_from((*top, *_NAMES)))
            top[key] = draw(values)
        elif kind == "args" and isinstance(args, argparse.Namespace) and vars(args):
            setattr(args, draw(st.sampled_from(sorted(vars(args)))), draw(values))
        elif not isinstance(weights, dict) or not weights:
            top[draw(values_of_keys)] = draw(values)
        elif kind == "weights":
            weights[draw(st.sampled_from(list(weights)))] = draw(values)
        elif kind == "tensor":
            key = draw(st.sampled_from(list(weights)))
            spoil = draw(st.sampled_from(_SPOILT))
            if isinstance(weights[key], torch.Tensor):
                with contextlib.suppress(RuntimeError, IndexError):  # it was spoilt before
                    weights[key] = spoil(weights[key])
        elif kind == "keys":
            top["state_dict"] = draw(renamed(weights))
        else:
            weights[draw(st.one_of(st.sampled_from(_KEYS), values_of_keys))] = draw(values)
    return draw(st.sampled_from((top, top, top, top["state_dict"], [top], {"model": top})))


values_of_keys = st.one_of(texts, st.integers(-2, 9), st.none(), st.binary(max_size=3))


@st.composite
def renamed(draw: st.DrawFn, weights: Mapping[Any, Any]) -> dict[Any, Any]:
    """The same with prefixes, twice, or in part."""
    prefix = draw(st.sampled_from(_PREFIXES))
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return {f"{prefix}{key}": value for key, value in weights.items()}
    if kind == 1:
        return {**weights, **{f"{prefix}{key}": value for key, value in weights.items()}}
    names = list(weights)
    chosen = set(draw(st.lists(st.sampled_from(names), max_size=3)))
    if kind == 2:
        return {key: value for key, value in weights.items() if key not in chosen}
    return {f"{prefix}{key}" if key in chosen else key: weights[key] for key in names}


def _with_first(tensor: torch.Tensor, value: float) -> torch.Tensor:
    made = tensor.clone()
    made.view(-1)[:1] = value
    return made


_SPOILT = (
    lambda t: _with_first(t, float("nan")),
    lambda t: _with_first(t, float("inf")),
    lambda t: t * 1e38,
    lambda t: t.double() * 1e300,
    lambda t: t.half(),
    lambda t: t.bfloat16(),
    lambda t: t.to(torch.int8),
    lambda t: t.mT if t.ndim > 1 else t[:0],
    lambda t: t[None],
    lambda t: t.flatten(),
    lambda t: t.new_zeros(()),
    lambda t: t[:1].expand(1000, *t.shape[1:]),
    lambda t: torch.cat([t, t]),
    lambda t: t.repeat_interleave(2, -1)[..., ::2],
    lambda t: t.to_sparse(),
    lambda t: torch.nn.Parameter(t),
)


@st.composite
def geometries(draw: st.DrawFn) -> dict[str, Any]:
    """Shapes that no one trains."""
    sizes = {
        "width": st.sampled_from((4, 8, 16, 0, 1, 12)),
        "patch": st.tuples(st.integers(0, 5), st.integers(1, 5)),
        "channels": st.sampled_from((1, 3, 2, 4, 300, 0)),
        "rows": st.sampled_from((5, 2, 1, 0, 3, 4, 10, 17, 101)),
        "classes": st.sampled_from((3, 1, 0, 1001)),
        "depth": st.sampled_from((1, 2, 0, 30)),
        "hidden": st.sampled_from((8, 1, 0, 3)),
        "head": st.sampled_from((4, 1, 0, 3, 8)),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(sizes)), min_size=1, max_size=3, unique=True))
    return {key: draw(sizes[key]) for key in chosen}


image_sizes = st.one_of(
    st.none(),
    st.sampled_from((8, 7, 0, -8, True, 2**70, 10**6, [8, 8], [4, 16], [1, 8, 8], [3, 8, 8])),
    st.tuples(st.just(1), *[st.sampled_from((1, 2, 3, 4, 8, 10**6, 2**40, 2**70))] * 2),
)


@st.composite
def marked(draw: st.DrawFn, state: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint with one text to be replaced, see `strategies.plant`."""
    top = training_checkpoint(state)
    args = vars(top["args"])
    where: dict[str, Any] = draw(
        st.sampled_from((args, args, args, top, top["state_dict"], top["optimizer"]))
    )
    mark = draw(st.sampled_from((MARK, MARK, [MARK], [MARK, "b", "c"])))
    where[draw(st.sampled_from((*sorted(where), "new")))] = mark
    return top
