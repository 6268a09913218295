"""`ltmp runtimes`: what runs files here, and what is known of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

import ltmp_export

from .terminal import show

if TYPE_CHECKING:
    from rich.console import RenderableType


def runtimes(
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say which runtimes are installed, and in which ones files were seen to be right.

    The first are what --runtime of 'ltmp check' and 'ltmp bench' takes.
    """
    facts = ltmp_export.runtime_table()
    if json:
        import json as writing

        typer.echo(writing.dumps(facts, indent=2))
    else:
        show(_summary(facts))


def _summary(facts: Mapping[str, Any]) -> RenderableType:
    """Both tables. Those of `reports` would import what reports are made of."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from ltmp_export.runtimes.matrix import Cell

    look: dict[str, Any] = {"box": None, "pad_edge": False, "header_style": "bold"}
    here = Table("runtime", "installed", "or by", padding=(0, 2, 0, 0), **look)
    for one in facts["runtimes"]:
        version, by = one["version"], Text(f'pip install "ltmp[{one["extra"]}]"')
        by = by if one["extra"] and version is None else Text()
        here.add_row(one["name"], "no" if version is None else version or "yes", by)
    seen = facts["matrix"]
    names = [name.replace("`", "") for name in seen["files"]]
    table = Table("seen to run", *names, padding=(0, 1, 0, 0), **look)
    for row in seen["rows"]:
        cells = [Cell(**row["cells"][name]).short() for name in seen["files"]]
        table.add_row(Text(f"{row['name']} {row['version']}"), *map(Text, cells))
    batches = ", ".join(map(str, seen["batches"]))
    told = (
        f"digits, opset {seen['opset']}, batches {batches}, on {seen['date']}: largest difference "
        "of a logit from onnxruntime's; *: exported --for it; why not: --json"
    )
    return Group(here, Text(), table, Text(told, "dim"))
