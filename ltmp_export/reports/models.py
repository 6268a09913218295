"""What timm offers, as a table; a model of timm's by its name, as a list of facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ltmp_export.backbones import chosen
from ltmp_export.reports.inspection import geometry_rows
from ltmp_export.reports.tables import add_row, facts_grid, new_table


def models_summary(facts: Mapping[str, Any]) -> RenderableType:
    """What `commands.models.models` found, a line for each group."""
    columns = ("taken", "smallest of its group", "class, or why not")  # all of it in 80 columns
    table = new_table(*columns, "names", "tags", left=3, folding=columns[-1:])
    for group in facts["groups"]:
        taken = "yes" if group["taken"] else "no"
        why = group["network"] if group["taken"] else "; ".join(group["missing"])
        add_row(table, taken, group["name"], why, str(len(group["names"])), str(len(group["tags"])))
    total, share = facts["tags"], facts["tags_taken"]
    line = f"timm {facts['timm']}: {share} of {total} pretrained tags are taken"
    return Group(table, Text(f"{line} ({share / total:.1%})" if total else line))


def timm_summary(facts: Mapping[str, Any]) -> RenderableType:
    """What `commands.models.described` found."""
    rows = {
        "timm model": facts["name"],
        "class": facts["network"],
        "taken": "yes" if facts["taken"] else "no",
    }
    if facts["taken"]:
        rows |= geometry_rows(facts)
        prefix = facts.get(chosen.VIT, {}).get("prefix")
        if prefix is not None:
            rows["protected rows"] = str(prefix)
        rows["output"] = ", ".join(facts["outputs"])
        rows["dense cost"] = f"{facts['dense_gmacs']:.3g} GMACs"
    else:
        rows["missing"] = "\n".join(facts["missing"])
    rows["parameters"] = f"{facts['parameters'] / 1e6:.2f} M"
    rows["weights"] = facts["weights"] or "none that timm knows of"
    if facts["notes"]:
        rows["found"] = "\n".join(facts["notes"])
    warnings = (Text(f"warning: {text}", "yellow") for text in facts.get("warnings", ()))
    return Group(facts_grid(rows), *warnings)
