"""Every row of the manual's tables of what is accepted and refused, tried as a user would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ltmp_cli.main import app
from typer.testing import CliRunner

from tests.documents.acceptance import ACCEPTED, REFUSED, Case, table
from tests.documents.manuals import ROOT

MANUAL = ROOT / "ltmp_export" / "checkpoint" / "README.md"


@pytest.mark.parametrize("case", [*ACCEPTED, *REFUSED], ids=lambda case: case.given)
def test_every_row_of_the_tables(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = case.command()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = CliRunner().invoke(app, command)
    printed = result.stdout + result.stderr
    assert result.exit_code == case.code, printed
    assert re.search(".*".join(map(re.escape, case.says.split("…"))), printed), printed
    if case.code:
        assert len(result.stderr.splitlines()) == 1
        after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert after == before


def test_the_manual_has_these_rows() -> None:
    for cases in (ACCEPTED, REFUSED):
        assert table(cases) in MANUAL.read_text(), f"the table must be\n{table(cases)}"
