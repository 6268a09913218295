"""What a file is, as a list of facts and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ltmp_export.backbones import chosen
from ltmp_export.plan.faces import made
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.outputs import FEATURES
from ltmp_export.plan.plan import before
from ltmp_export.plan.positions import DESTINATION, MEAN
from ltmp_export.precision.formats import INT8, Precision
from ltmp_export.reports.tables import UNKNOWN, add_row, facts_grid, gain, new_table, vector


def inspect_summary(facts: Mapping[str, Any]) -> RenderableType:
    """What `commands.inspect.inspect` found, as a list of facts and a table of thresholds."""
    if facts["kind"] == "incomplete checkpoint":
        return _incomplete_summary(facts)
    rows = {
        facts["kind"]: f"{facts['path']} ({facts['bytes'] / 1e6:.1f} MB)",
        "family": f"{facts['family']}, {facts['mode']}",
        **geometry_rows(facts),
        **_position_rows(facts["plan"]),
        "dense cost": f"{facts['dense_gmacs']:.3g} GMACs",
    }
    if facts["macs_share"] is not None:
        rows["cost"] = f"{facts['macs_share']:.1%} of that, for every image"
        rows["cost"] += gain(facts["macs_share"], facts["outgoing"], (facts["tokens"] or (0,))[-1])
    rows |= _model_rows(facts) if facts["kind"] == "model" else _checkpoint_rows(facts)
    parts: list[RenderableType] = [facts_grid(rows), _steps_table(facts)]
    if facts["kind"] == "model" and facts["precision"].get("layers"):
        parts += _quantised(facts["precision"])
    if "margins" in facts:
        parts.append(margins_table(facts["margins"]))
    parts += [Text(f"warning: {text}", "yellow") for text in facts.get("warnings", ())]
    return Group(*parts)


def geometry_rows(facts: Mapping[str, Any]) -> dict[str, str]:
    """Network, images and their normalisation."""
    geometry, preprocessing = chosen.from_facts(facts), facts["preprocessing"]
    side = "x".join(map(str, geometry.image_size))
    architecture, patches = geometry.words()
    return {
        "architecture": f"{geometry.name}: {architecture}",
        "images": f"{geometry.in_chans} channels, {side}, {patches}; {_gives(geometry)}",
        "normalisation": f"mean {vector(preprocessing['mean'])}, "
        f"std {vector(preprocessing['std'])}, crop {preprocessing['crop_pct']} "
        f"{preprocessing['crop_mode']}, {preprocessing['interpolation']}",
    }


def _gives(geometry: Geometry) -> str:
    """Classes, or what there is without a classifier."""
    if geometry.classes:
        return f"{geometry.classes} classes"
    width = geometry.outputs[FEATURES][0]
    return f"no classifier, {width} features"


_MERGED = {MEAN: "the mean of their patches", DESTINATION: "their destination"}


def _position_rows(plan: Mapping[str, Any]) -> dict[str, str]:
    """What is made of places where attention knows of them."""
    told = []
    if (merged := plan.get("merged_position")) is not None:
        told.append(f"merged tokens at {_MERGED[merged]}")
    if (metric := plan.get("metric_position")) is not None:
        told.append(f"similarity of {metric} keys")
    return {"positions": "; ".join(told)} if told else {}


def _told_rows(facts: Mapping[str, Any]) -> dict[str, str]:
    """Who tells what the weights do not, and what nobody does."""
    places: dict[str, list[str]] = {}
    for key, answer in facts["told_by"].items():
        if not answer["assumed"]:
            places.setdefault(answer["where"], []).append(key)
    told = [f"{', '.join(keys)}: {where}" for where, keys in places.items()]
    rows = {"told by": _listed(told)} if told else {}
    return rows | ({"assumed": "; ".join(facts["notes"])} if facts["notes"] else {})


def _incomplete_summary(facts: Mapping[str, Any]) -> RenderableType:
    kinds = facts["thresholds"].items()
    held = ", ".join(f"{kind} in {len(values)} blocks" for kind, values in kinds if values)
    rows = {
        facts["kind"]: f"{facts['path']} ({facts['bytes'] / 1e6:.1f} MB)",
        "found": _listed(facts["found"]),
        "arch in the file": facts["arch"] or "not stated",
        "weights": f"{facts['tensors']} tensors, {facts['parameters'] / 1e6:.2f} M parameters",
        "thresholds": held or "none",
        "sha256": facts["sha256"],
    }
    if any(key in facts for key in chosen.FACTS):  # a dense model that is whole
        rows |= geometry_rows(facts) | _told_rows(facts)
    grid = facts_grid(rows | {"missing": facts["missing"]})
    warnings = [Text(f"warning: {text}", "yellow") for text in facts.get("warnings", ())]
    return Group(grid, *warnings) if warnings else grid


def _checkpoint_rows(facts: Mapping[str, Any]) -> dict[str, str]:
    rows = {
        "parameters": f"{facts['parameters'] / 1e6:.2f} M",
        "found": _listed(facts["found"]),
        "arch in the file": facts["arch"] or "not stated",
        "sha256": facts["sha256"],
    }
    return rows | _told_rows(facts)


def _listed(found: Sequence[str]) -> str:
    """One line for each thing that was found."""
    return "\n".join(found)


def _model_rows(facts: Mapping[str, Any]) -> dict[str, str]:
    def values(entries: Iterable[Mapping[str, Any]]) -> str:
        return ", ".join(f"{e['name']} {e['type']}{e['shape']}".replace("'", "") for e in entries)

    operators = sorted(facts["operators"].items(), key=lambda pair: -pair[1])
    rows = _precision_rows(facts["precision"])
    if facts["products"] is not None:
        from ltmp_export.runtimes.saturation import Products  # onnxruntime's import: half a second

        rows["int8 products"] = Products(**facts["products"]).describe()
    return rows | {
        "opset": f"{facts['opset']} (IR version {facts['ir_version']})",
        "inputs": values(facts["inputs"]),
        "outputs": values(facts["outputs"]),
        **_target_row(facts["metadata"]),
        "operators": f"{facts['nodes']}: " + ", ".join(f"{kind} {n}" for kind, n in operators),
        **({"rewritten": "; ".join(facts["remarks"])} if facts["remarks"] else {}),
        **({"assumed": "; ".join(facts["notes"])} if facts["notes"] else {}),
        "checkpoint sha256": facts["metadata"].get("ltmp.checkpoint_sha256", "not stated"),
    }


def _target_row(metadata: Mapping[str, str]) -> dict[str, str]:
    """The runtime that a file was written for, if any."""
    target = metadata.get("ltmp.for")
    return {} if target is None else {"written for": "any runtime" if target == "any" else target}


def _precision_rows(precision: Mapping[str, Any]) -> dict[str, str]:
    rows = {"precision": Precision.from_json(precision).describe()}
    if precision["kind"] == INT8:
        depends = "no" if precision["batch_invariant"] else "yes: scales are measured on the batch"
        rows["depends on the batch"] = depends
        rows["calibrated on"] = precision["calibration"] or "not stated"
        if precision.get("changed_without"):
            rows["decisions changed without"] = _effects(precision)
    elif precision.get("calibration"):
        rows["ranges measured on"] = precision["calibration"]
    return rows


def _effects(precision: Mapping[str, Any]) -> str:
    """By how much more decisions rounding would change, by what is then not protected."""
    told = []
    for name, effect in precision["changed_without"].items():
        layer = precision["layers"].get(name)
        protected = precision["protected_decisions"] if layer is None else layer["terms"] > 1
        told.append(f"{name} {effect:+.0%} ({'protected' if protected else 'left out'})")
    return ", ".join(told)


def _quantised(precision: Mapping[str, Any]) -> list[RenderableType]:
    """How the inputs of int8 layers are rounded: a row for each block, then those outside."""
    blocks: dict[str, dict[str, str]] = {}
    outside = []
    for path, given in precision["layers"].items():
        if path.startswith("blocks."):
            block, _, leaf = path.removeprefix("blocks.").partition(".")
            blocks.setdefault(block, {})[leaf] = _rounding(given)
        else:
            outside.append(f"{path}: {_rounding(given)}")
    leaves = list(dict.fromkeys(leaf for cells in blocks.values() for leaf in cells))
    table = new_table("block", *leaves)
    for block, cells in blocks.items():
        add_row(table, block, *(cells.get(leaf, UNKNOWN) for leaf in leaves))
    title = (
        "linear layers in int8: scale @zero point of what each is given, 16b where in 16 bits;\n"
        f"weights {precision['weights']}"
    )
    return [Text(f"\n{title}"), table, *map(Text, outside)]


def _rounding(given: Mapping[str, Any]) -> str:
    """The cell of one layer."""
    known = given["scale"] is not None
    rounded = f"{given['scale']:.3g} @{given['zero_point']}" if known else "by batch"
    return f"{rounded} 16b" if given["terms"] > 1 else rounded


def _steps_table(facts: Mapping[str, Any]) -> RenderableType:
    """A row for each block: thresholds, or how many tokens it takes or keeps."""
    blocks = facts["plan"]["blocks"]
    columns: dict[str, list[str]] = {}
    counted = "tokens after it"
    for block, steps in enumerate(blocks):
        for step in map(made, steps):
            header, value = step.shown()
            counted = "tokens in it" if step.restores else counted
            columns.setdefault(header, [UNKNOWN] * len(blocks))[block] = value
    for block, values in facts["plan"]["patch_merges"].items():
        step = before(values)
        header, value = step.shown()
        columns.setdefault(header, [UNKNOWN] * (len(blocks) + 1))[int(block)] = value
        counted = "tokens in it" if step.restores else counted
    if facts["outgoing"] is not None:
        counted = "tokens in it"
    if facts["tokens"] is not None:
        columns[counted] = list(map(str, facts["tokens"]))
    table = new_table("block", *columns)
    for block, values in enumerate(zip_longest(*columns.values(), fillvalue=UNKNOWN)):
        add_row(table, str(block) if block < len(blocks) else "head", *values)
    return table


def margins_table(found: Mapping[str, Any]) -> RenderableType:
    """Distances of the decisions from their thresholds, and what they put at risk."""
    limits = [f"<{limit:.0e}".replace("e-0", "e-") for limit in found["limits"]]
    shown = ("smallest", "1 %", "median")
    table = new_table("block", "step", "count", *shown, *limits, left=2)
    for row in found["steps"]:
        quantiles = [UNKNOWN if q is None else f"{q:.1e}" for q in row["quantiles"]]
        shares = [f"{share:.0%}" for share in row["closer"]]
        cells = (str(row["decisions"]), *quantiles, *shares)
        add_row(table, str(row["block"]), row["step"], *cells)
    blank = [""] * (1 + len(shown))
    add_row(table, "any", "", *blank, *(f"{share:.0%}" for share in found["closer"]))
    risks = "; ".join(
        f"{name} (scores off by {found['precisions'][name]:.0e} of themselves): {share:.0%}"
        for name, share in found["at_risk"].items()
    )
    return Group(
        Text(
            f"|score - threshold| on {found['count']} images ({found['images']}); "
            "in the last columns the images with a decision that near"
        ),
        table,
        Text(f"images with a decision that rounding can flip: {risks}"),
    )
