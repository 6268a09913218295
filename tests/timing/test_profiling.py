"""onnxruntime's profile taken apart, on a made-up one."""

from __future__ import annotations

from typing import Any

import pytest

from ltmp_export.timing import profiling


def node(name: str, operator: str, start: int, duration: int) -> dict[str, Any]:
    arguments = {"op_name": operator, "provider": "CPUExecutionProvider"}
    named = f"{name}_kernel_time"
    return {"cat": "Node", "name": named, "ts": start, "dur": duration, "args": arguments}


def run(start: int) -> list[dict[str, Any]]:
    """One run of 100 µs: an embedding, a block with two Gemms, a head and a node of no name."""
    return [
        node("embed/Conv:node_nchwc", "Conv", start, 10),
        node("block_00/attn/Gemm:node", "Gemm", start + 10, 20),
        node("block_00/mlp/Gemm:node/fused/", "Gemm", start + 30, 40),
        node("head/Gemm:node", "Gemm", start + 70, 10),
        node("ReorderOutput", "ReorderOutput", start + 80, 20),
        {"cat": "Session", "name": "model_run", "ts": start, "dur": 100},
        {"cat": "Node", "name": "x_fence_before", "ts": start, "dur": 5, "args": {}},
    ]


def test_shares_add_up_and_warm_up_does_not_count() -> None:
    events = [event for start in (0, 1000, 2000) for event in run(start)]
    nodes = profiling.per_node(events, warmup=1, runs=2)
    found = profiling.summarise(nodes, images=2)
    assert [(s.name, s.calls) for s in found.operators] == [
        ("Gemm", 3),
        ("ReorderOutput", 1),
        ("Conv", 1),
    ]
    assert [s.ms for s in found.operators] == pytest.approx([0.07, 0.02, 0.01])
    assert [s.name for s in found.blocks] == ["embed", "block_00", "head"]
    assert found.blocks[-1].calls == 2  # the node of no name runs after the head
    for shares in (found.operators, found.blocks):
        assert sum(s.share for s in shares) == pytest.approx(1)
        assert sum(s.ms for s in shares) == pytest.approx(0.1)
    assert profiling.placement(nodes) == {"CPUExecutionProvider": 5}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("embed/Shape:node", "embed"),
        ("block_11/attn/MatMul:node/MatmulTransposeFusion/", "block_11"),
        ("head/Gemm:node", "head"),
        ("heading/Gemm", None),
        ("logits:node", None),
    ],
)
def test_place(name: str, place: str | None) -> None:
    assert profiling.place(name) == place
