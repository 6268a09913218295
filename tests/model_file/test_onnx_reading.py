"""ONNX files of anyone: what they hold, and what they say is in other files."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ltmp_export.errors import InputError
from ltmp_export.files import memory
from ltmp_export.graph import detached
from ltmp_export.model_file import reading
from tests.conftest import DIGITS_LTMP
from tests.makers.commands import ltmp, succeeded
from tests.makers.interrupted import large_model, value

WEIGHTS = 50_000 * 4  # bytes, of a `large_model`
FEW = ("--iterations", "1", "--warmup", "1", "--samples", "2")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands, with a checkpoint."""
    shutil.copy(DIGITS_LTMP, tmp_path / "ckpt.pth.tar")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def only_the_graph(path: Path) -> onnx.ModelProto:
    return onnx.load(path, load_external_data=False)


def test_a_model_that_another_tool_split(folder: Path) -> None:
    succeeded(ltmp("export", "ckpt.pth.tar", "--no-check", "-o", "whole.onnx"))
    (folder / "weights").mkdir()
    ways: list[dict[str, Any]] = [
        {"location": "model.onnx.data", "size_threshold": 0},
        {"location": "weights/w.bin"},
    ]
    for number, keywords in enumerate(ways):
        name = f"{number}.onnx"
        onnx.save(onnx.load("whole.onnx"), name, save_as_external_data=True, **keywords)
        assert Path(name).stat().st_size < 300_000
        checked = succeeded(ltmp("check", name, "ckpt.pth.tar", "--samples", "2"))
        assert "equal: every" in checked
    succeeded(ltmp("bench", "0.onnx", "--baseline", "1.onnx", *FEW))
    assert json.loads(succeeded(ltmp("inspect", "1.onnx", "--json")))["opset"] == 17


def test_a_model_whose_weights_are_a_file_each(folder: Path) -> None:
    model = large_model(3.0)
    onnx.save(model, "m.onnx", save_as_external_data=True, all_tensors_to_one_file=False)
    assert (folder / "w").exists()
    assert value(folder / "m.onnx") == 3.0


def split(folder: Path) -> onnx.ModelProto:
    """A model in `model/m.onnx`, its weights beside it, and a file of secrets outside."""
    (folder / "model").mkdir()
    (folder / "secret").write_bytes(bytes(WEIGHTS))
    onnx.save(
        large_model(1.0), folder / "model" / "m.onnx", save_as_external_data=True, location="w.data"
    )
    return only_the_graph(folder / "model" / "m.onnx")


def refusal(folder: Path, model: onnx.ModelProto) -> str:
    """One line."""
    path = folder / "model" / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError) as caught:
        reading.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def state(model: onnx.ModelProto, **entries: str) -> onnx.ModelProto:
    """Change where the weights are said to be."""
    stated = {entry.key: entry.value for entry in model.graph.initializer[0].external_data}
    model.graph.initializer[0].ClearField("external_data")
    for key, text in (stated | entries).items():
        model.graph.initializer[0].external_data.add(key=key, value=text)
    return model


OWN = "only files in the model's own folder are read"


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../secret", f"said to be in '../secret'; {OWN}"),
        ("sub/../../secret", OWN),
        ("w.data/../../secret", OWN),
        ("{folder}/secret", OWN),
        ("{folder}/model/w.data", OWN),
        ("/etc/passwd", OWN),
        ("link", f"a link to .*secret; {OWN}"),
        ("out/secret", f"a link to .*secret; {OWN}"),
        ("circle", "cannot be read"),
        ("", "said to be in ''; expected the name of a file beside the model"),
        ("a\0b", "expected the name of a file"),
        ("sub", "is no regular file|cannot be read"),
        (".", "is no regular file|cannot be read"),
        ("pipe", "is no regular file"),
        ("none.data", r"cannot be read \(No such file.*\); expected it in .*, beside the model"),
        ("x" * 300, "File name too long"),
        ("*/_ORT_MEM_ADDR_/*", "cannot be read"),
        ("file:///etc/passwd", "cannot be read"),
    ],
)
def test_locations_that_are_refused(tmp_path: Path, location: str, message: str) -> None:
    model = split(tmp_path)
    inside = tmp_path / "model"
    (inside / "sub").mkdir()
    (inside / "link").symlink_to("../secret")
    (inside / "out").symlink_to("..")
    (inside / "circle").symlink_to("circle")
    os.mkfifo(inside / "pipe")
    found = refusal(tmp_path, state(model, location=location.format(folder=tmp_path)))
    assert re.search(message, found), found
    assert "the tensor w" in found


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "-4"}, "names offset '-4' in another file; expected a number of bytes"),
        ({"offset": "x"}, "names offset 'x'"),
        ({"offset": " 0"}, "names offset ' 0'"),
        ({"offset": "9" * 30}, "names offset"),
        ({"offset": "4"}, f"bytes 4 to {WEIGHTS + 4} of .*w.data, which has {WEIGHTS}; fetch"),
        ({"offset": "9" * 18}, "fetch the whole file"),
        ({"length": "-1"}, "names length '-1'"),
        ({"length": "9" * 18}, f"names {'9' * 18} bytes in another file; its shape"),
        ({"length": str(WEIGHTS - 4)}, rf"its shape \[1, 50000\] takes {WEIGHTS}"),
        ({"length": "0"}, "names 0 bytes"),
    ],
)
def test_places_that_are_refused(tmp_path: Path, entries: dict[str, str], message: str) -> None:
    found = refusal(tmp_path, state(split(tmp_path), **entries))
    assert re.search(message, found), found


def test_a_place_without_a_length(tmp_path: Path) -> None:
    model = split(tmp_path)
    model.graph.initializer[0].ClearField("external_data")
    path = tmp_path / "model" / "m.onnx"
    path.write_bytes(state(model, location="w.data").SerializeToString())
    assert value(path) == 1.0


def test_a_data_file_that_was_not_fetched_whole(tmp_path: Path) -> None:
    model = split(tmp_path)
    os.truncate(tmp_path / "model" / "w.data", 1000)
    assert "which has 1000; fetch the whole file" in refusal(tmp_path, model)


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    model = state(split(tmp_path), location="link")
    (tmp_path / "model" / "link").symlink_to("w.data")
    path = tmp_path / "model" / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert value(path) == 1.0


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([1, 50_001], "names 200000 bytes in another file; its shape .* takes 200004"),
        ([-1, 50_000], "has the shape .*; expected one that fits"),
        ([2**62, 2**62], "expected one that fits into memory"),
        ([0, 2**62, 2**62], "expected one that fits into memory"),
        ([1] * 40, "expected one that fits into memory"),
    ],
)
def test_shapes_that_are_refused(tmp_path: Path, dims: list[int], message: str) -> None:
    model = split(tmp_path)
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    found = refusal(tmp_path, model)
    assert re.search(message, found), found


def test_more_weights_than_memory(tmp_path: Path) -> None:
    """A small file that says it finds 30 GB in a sparse one."""
    model = split(tmp_path)
    count = 30 * 2**28
    model.graph.initializer[0].dims[1] = count
    os.truncate(tmp_path / "model" / "w.data", 4 * count)
    found = refusal(tmp_path, state(model, length=str(4 * count)))
    assert "with its weights would take 30.0 GiB of memory, more than the limit" in found
    with memory.memory_limit(1e-6), pytest.raises(InputError, match="more than the limit of 1e-06"):
        reading.read(tmp_path / "model" / "m.onnx")


def elsewhere(name: str) -> TensorProto:
    """A tensor that names a file in the folder."""
    tensor = TensorProto(name=name, dims=[1], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.data")
    return tensor


def hide(model: onnx.ModelProto, place: str) -> None:
    """Put a tensor that names a file where only weights of nodes and the like are."""
    hidden = elsewhere("hidden")
    inner = helper.make_graph([], "inner", [], [], [hidden])
    if place == "attribute":
        model.graph.node.append(helper.make_node("Constant", [], ["c"], value=hidden))
    elif place == "attributes":
        model.graph.node.append(helper.make_node("Custom", [], ["c"], values=[hidden]))
    elif place == "subgraph":
        nodes = [helper.make_node("Constant", [], ["d"], value=hidden)]
        body = helper.make_graph(nodes, "body", [], [])
        outer = helper.make_graph(
            [helper.make_node("If", ["c"], ["e"], then_branch=body)], "", [], []
        )
        model.graph.node.append(helper.make_node("If", ["c"], ["e"], then_branch=outer))
    elif place == "subgraphs":
        model.graph.node.append(helper.make_node("Custom", [], ["c"], bodies=[inner]))
    elif place == "function":
        function = model.functions.add(name="f", domain="d")
        function.node.append(helper.make_node("Constant", [], ["c"], value=hidden))
    elif place == "training":
        model.training_info.add().initialization.CopyFrom(inner)
    else:
        sparse = onnx.SparseTensorProto(values=hidden, dims=[1])
        sparse.indices.CopyFrom(numpy_helper.from_array(np.array([0]), "indices"))
        if place == "sparse":
            model.graph.sparse_initializer.append(sparse)
        else:
            model.graph.node.append(helper.make_node("Constant", [], ["c"], sparse_value=sparse))


@pytest.mark.parametrize(
    "place",
    [
        "attribute", "attributes", "subgraph", "subgraphs", "function", "training", "sparse",
        "sparse attribute",
    ],
)  # fmt: skip
def test_external_data_elsewhere_in_a_model_are_refused(tmp_path: Path, place: str) -> None:
    model = split(tmp_path)
    hide(model, place)
    found = refusal(tmp_path, model)
    assert "hidden inside a node, function or sparse tensor is stored in another file" in found


@pytest.mark.parametrize("command", ["check", "bench", "inspect", "baseline"])
def test_no_command_reads_outside_the_folder(folder: Path, command: str) -> None:
    succeeded(ltmp("export", "ckpt.pth.tar", "--no-check", "-o", "whole.onnx"))
    (folder / "sub").mkdir()
    onnx.save(onnx.load("whole.onnx"), "sub/m.onnx", save_as_external_data=True, location="w.data")
    (folder / "sub" / "w.data").rename(folder / "w.data")
    (folder / "sub" / "w.data").symlink_to("../w.data")
    given = {
        "check": ("check", "sub/m.onnx", "ckpt.pth.tar"),
        "bench": ("bench", "sub/m.onnx"),
        "inspect": ("inspect", "sub/m.onnx"),
        "baseline": ("bench", "whole.onnx", "--baseline", "sub/m.onnx"),
    }
    result = ltmp(*given[command])
    assert result.exit_code == 2
    assert re.fullmatch(rf"error: sub/m.onnx: .* a link to .*w.data; {OWN}\n", result.stderr)


def holding(**fields: Any) -> onnx.ModelProto:
    """A model with one tensor of these fields."""
    model = large_model(1.0)
    del model.graph.initializer[:]
    model.graph.initializer.append(TensorProto(name="w", **fields))
    return model


F, I8, I4, S = TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT4, TensorProto.STRING
C64, F16 = TensorProto.COMPLEX64, TensorProto.FLOAT16

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "raw short": ({"data_type": F, "dims": [2], "raw_data": bytes(4)}, "holds 4 bytes; .* takes 8"),
    "raw long": ({"data_type": I8, "dims": [2], "raw_data": bytes(3)}, "holds 3 bytes; .* takes 2"),
    "raw of a scalar": ({"data_type": F, "raw_data": b""}, "holds 0 bytes; its shape .. takes 4"),
    "nothing": ({"data_type": F, "dims": [2]}, "holds 0 values; .* takes 2"),
    "floats": ({"data_type": F, "dims": [2], "float_data": [1.0]}, "holds 1 values"),
    "other field": ({"data_type": F, "dims": [1], "int32_data": [1]}, "holds 0 values"),
    "half": ({"data_type": F16, "dims": [2], "int32_data": [1]}, "holds 1 values"),
    "complex": ({"data_type": C64, "dims": [1], "float_data": [1.0]}, "holds 1 values; .* takes 2"),
    "nibbles": ({"data_type": I4, "dims": [3], "int32_data": [1]}, "holds 1 values; .* takes 2"),
    "strings": ({"data_type": S, "dims": [2], "string_data": [b"a"]}, "holds 1 values"),
    "no type": ({"dims": [1], "raw_data": bytes(4)}, "is of type 0"),
    "unknown type": ({"data_type": 99, "dims": [1], "raw_data": bytes(4)}, "is of type 99"),
    "negative": ({"data_type": F, "dims": [-1, -4], "raw_data": bytes(16)}, "has the shape"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), WRONG.values(), ids=WRONG.keys())
def test_tensors_that_do_not_hold_their_shape(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    (tmp_path / "model").mkdir()
    found = refusal(tmp_path, holding(**fields))
    assert re.search(message, found), found
    assert "m.onnx is damaged: the tensor w" in found


def test_a_tensor_that_is_a_part(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    model = holding(data_type=F, dims=[1], raw_data=bytes(4))
    model.graph.initializer[0].segment.begin = 0
    assert "or a part" in refusal(tmp_path, model)


def test_every_type_of_onnx_that_is_sound_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for data_type in set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}:
        bits = detached.element_bits(data_type)
        if bits is None:
            assert TensorProto.DataType.Name(data_type)[:6] in ("STRING", "FLOAT6")
            continue
        count = math.ceil(3 * bits / 8)
        model = holding(data_type=data_type, dims=[3], raw_data=bytes(count))
        path.write_bytes(model.SerializeToString())
        read = reading.read(path).graph.initializer[0]
        assert numpy_helper.to_array(read).shape == (3,)


@pytest.mark.parametrize("field", ["name", "location"])
def test_names_that_are_no_text_in_a_file(tmp_path: Path, field: str) -> None:
    model = split(tmp_path)
    state(model, location="wrong.dat")
    model.graph.initializer[0].name = "w.name"
    content = model.SerializeToString()
    content = content.replace(
        b"w.name" if field == "name" else b"wrong.dat",
        b"\xff\xfe\xfd\xfc\xff\xff" if field == "name" else b"\xff" * 9,
    )
    path = tmp_path / "model" / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="the tensor"):
        reading.read(path)
