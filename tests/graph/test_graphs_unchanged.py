"""Graphs are written as they were: whoever moves code moves no byte.

Nodes, names, attributes, shapes, metadata (without versions) and integers by digest, floats to
1e-6.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import pytest

from ltmp_export.precision.formats import FP32
from tests.makers import graph_summary
from tests.makers.graph_summary import Case, alike, fingerprint, summary

GROUPS = 8
EACH = 3  # of the graphs in lower precision one in so many is looked at: they share their forms


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(graph_summary.STORED.read_text())
    return found


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return list(graph_summary.cases())


def test_cases_are_those_recorded(cases: list[Case], stored: dict[str, Any]) -> None:
    assert [case.name for case in cases] == list(stored["graphs"])


@pytest.mark.parametrize("group", range(GROUPS))
def test_graphs(group: int, cases: list[Case], stored: dict[str, Any]) -> None:
    looked_at = [
        case
        for case in cases
        if case.precision.kind == FP32 or zlib.crc32(case.name.encode()) % EACH == 0
    ]
    for case in looked_at[group::GROUPS]:
        digest, floats = summary(case)
        expected, places = stored["graphs"][case.name]
        for name, found in floats.items():
            known = stored["floats"][name][places.get(name, 0)]
            assert alike(known, found), f"{case.name}: {name}"
        assert digest == expected, case.name


def test_a_changed_number_is_seen() -> None:
    array = np.linspace(-1, 1, 48 * 144, dtype=np.float32).reshape(48, 144)
    before = fingerprint(array)
    assert alike(before, fingerprint(array * np.float32(1 + 1e-7)))
    for change in (array[::-1], array.T, array * np.float32(1 + 1e-5)):
        assert not alike(before, fingerprint(change))
    array[3, 5] += 1e-3
    assert not alike(before, fingerprint(array))
