"""From a geometry, a plan and weights to an ONNX model, whatever network it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray
from onnx import ModelProto

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.plan.outputs import default
from ltmp_export.plan.plan import Plan
from ltmp_export.precision.formats import Precision


class Lowering(Protocol):
    """Writes one graph of a network."""

    def __init__(
        self, geometry: Any, plan: Plan, g: GraphBuilder, precision: Precision, single: bool
    ) -> None:
        """Of a geometry of its kind, under a plan; `single`: of single images."""

    def model(
        self, outputs: Sequence[str], token_counts: bool, metadata: Mapping[str, str]
    ) -> ModelProto:
        """The model, which gives these outputs of `plan.outputs`."""


def lower(
    made: type[Lowering],
    geometry: Any,
    plan: Plan,
    weights: Mapping[str, NDArray[Any]],
    *,
    opset: int,
    batch_size: int | None = None,
    outputs: Sequence[str] | None = None,
    token_counts: bool = False,
    precision: Precision | None = None,
    metadata: Mapping[str, str] | None = None,
) -> ModelProto:
    """Write the ONNX model of a network under a plan.

    The model maps `images` float32 [batch, channels, height, width] to what `outputs` names; on
    request also to `token_counts` int64 [batch, depth].

    Args:
        made: Who writes such networks.
        geometry: Of the network.
        plan: The steps of each block; empty steps give the dense model.
        weights: Float32 arrays by timm name; features of a block follow from their presence.
        opset: Version of the standard domain to write.
        batch_size: 1 for a graph that takes single images, None for one that takes any batch.
        outputs: See `plan.outputs`; what timm's model gives by default.
        token_counts: Add that output.
        precision: In which numbers it computes, float32 by default; of images and outputs, too.
        metadata: Stored as `metadata_props`.
    """
    g = GraphBuilder(opset, weights)
    lowering = made(geometry, plan, g, precision or Precision(), batch_size == 1)
    given = default(geometry) if outputs is None else outputs
    return lowering.model(given, token_counts, metadata or {})


def half_places(
    made: type[Lowering],
    geometry: Any,
    plan: Plan,
    weights: Mapping[str, NDArray[Any]],
    *,
    opset: int,
    batch_size: int | None,
    outputs: Sequence[str],
    precision: Precision,
) -> dict[Name, str]:
    """What of the model each float16 tensor of such a graph belongs to, see `Precision.kept`.

    Of tensors that are the graph's inputs or outputs it is their own name.
    """
    g = GraphBuilder(opset, weights)
    made(geometry, plan, g, precision, batch_size == 1).model(outputs, False, {})
    return g.places
