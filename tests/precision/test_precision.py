"""In which numbers a file computes, as it is asked for and as the file says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from ltmp_export import InputError
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images.inputs import embedded_digits
from ltmp_export.model_file.model import read_exported, to_onnx
from ltmp_export.precision.formats import DYNAMIC, FP16, INT8, Activation, Precision
from tests.makers.lower_precision import BETWEEN, FORMS, UNPROTECTED


@pytest.fixture(scope="module")
def int8(digits: Callable[[str], Checkpoint]) -> onnx.ModelProto:
    """The digits model."""
    few = embedded_digits().select(2)
    checkpoint, precision = quantise.prepare(digits("ltmp"), few, Precision(INT8))
    return to_onnx(checkpoint, opset=17, precision=precision)


class TestPrecision:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"kind": "bf16"}, "precision 'bf16': expected fp32, fp16, int8"),
            ({"io": "fp16"}, "--io fp16 with --precision fp32: fp16 has --io fp16"),
            ({"kind": INT8, "io": "fp16"}, "--io fp16 with --precision int8: fp16 has --io fp16"),
            ({"kind": FP16, "io": "int8"}, "--io int8 with --precision fp16: fp16 has --io fp16"),
            ({"kind": FP16, "scales": DYNAMIC}, "'dynamic' with --precision fp16: int8 has static"),
            ({"kind": INT8, "scales": "both"}, "activation scales 'both' with --precision int8"),
            ({"int8_form": "qdq"}, "--int8-form qdq with --precision fp32: int8 has products and"),
            ({"kind": INT8, "int8_form": "qoperator"}, "--int8-form qoperator with --precision"),
            (
                {"kind": INT8, "int8_form": "qdq", "scales": DYNAMIC},
                "--int8-form qdq with --activation-scales dynamic: expected static ones",
            ),
            ({"auto": True}, "--protect auto with --precision fp32: what must be protected is"),
            ({"kind": FP16, "auto": True}, "for int8; choose all or none"),
        ],
    )
    def test_refused(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError) as caught:
            Precision(**arguments)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "precision",
        [
            Precision(),
            *FORMS.values(),
            *UNPROTECTED.values(),
            Precision(
                INT8,
                layers={"head": Activation(0.1, 7, 2), "blocks.0.mlp.fc1": Activation(1e-9)},
                calibration="digits, 3 images",
            ),
            Precision(INT8, scales=DYNAMIC, layers={"head": Activation(None, terms=2)}),
            *BETWEEN.values(),
            Precision(INT8, int8_form="qdq", layers={"head": Activation(0.1, terms=2)}),
            Precision(FP16, kept={"blocks.1.attn.scores": 8.1e5}, calibration="digits, 3 images"),
            Precision(INT8, protected=False, auto=True),
            Precision(
                INT8,
                auto=True,
                layers={"head": Activation(0.1)},
                effects={"head": 0.25, "similarity": -0.01},
            ),
        ],
    )
    def test_json(self, precision: Precision) -> None:
        assert Precision.from_json(json.loads(json.dumps(precision.to_json()))) == precision

    @pytest.mark.parametrize(
        "change",
        [
            {"kind": None},
            {"kind": "bf16"},
            {"io": "fp16"},
            {"io": None},
            {"activation_scales": "both"},
            {"layers": []},
            {"layers": {"head": {}}},
            {"layers": {"head": {"scale": "x", "zero_point": 1, "terms": 1}}},
            {"layers": {"head": {"scale": 0.1, "zero_point": 256, "terms": 1}}},
            {"layers": {"blocks.6.attn.qkv": {"scale": 0.1, "zero_point": 0, "terms": 1}}},
            {"layers": {"head": {"scale": 1e300, "zero_point": 1, "terms": 1}}},
            {"layers": {"head": {"scale": True, "zero_point": 1, "terms": 1}}},
            {"layers": {"head": {"scale": 0.1, "zero_point": 1, "terms": 1.0}}},
            {"layers": {"head": {"scale": 0.1, "zero_point": 1.0, "terms": 1}}},
            {"calibration": 5},
            {"int8_form": "qoperator"},
            {"int8_form": "qdq"},  # of zero points that are not 0
            {"protected_decisions": None},
            {"layers": {"blocks.x": {"scale": 0.1, "zero_point": 0, "terms": 1}}},
            {"layers": {"head_dist": {"scale": 0.1, "zero_point": 0, "terms": 1}}},
            {"layers": {"head": {"scale": 0.1, "zero_point": 1, "terms": 3}}},
            {"kept_in_float32": {"head": 1e5}},  # in int8
            {"changed_without": {"head": "much"}},
            {"changed_without": {"head": float("nan")}},
            {"changed_without": {"blocks.6.mlp.fc1": 0.1}},
            {"changed_without": 0.1},
            {"changed_without": None},
        ],
        ids=str,
    )
    def test_damaged_metadata(
        self, int8: onnx.ModelProto, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(int8)
        (entry,) = (e for e in model.metadata_props if e.key == "ltmp.precision")
        entry.value = json.dumps(json.loads(entry.value) | change)
        self.is_damaged(model, tmp_path / "model.onnx")

    @pytest.mark.parametrize(
        "kept",
        [
            {"blocks.6.attn.scores": 1e5},
            {"blocks.0.attn.softmax": 1e5},
            {"head_dist": 1e5},
            {"head": 0},
            {"head": None},
            {"head": True},
            {"head": float("inf")},
            {"head": "1e5"},
            [1],
            None,
        ],
        ids=str,
    )
    def test_damaged_ranges(self, int8: onnx.ModelProto, tmp_path: Path, kept: Any) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(int8)
        (entry,) = (e for e in model.metadata_props if e.key == "ltmp.precision")
        half = Precision(FP16).to_json()
        entry.value = json.dumps(half)
        onnx.save(model, tmp_path / "half.onnx")
        assert read_exported(tmp_path / "half.onnx").precision == Precision(FP16)
        entry.value = json.dumps(half | {"kept_in_float32": kept})
        self.is_damaged(model, tmp_path / "model.onnx")

    @pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", '"int8"', "{}"])
    def test_metadata_of_another_kind(
        self, int8: onnx.ModelProto, tmp_path: Path, text: str
    ) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(int8)
        (entry,) = (e for e in model.metadata_props if e.key == "ltmp.precision")
        entry.value = text
        self.is_damaged(model, tmp_path / "model.onnx")

    @staticmethod
    def is_damaged(model: onnx.ModelProto, path: Path) -> None:
        onnx.save(model, path)
        with pytest.raises(InputError, match="has damaged ltmp metadata"):
            read_exported(path)
