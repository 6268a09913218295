"""The public surface: what `from ltmp_export import …` promises."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import ltmp_export
from ltmp_export import Choices, Settings
from tests.conftest import DIGITS_LTMP


@pytest.mark.parametrize("name", ltmp_export.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    member = getattr(ltmp_export, name)
    assert inspect.getdoc(member)
    if inspect.isfunction(member):
        signature = inspect.signature(member)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(p.annotation is not p.empty for p in signature.parameters.values())


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ltmp_export.nonsense


def test_importing_the_package_is_light() -> None:
    script = "import sys, ltmp_export; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_api_end_to_end(tmp_path: Path) -> None:
    output = tmp_path / "model.onnx"
    checkpoint = ltmp_export.load_checkpoint(DIGITS_LTMP, Choices(num_heads=2))
    stages: list[str] = []
    exported = ltmp_export.export(checkpoint, output, opset=18, progress=stages.append)
    assert exported.check is not None
    assert exported.bytes == output.stat().st_size
    assert stages == ["writing the graph", *(f"comparing image {n} of 7" for n in range(1, 8))]
    assert ltmp_export.check(output, checkpoint, samples=5, batch_sizes=[2]).verdict == "equal"
    found = ltmp_export.bench(output, samples=4, settings=Settings(iterations=1, warmup=1))
    assert len(found.tokens) == 4
    assert ltmp_export.inspect(output)["opset"] == 18
    with pytest.raises(ValueError, match="choices belong to load_checkpoint"):
        ltmp_export.export(checkpoint, output, choices=Choices())
