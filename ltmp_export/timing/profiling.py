"""onnxruntime's own profile: what each node of a graph takes, and which provider runs it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGES = 16  # at most, spread over the images
ROUNDS = 3
WARMUP = 3
OTHER = "other"
_PLACE = re.compile(r"(embed|block_\d+|head)/")


@dataclass(frozen=True)
class Share:
    """What a kind of operator, or a block, takes of a run of one image.

    Attributes:
        name: Type of the operator, or "embed", "block_03", "head", "other".
        calls: Nodes run for one image.
        ms: Milliseconds for one image.
        share: Of all nodes.
    """

    name: str
    calls: int
    ms: float
    share: float


@dataclass(frozen=True)
class Profile:
    """Where the time goes, one image at a time.

    The profiler itself adds some microseconds to every node, which weighs most on small ones.

    Attributes:
        images: Number of images that were run.
        operators: The most expensive first.
        blocks: In the order of the graph.
    """

    images: int
    operators: tuple[Share, ...]
    blocks: tuple[Share, ...]


def profile(start: Mapping[str, Any], pixels: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Run images one at a time in a session that profiles; called in a process of its own.

    Args:
        start: The contender, and `warmup`, `rounds` and the `numbers` of the images to run.
        pixels: [n, channels, H, W].

    Returns:
        For each node its name, operator, provider, place, and calls and milliseconds per run.
    """
    from ltmp_export.runtimes.onnxruntime import OnnxRuntime
    from ltmp_export.timing.engines import options

    engine = OnnxRuntime(Path(start["file"]), options(start), Path(start["profile"]))
    inputs = [engine.inputs(np.ascontiguousarray(pixels[[number]])) for number in start["numbers"]]
    for _ in range(start["warmup"]):
        engine.run(inputs[0])
    for _ in range(start["rounds"]):
        for one in inputs:
            engine.run(one)
    events = json.loads(Path(engine.session.end_profiling()).read_text())
    return per_node(events, start["warmup"], start["rounds"] * len(inputs))


def per_node(events: Iterable[Mapping[str, Any]], warmup: int, runs: int) -> list[dict[str, Any]]:
    """Sum the events of onnxruntime's profile by node, without those of the first runs.

    A node that onnxruntime has fused and renamed belongs where the node before it does.
    """
    events = sorted(events, key=lambda event: float(event.get("ts", 0.0)))
    ends = sorted(e["ts"] + e["dur"] for e in events if e.get("name") == "model_run")
    begin = ends[warmup - 1] if warmup else 0
    nodes: dict[tuple[str, str, str], dict[str, Any]] = {}
    here = OTHER
    for event in events:
        arguments = event.get("args", {})
        if event.get("cat") != "Node" or "provider" not in arguments or event["ts"] < begin:
            continue
        name = event["name"].removesuffix("_kernel_time")
        here = place(name) or here
        key = (name, arguments.get("op_name", ""), arguments["provider"])
        new = dict(zip(("name", "operator", "provider"), key, strict=True))
        node = nodes.setdefault(key, new | {"place": here, "ms": 0.0, "calls": 0})
        node["ms"] += event["dur"] / 1e3
        node["calls"] += 1
    return [n | {"ms": n["ms"] / runs, "calls": round(n["calls"] / runs)} for n in nodes.values()]


def summarise(nodes: Sequence[Mapping[str, Any]], images: int) -> Profile:
    """The profile by operator and by block."""
    operators = _sum(nodes, lambda node: str(node["operator"]))
    blocks = _sum(nodes, lambda node: str(node["place"]))
    order = {"embed": "", "head": "i", OTHER: "j"}  # around block_00, block_01, …
    return Profile(
        images=images,
        operators=tuple(sorted(operators, key=lambda share: -share.ms)),
        blocks=tuple(sorted(blocks, key=lambda share: order.get(share.name, share.name))),
    )


def place(node: str) -> str | None:
    """The part of the model that a node's name tells: "embed", "block_03", "head", or None."""
    found = _PLACE.match(node)
    return found[1] if found else None


def placement(nodes: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many nodes each provider ran."""
    found: dict[str, int] = {}
    for node in nodes:
        found[node["provider"]] = found.get(node["provider"], 0) + 1
    return found


def _sum(
    nodes: Sequence[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], str]
) -> list[Share]:
    total = sum(node["ms"] for node in nodes)
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for node in nodes:
        groups.setdefault(key(node), []).append(node)
    return [
        Share(
            name=name,
            calls=sum(node["calls"] for node in group),
            ms=(ms := sum(node["ms"] for node in group)),
            share=ms / total if total else 0.0,
        )
        for name, group in groups.items()
    ]
