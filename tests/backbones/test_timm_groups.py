"""The groups of timm's ViTs with the most tags; all of them by `python -m tests.timm_groups`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import timm
from torch import nn

from tests import timm_groups
from tests.timm_groups import Case

# Of each the smallest; where that is large, the smallest of the nearest group.
NAMES = (
    "vit_xsmall_patch16_clip_224",
    "deit_tiny_patch16_224",
    "vit_base_patch16_siglip_gap_224",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_clip_quickgelu_224",
    "deit3_small_patch16_224",
    "vit_little_patch16_reg4_gap_256",
    "flexivit_small",
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
    "vit_tiny_patch16_dinov3_qkvb",
    "vit_tiny_r_s16_p8_224",
    "vitamin_small_224",
)


class Told(NamedTuple):
    """A row of the manual's table."""

    name: str
    tags: int
    headless: int
    forms: tuple[str, str]


def told() -> dict[str, Told]:
    """The manual's tables by name."""
    row = re.compile(r"^\| `(\w+)` \| (\d+) \| (\d+) \| (.*?) \| (.*?) \|", re.MULTILINE)
    found = row.findall(timm_groups.DOCUMENT.read_text(encoding="utf-8"))
    return {name: Told(name, int(tags), int(n), (one, two)) for name, tags, n, one, two in found}


@pytest.mark.parametrize("name", NAMES)
def test_a_group_as_it_is_published(name: str, tmp_path: Path) -> None:
    """Two blocks at 6 x 6 patches: nothing reduced as timm has it, and checked at r = 4."""
    row = told()[name]
    case = Case(name, 0 if 2 * row.headless > row.tags else timm_groups.CLASSES)
    outcome = timm_groups.run(case, tmp_path)
    assert (outcome.refused, outcome.wrong) == ("", "")
    assert outcome.error is not None
    assert outcome.error < timm_groups.CLOSE
    assert not list(tmp_path.glob("*.pth"))


def test_another_model_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An activation that the name does not have: nothing but the outputs tells."""
    made = timm_groups.made

    def odd(case: Case) -> Any:
        model, *rest = made(case)
        blocks: Any = model.get_submodule("blocks")
        for block in blocks:
            block.mlp.act = nn.SiLU()
        return model, *rest

    monkeypatch.setattr(timm_groups, "made", odd)
    outcome = timm_groups.run(Case(NAMES[1], 5), tmp_path)
    assert re.match(r"off by .* of the largest output", outcome.wrong)


def test_the_table_says_that_most_are_taken_and_none_is_wrong() -> None:
    rows, beside = told(), ("vitamin_small_224", "vitamin_xlarge_256")
    uncounted = [rows.pop(name) for name in beside]
    assert sum(row.tags for row in uncounted) == 15
    assert not any({"no", "**wrong**"} & set(row.forms) for row in uncounted)
    tags = sum(row.tags for row in rows.values())
    right = [row for row in rows.values() if not {"no", "**wrong**"} & set(row.forms)]
    assert sum(row.tags for row in right) >= timm_groups.GOAL * tags
    assert not [row.name for row in rows.values() if "**wrong**" in row.forms]
    assert sum(rows[name].tags for name in NAMES if name not in beside) > tags / 2
    if "timm 1.0.31," in timm_groups.DOCUMENT.read_text(encoding="utf-8"):
        assert tags == 466
    assert all(timm.is_model(name) for name in rows)
