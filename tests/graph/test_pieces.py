"""Models written weight by weight are the bytes that protobuf writes; weights are held once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.graph import detached
from ltmp_export.graph.pieces import pieces
from ltmp_export.model_file import external
from ltmp_export.model_file.model import to_onnx, weights_of
from ltmp_export.model_file.reading import read

Digits = Callable[[str], Checkpoint]


def test_the_bytes_are_those_of_protobuf(digits: Digits) -> None:
    model = to_onnx(digits("ltmp"), opset=17)
    light, beside = detached.detach(model)
    assert beside
    assert b"".join(pieces(light, beside)) == model.SerializeToString()
    assert b"".join(pieces(model, {})) == model.SerializeToString()


def test_weights_of_the_checkpoint_are_not_held_again(digits: Digits) -> None:
    checkpoint = digits("ltmp")
    known = weights_of(checkpoint)
    model = to_onnx(checkpoint, opset=17)
    light, beside = detached.detach(model, known)
    assert light.ByteSize() < 300_000
    assert {name for name, own in beside.items() if np.shares_memory(own, known[name])} == {*beside}


def test_a_weight_that_is_another_is_held_as_it_is_in_the_model(digits: Digits) -> None:
    known = dict(weights_of(digits("ltmp")))
    model = to_onnx(digits("ltmp"), opset=17)
    name = "blocks.0.mlp.fc1.weight"
    known[name] = known[name].copy()
    known[name][0, 0] *= 2
    beside = detached.detach(model, known)[1]
    assert not np.shares_memory(beside[name], known[name])
    assert beside[name][0, 0] == known[name][0, 0] / 2


def test_bytes_that_do_not_fit_their_shape_stay_in_the_graph(digits: Digits) -> None:
    """Where runtime and checker see and refuse them."""
    model = to_onnx(digits("ltmp"), opset=17)
    tensor = next(t for t in model.graph.initializer if t.name == "blocks.0.mlp.fc1.weight")
    tensor.raw_data = tensor.raw_data[:-4]
    light, beside = detached.detach(model)
    assert tensor.name not in beside
    assert any(kept == tensor for kept in light.graph.initializer)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(detached.without_weights(model))


@pytest.mark.parametrize("limit", [detached.INLINE_LIMIT, 100_000])
def test_what_is_written_in_pieces_is_read_as_it_was(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    model = to_onnx(digits("ltmp"), opset=17)
    light, beside = detached.detach(model)
    monkeypatch.setattr(detached, "INLINE_LIMIT", limit)
    written = external.write_model(tmp_path / "model.onnx", light, beside)
    assert (written.data is None) == (limit == 2**31 - 2**27)
    found = {tensor.name: tensor for tensor in read(tmp_path / "model.onnx").graph.initializer}
    for tensor in model.graph.initializer:
        np.testing.assert_array_equal(
            onnx.numpy_helper.to_array(found[tensor.name]), onnx.numpy_helper.to_array(tensor)
        )
