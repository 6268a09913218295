"""The files of a site, one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from ltmp_export.drawing import seen
from ltmp_export.files import disk
from ltmp_export.images import resampling
from ltmp_export.plan.outputs import LOGITS
from ltmp_export.site.document import document
from ltmp_export.site.onnxruntime_web import Runtime, integrity
from ltmp_export.site.recorded import Recorded
from ltmp_export.site.served import Served

if TYPE_CHECKING:
    from ltmp_export.model_file.model import ExportedModel

MODEL, DENSE, RECORDED, PROBE, TOLD = (
    "model.onnx", "dense.onnx", "recorded.bin", "probe.png", "site.json",
)  # fmt: skip
PAGE = "index.html"
_BESIDE = (".js", ".css")  # suffixes of what the package has for a site
_TYPES = {int(TensorProto.FLOAT): "float32", int(TensorProto.FLOAT16): "float16"}


@dataclass(frozen=True)
class Site:
    """What a site is made of.

    Attributes:
        exported: The file.
        served: What is served of it.
        dense: The dense model of the same weights; None to leave it out.
        recorded: What onnxruntime gave for some images.
        probe: A picture (PNG), and the model input that it becomes.
        runtime: What models run in.
        notes: What was assumed, and what to know.
    """

    exported: ExportedModel
    served: Served
    dense: onnx.ModelProto | None
    recorded: Recorded
    probe: tuple[bytes, NDArray[np.float32]]
    runtime: Runtime
    notes: Sequence[str]

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents.

        Raises:
            InputError: A file of onnxruntime-web cannot be read.
        """
        told: dict[str, dict[str, Any]] = {}
        for name, content in self._binaries():
            told[name] = {
                "url": f"./{name}", "integrity": integrity(content), "bytes": len(content)
            }  # fmt: skip
            yield name, content
        yield from self.runtime.copies()
        for path in sorted(resources.files(__package__).iterdir(), key=lambda one: one.name):
            if path.name.endswith(_BESIDE):
                yield path.name, path.read_bytes()
        values = json.dumps(self._told(told), separators=(",", ":"), allow_nan=True)
        yield TOLD, values.encode()
        yield PAGE, self._page(told)

    def _binaries(self) -> Iterator[tuple[str, bytes]]:
        """What the page checks the digest of."""
        yield MODEL, self.served.model.SerializeToString(deterministic=True)
        if self.dense is not None:
            yield DENSE, self.dense.SerializeToString(deterministic=True)
        picture, prepared = self.probe
        yield RECORDED, self.recorded.pixels.tobytes() + prepared.tobytes()
        yield PROBE, picture

    def _told(self, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """What the scripts are told."""
        exported, served = self.exported, self.served
        geometry, rule = exported.geometry, exported.preprocessing
        given = next(
            value for value in exported.proto.graph.input
            if value.name not in {tensor.name for tensor in exported.proto.graph.initializer}
        )  # fmt: skip
        labels = exported.label_names if served.answer == LOGITS else None
        return {
            "model": files[MODEL] | {
                "input": given.name, "type": _TYPES[given.type.tensor_type.elem_type],
                "shape": geometry.input_size,
            },
            "dense": files.get(DENSE),
            "runtime": {
                "version": self.runtime.version,
                **{provider: {"script": script.url,
                              "binary": {"url": binary.url, "integrity": binary.integrity}}
                   for provider, (script, binary) in self.runtime.files.items()},
            },
            "preparation": {
                "size": geometry.image_size, "mean": rule.mean, "std": rule.std,
                "crop_pct": rule.crop_pct, "crop_mode": rule.crop_mode,
                "interpolation": rule.interpolation, "tall": resampling.height_first(),
            },
            "answer": served.answer, "labels": labels, "counts": served.counts,
            "blocks": served.blocks, "grid": exported.vit.grid if served.owned else None,
            "front": geometry.prefix, "tokens": geometry.tokens, "depth": geometry.depth,
            "recorded": files[RECORDED] | {
                "images": self.recorded.images, "allowed": self.recorded.allowed,
                "by": self.recorded.by,
            },
            "probe": files[PROBE],
        }  # fmt: skip

    def _page(self, files: dict[str, dict[str, Any]]) -> bytes:
        exported = self.exported
        name, geometry, precision = exported.path.name, exported.geometry, exported.precision.kind
        told = f"{exported.plan.family} {geometry.name}, {precision}, opset {exported.opset}"
        copy = f"{MODEL} here is a copy of it"
        if self.served.added:
            copy += f", same nodes and weights, with {self.served.added} more outputs"
        dense = "the same weights, no token reduced, float32" if DENSE in files else "left out"
        sizes = ", ".join(f"{key} {one['bytes'] / 1e6:.1f} MB" for key, one in files.items())
        facts = [
            ("file", f"{name}, sha256 {disk.sha256(exported.path)}; {copy}"),
            ("dense", dense),
            ("sizes", sizes),
            ("checkpoint", f"sha256 {exported.checkpoint_sha256}"),
            ("pictures", seen.words(geometry.image_size, exported.preprocessing, pictures=True)),
            ("recorded with", self.recorded.by),
            ("runs in", f"{self.runtime.told} (MIT licence)"),
        ]
        return document(name, told, facts, self.notes, self.runtime, self.served.undrawn)
