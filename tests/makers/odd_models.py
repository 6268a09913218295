"""ONNX files and image archives that are not what they were, as hypothesis strategies."""

from __future__ import annotations

import contextlib
import json
import zipfile

import onnx
from hypothesis import strategies as st

from tests.makers.nonsense import json_texts, json_values
from tests.makers.strategies import DEPTHS, integers, texts, zipped


@st.composite
def changed(draw: st.DrawFn, exported: bytes) -> bytes:
    """A model with other words and fields; it can still be parsed."""
    proto = onnx.ModelProto.FromString(exported)
    for _ in range(draw(st.integers(1, 3))):
        draw(st.sampled_from((_reword, _reword, _retype, _reshape, _move_out, _rename)))(
            draw, proto
        )
    return bytes(proto.SerializeToString())


@st.composite
def reworded(draw: st.DrawFn, exported: bytes) -> bytes:
    """A model with other metadata."""
    proto = onnx.ModelProto.FromString(exported)
    for _ in range(draw(st.integers(1, 3))):
        _reword(draw, proto)
    return bytes(proto.SerializeToString())


_CHOICES = {"family": "ltmp", "model": "vit_tiny_patch16_224", "use_ema": False, "num_heads": 2}
_CHOICES |= {"image_size": [8, 8], "mean": [0.5], "std": [0.5]}
_deep = st.sampled_from(DEPTHS).map(lambda depth: "[" * depth + "]" * depth)


def _reword(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    entry = draw(st.sampled_from(list(proto.metadata_props)))
    if entry.value.startswith("{") and draw(st.integers(0, 3)):
        with contextlib.suppress(ValueError, RecursionError):  # it was changed before
            document = json.loads(entry.value)
            if not document:
                keys = draw(st.lists(st.sampled_from(sorted(_CHOICES)), min_size=1, max_size=2))
                document = {key: _CHOICES[key] for key in keys}
            entry.value = draw(json_texts(document)).decode("utf-8", "replace")
    else:
        entry.value = draw(st.one_of(texts, _deep, json_values.map(json.dumps)))


def _retype(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    value = draw(st.sampled_from([*proto.graph.input, *proto.graph.output]))
    value.type.tensor_type.elem_type = draw(st.sampled_from((0, 8, 16, 99, -1, 2**31 - 1)))


def _reshape(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    tensor = draw(st.sampled_from(list(proto.graph.initializer)))
    tensor.dims[:] = draw(st.lists(st.sampled_from((-1, 0, 1, 2, 2**40, 2**62)), max_size=40))
    tensor.data_type = draw(st.sampled_from((0, 1, 8, 16, 22, 99)))


def _move_out(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    tensor = draw(st.sampled_from(list(proto.graph.initializer)))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key in ("location", "offset", "length"):
        tensor.external_data.add(key=key, value=draw(st.one_of(texts, integers.map(str))))


def _rename(draw: st.DrawFn, proto: onnx.ModelProto) -> None:
    node = draw(st.sampled_from(list(proto.graph.node)))
    node.op_type, node.name = draw(texts), draw(texts)
    attribute = node.attribute.add(name="body", type=onnx.AttributeProto.GRAPH)
    attribute.g.CopyFrom(onnx.GraphProto(name=draw(texts)))


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """An .npz whose arrays have other headers than numpy writes."""
    entries = []
    for name in draw(st.lists(st.sampled_from(("images", "labels", "x")), max_size=3)):
        shape = tuple(draw(st.lists(integers, max_size=5)))
        if draw(st.booleans()):
            shape = (draw(integers), 1, 8, 8)
        kind = draw(st.sampled_from(("<f4", "|u1", "<f2", ">f8", "|O", "<U9", "<m8", "<c8", "V3")))
        written = draw(st.sampled_from((repr(shape), "()", "(1e9,)", "None", "(" * 300)))
        text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {written}, }}\n".encode()
        version = draw(st.sampled_from((1, 1, 2, 3, 4, 0)))
        size = len(text).to_bytes(2 if version == 1 else 4, "little")
        size = draw(st.sampled_from((size, size, size, b"\xff" * len(size))))
        content = (
            b"\x93NUMPY" + bytes([version, 0]) + size + text + bytes(draw(st.integers(0, 600)))
        )
        entries.append((f"{name}.npy", content))
    return zipped(entries, draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))
