"""`ltmp check --masked` as a user types it: how far the published masked form is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import FIXTURES
from tests.makers.commands import ltmp, refused

Golden = Mapping[str, NDArray[Any]]


def test_check_masked(digits_folder: Path, golden: Golden) -> None:
    given = ("check", "model.onnx", "tuned.pth.tar", "--samples", "48", "-b", "1")
    plain, found = ltmp(*given, "--json", "p.json"), ltmp(*given, "--json", "m.json", "--masked")
    assert found.exit_code == plain.exit_code == 0, found.stderr
    schema = json.loads((resources.files("ltmp_export") / "schemas/check.schema.json").read_text())
    documents = [json.loads(Path(name).read_text()) for name in ("p.json", "m.json")]
    for document in documents:
        jsonschema.validate(document, schema)
    distances = [document.pop("masked") for document in documents]
    assert distances[0] is None
    assert documents[0]["verdict"] == documents[1]["verdict"] == "equal"
    assert documents[0]["comparisons"] == documents[1]["comparisons"]
    masked = distances[1]
    deployed, published = golden["ltmp_counts"], golden["ltmp_masked_counts"]
    np.testing.assert_allclose(masked["deployed"], deployed.mean(0), atol=1e-9)
    np.testing.assert_allclose(masked["masked"], published.mean(0), atol=1e-9)
    np.testing.assert_allclose(masked["apart"], np.abs(deployed - published).mean(0), atol=1e-9)
    assert masked["images"] == 48
    assert masked["apart"][:2] == [0.0, 0.0]  # block 0 removes nothing, block 1 is the first
    assert min(masked["apart"][2:]) > 1.0
    assert masked["counts_equal"] == (deployed == published).all(1).mean()
    logits, theirs = golden["ltmp_logits"], golden["ltmp_masked_logits"]
    assert masked["agreement"] == (logits.argmax(1) == theirs.argmax(1)).mean()
    assert masked["logit_difference"] == pytest.approx(np.abs(logits - theirs).max(), abs=1e-4)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(documents[1] | {"masked": masked | {"images": "48"}}, schema)
    assert "published masked form: same top-1 as deployed on" in found.stdout
    assert "published masked form" not in plain.stdout


def test_masked_does_not_move_a_failing_verdict(digits_folder: Path, digits_base: Path) -> None:
    other = FIXTURES / "digits_ltpm_thresholds.pth.tar"
    given = ("check", "model.onnx", other, "--base-checkpoint", digits_base, "--samples", "2")
    plain, found = ltmp(*given, "--json", "p.json"), ltmp(*given, "--json", "m.json", "--masked")
    assert found.exit_code == plain.exit_code == 1
    verdicts = [json.loads(Path(name).read_text())["verdict"] for name in ("p.json", "m.json")]
    assert verdicts == ["fail", "fail"]


def test_masked_is_not_for_a_repro(digits_folder: Path) -> None:
    refused(ltmp("check", "--repro", "r", "--masked"), "--repro brings its own .*; drop --masked")
