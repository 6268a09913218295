"""The model that a site serves: the file, with what tells of its tokens as further outputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import onnx

from ltmp_export.drawing.owned import require_owners
from ltmp_export.errors import InputError
from ltmp_export.graph import interface
from ltmp_export.plan import outputs
from ltmp_export.plan.outputs import TOKEN_MAP
from ltmp_export.steps import decided, recorded

if TYPE_CHECKING:
    from ltmp_export.model_file.model import ExportedModel
    from ltmp_export.plan.step import Step

LARGEST = 2_000_000_000  # bytes that a browser's 32-bit memory has room for
CHANNELS = (1, 3)  # that a page prepares pictures of

# Those of which `owners.js` reads where tokens go.
READ = ("Fit", "Fuse", "Merge", "MergeMask", "MergeMost", "Mergence", "Prune", "PruneLeast")


@dataclass(frozen=True)
class Served:
    """A copy of a file: the same nodes and weights, more outputs.

    Attributes:
        model: The copy.
        answer: The output that says most of an image: logits, or features.
        counts: Outputs with the tokens behind each block; empty where the file names none.
        blocks: What each block did is told by, for the page; None where a file tells of the last
            block alone, or of none.
        owned: Whether patches can be shown.
        undrawn: Why they cannot.
        added: How many outputs the file itself has not.
        remarks: What a person should know.
    """

    model: onnx.ModelProto = field(repr=False)
    answer: str
    counts: tuple[str, ...]
    blocks: tuple[dict[str, Any], ...] | None
    owned: bool
    undrawn: str | None
    added: int
    remarks: tuple[str, ...]


def served(exported: ExportedModel) -> Served:
    """The copy.

    Raises:
        InputError: A browser cannot hold it, or a page cannot prepare pictures for it or tell what
            it gives.
    """
    path, answer = exported.path, outputs.answer(exported.outputs)
    if answer is None:
        raise InputError(
            f"{path} gives {', '.join(exported.outputs)}; a page compares logits or features: "
            "export it with --outputs logits, or with one of them among others"
        )
    if exported.geometry.in_chans not in CHANNELS:
        raise InputError(
            f"{path} takes {exported.geometry.in_chans} channels; a page prepares pictures of 1 "
            "or 3"
        )
    require_size(exported.proto, path)
    model, remarks = exported.proto, list[str]()
    taps = interface.count_taps(exported.geometry.depth)
    if interface.missing_tensors(model, taps):
        taps = {}
        remarks.append(f"{path} lacks the named tensors that tell its tokens")
    counts = tuple(taps)
    blocks, owned, undrawn = None, False, None
    try:
        told = _blocks(exported, model)
        owned = told is not None or TOKEN_MAP in exported.outputs
        if told is not None:
            blocks, more = told
            taps |= more
    except InputError as err:
        undrawn = f"no pictures of tokens: {err}"
        remarks.append(undrawn)
    given = {value.name for value in model.graph.output}
    copy = interface.tapped(model, taps)
    added = len({*taps} - given)
    return Served(copy, answer, counts, blocks, owned, undrawn, added, tuple(remarks))


def require_size(model: onnx.ModelProto, name: object) -> None:
    """Check that a browser can hold a model.

    Raises:
        InputError: It cannot.
    """
    size = model.ByteSize()
    if size > LARGEST:
        raise InputError(
            f"{name} has {size / 1e9:.1f} GB; a page holds models of up to {LARGEST / 1e9:.0f} GB: "
            "export it with --precision int8 or fp16, or a smaller model"
        )


def _blocks(
    exported: ExportedModel, model: onnx.ModelProto
) -> tuple[tuple[dict[str, Any], ...], dict[str, int]] | None:
    """What the blocks did is told by, and these tensors; None where the file does not name them.

    Raises:
        InputError: No patch has one owner, or the page does not know a step.
    """
    require_owners(exported)
    plan, taps = exported.plan, dict[str, int]()
    blocks: list[dict[str, Any]] = []
    for block, steps in enumerate(plan.blocks):
        count = f"{decided.scope(block)}{decided.COUNT}"
        taps[count] = decided.INT64
        entering = plan.before.get(block)
        if entering is not None and (entering.decides or not entering.restores):
            raise InputError(f"a page does not read the step {entering.on_disk}")
        if entering is not None:  # of constant matrices, which are recovered
            blocks.append({"whole": True})
            continue
        told = [_step(step, model, decided.scope(block), taps) for step in steps]
        restores = plan.restoring(block) is not None
        blocks.append({"whole": False, "count": count, "steps": told, "restores": restores})
    missing = interface.missing_tensors(model, taps)
    if missing and TOKEN_MAP not in exported.outputs:
        raise InputError(f"{exported.path} has no tensor {missing[0]} and gives no token_map")
    return None if missing else (tuple(blocks), taps)


def _step(step: Step, model: onnx.ModelProto, scope: str, taps: dict[str, int]) -> dict[str, Any]:
    """A step with the tensors that tell what it did, which are also added to `taps`.

    Raises:
        InputError: The page does not know it.
    """
    if step.on_disk not in READ:
        raise InputError(f"a page does not read the step {step.on_disk}")
    own = {name: f"{scope}{name}" for name in recorded.tensors(step)}
    taps |= {f"{scope}{name}": kind for name, kind in recorded.tensors(step).items()}
    mask = recorded.mixing(step, model, scope)
    if mask is not None:
        own["weights"] = mask
        taps[mask] = decided.FLOAT
    return {"step": step.on_disk, **asdict(step), "tensors": own}
