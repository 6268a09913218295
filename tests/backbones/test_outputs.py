"""tokens, sizes, token_map, dense: in files of every family, exact for each image at any batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.images import inputs
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity.replay import Observer
from ltmp_export.parity.runs import Run
from ltmp_export.plan import outputs
from ltmp_export.plan.plan import DENSE, Plan, dense_plan
from ltmp_export.precision.formats import Precision
from ltmp_export.reference import Reference
from ltmp_export.runtimes.session import Session
from ltmp_export.steps.merge_mask.step import MergeMask
from tests.conftest import DIGITS_LTMP
from tests.makers import examples, random_vits
from tests.makers.checks import check
from tests.oracles.oracle_owners import composed
from tests.tolerances import DENSE_TIMM

SIZES = (1, 2, 5)
FAMILIES = (*families.names(), DENSE)
SOFT = ("patchmerger", "ltm_transformer")


@cache
def model() -> tuple[VisionTransformer, Any]:
    """9 patches, 10 tokens, 3 blocks."""
    return random_vits.build(random_vits.EVEN)


def _drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    numbers = torch.randn(shape, generator=generator)
    return numbers.abs() if "mask" in name else numbers


@cache
def plans(family: str) -> dict[str, Plan]:
    """Plans of a family by form; hard masks where they are soft by default."""
    if family == DENSE:
        return {"static": dense_plan(3)}
    if family in families.learned():
        timms, vit = model()
        plan = random_vits.middle_plan(timms, random_vits.images(vit, 3), family, 3)
        return {"dynamic": plan, "budget": plan.within(examples.KEEP)}
    found = examples.plans(family, 3, _drawn)
    if family == "ltm_transformer":
        found["hard"] = _masked(hard=True)
    return found


def _masked(*, hard: bool) -> Plan:
    """9 patches to 4 targets in the second block, of which a soft mask makes mixtures."""
    step = MergeMask("blocks.1.ltm", "ltm.mask0", 9, 4, hard=hard)
    shapes = {step.start: (9, 4), "blocks.1.ltm.center": (48,), "blocks.1.ltm.step": (1,)}
    drawn = {name: _drawn(f"mask of {name}", shape) for name, shape in shapes.items()}
    drawn[step.start][2] = 0.0  # which reaches no target, as long as nothing is added to it
    drawn["blocks.1.ltm.step"] *= 1e-3
    return Plan("ltm_transformer", ((), (step,), ()), parameters=drawn)


def given() -> Images:
    """Five images that differ in kind."""
    pixels = random_vits.images(model()[1], 4, 5).numpy()
    return Images(pixels, None, tuple("abcde"), "noise")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str) -> None:
    """Files of any batch and of single images give what the reference gives."""
    for form, plan in plans(family).items():
        checkpoint = random_vits.bare(*model(), plan)
        able = outputs.of(checkpoint.geometry, plan)
        assert (able == outputs.KNOWN) == (not plan.mixes)
        for batch_size in (None, 1):
            proto = to_onnx(checkpoint, opset=17, batch_size=batch_size, outputs=able)
            report = check(proto, checkpoint, given(), *(SIZES if batch_size is None else (1,)))
            assert report.verdict == "equal", f"{form}: {report.headline()}"
            assert {*report.comparisons[0].errors} == {*able}


@pytest.mark.parametrize("family", ["ltmp", "p", "evit", "m"])
def test_they_fit_each_other(family: str) -> None:
    """Sizes are of the patches that were not pruned; tokens of the map are those on the grid."""
    plan = next(iter(plans(family).values()))
    checkpoint = random_vits.bare(*model(), plan)
    session = Session(to_onnx(checkpoint, opset=17, outputs=outputs.KNOWN))
    values = dict(zip(outputs.KNOWN, session.run(given().pixels), strict=True))
    places, tokens = values["token_map"], values["tokens"]
    assert [str(values[name].dtype) for name in ("token_map", "sizes")] == ["int64", "float32"]
    assert places.max() == tokens.shape[1] - 1  # as long as the longest, and no longer
    assert (places[places >= 0] >= 1).all()
    np.testing.assert_array_equal(values["sizes"][:, 1:].sum(1), (places >= 0).sum(1))
    for image, grid in enumerate(values["dense"].reshape(len(places), 48, -1).swapaxes(1, 2)):
        living = places[image] >= 0
        np.testing.assert_array_equal(grid[living], tokens[image][places[image][living]])
        if family == "ltmp":
            assert np.abs(grid[~living]).min(initial=1.0) > 0  # what it was when it was pruned
    assert (values["sizes"] == 0).any() == (family == "ltmp")
    assert (tokens[values["sizes"] == 0] == 0).all()


def test_the_map_of_the_digits() -> None:
    """It is what the decisions of the file come to, image by image in mixed batches."""
    checkpoint = load_checkpoint(DIGITS_LTMP)
    images = inputs.load_images(None, checkpoint.vit, checkpoint.preprocessing, 48)
    proto = to_onnx(checkpoint, opset=17, outputs=("logits", "sizes", "token_map"))
    observer = Observer(proto, checkpoint, images, (), Precision())
    pruned = merged = 0
    for number in range(48):
        record = observer.record(Run(7), number)
        wanted = composed(checkpoint.plan.blocks, record.choices(), checkpoint.vit.patches, 1)
        np.testing.assert_array_equal(record.given["token_map"], wanted)
        owned = np.bincount(wanted[wanted >= 0], minlength=record.counts[-1])[1:]
        np.testing.assert_array_equal(record.given["sizes"][1 : record.counts[-1]], owned)
        pruned += int((wanted < 0).sum())
        merged += int((owned > 1).sum())
    assert min(pruned, merged) > 48  # otherwise this says little


@pytest.mark.parametrize("options", [{"reg_tokens": 4, "no_embed_class": True}, {}])
def test_with_nothing_reduced_they_are_timms(options: dict[str, Any]) -> None:
    """Of a geometry like DINOv2's: patch features on the grid behind the last norm."""
    own = {"num_classes": 0, "init_values": 1e-5, "img_size": (28, 42), "patch_size": 14, **options}
    timms, vit = random_vits.build(random_vits.Case("dinov2", 5, own))
    checkpoint = random_vits.bare(timms, vit, dense_plan(vit.depth))
    pixels = random_vits.images(vit, 2, 3)
    names = ("features", "tokens", "token_map", "dense")
    found = Session(to_onnx(checkpoint, opset=17, outputs=names)).run(pixels.numpy())
    features, tokens, places, grid = found
    with torch.inference_mode():
        (wanted,) = timms.get_intermediate_layers(pixels, 1, reshape=True, norm=True)
        whole = timms.forward_features(pixels)
    np.testing.assert_allclose(grid, wanted, atol=DENSE_TIMM)
    np.testing.assert_allclose(tokens, whole, atol=DENSE_TIMM)
    np.testing.assert_allclose(features, timms.forward_head(whole), atol=DENSE_TIMM)
    np.testing.assert_array_equal(places, [vit.prefix + np.arange(vit.patches)] * 3)
    assert grid.shape == (3, vit.width, 2, 3)


@pytest.mark.parametrize("family", SOFT)
def test_soft_methods_tell_no_owner(family: str) -> None:
    plan = plans(family)["static"] if family == "patchmerger" else _masked(hard=False)
    for name in outputs.OWNERS:
        with pytest.raises(InputError, match=f"family {family} mixes patches.*no {name}; choose f"):
            outputs.require([name], model()[1], plan, "c.pth")
    assert outputs.require(["tokens"], model()[1], plan, "c.pth") == ("tokens",)


def replaced(proto: onnx.ModelProto, name: str, kind: str, number: float) -> None:
    """An output that is what it was, and a number more, or times it."""
    last = next(node for node in proto.graph.node if node.output[0] == name)
    dtype = np.int64 if name == "token_map" else np.float32
    tensor = numpy_helper.from_array(np.array(number, dtype), f"wrong/{name}")
    proto.graph.initializer.append(tensor)
    last.CopyFrom(helper.make_node(kind, [last.input[0], tensor.name], [name]))


WRONG: dict[str, Callable[[onnx.ModelProto], None]] = {
    "tokens": lambda proto: replaced(proto, "tokens", "Mul", 1.001),
    "padding": lambda proto: replaced(proto, "tokens", "Add", 1e-7),
    "sizes": lambda proto: replaced(proto, "sizes", "Add", 1.0),
    "token_map": lambda proto: replaced(proto, "token_map", "Add", 1),
    "dense": lambda proto: replaced(proto, "dense", "Add", 1e-3),
    "lost": lambda proto: _never_lost(proto),
    "followed": lambda proto: _forgets(proto),
}


def _never_lost(proto: onnx.ModelProto) -> None:
    """Pruned patches of one block have zeros where they had what owned them."""
    for node in proto.graph.node:
        if node.op_type == "Where" and node.input[2].startswith("block_00/Where"):
            node.input[1] = "const/f32[0.0]"


def _forgets(proto: onnx.ModelProto) -> None:
    """One block's merges are not followed: sources seem pruned."""
    scattered = [n for n in proto.graph.node if n.op_type == "ScatterElements"]
    becomes = next(n for n in scattered if n.input[0].startswith("block_01/Range"))
    becomes.CopyFrom(helper.make_node("Identity", [becomes.input[0]], list(becomes.output)))


@pytest.mark.parametrize("name", WRONG)
def test_wrong_graphs_are_found(name: str) -> None:
    """In batches; what else the file gives is right."""
    plan = plans("ltmp")["dynamic"]
    checkpoint: Checkpoint = random_vits.bare(*model(), plan)
    proto = to_onnx(checkpoint, opset=17, outputs=outputs.KNOWN)
    before = proto.SerializeToString()
    WRONG[name](proto)
    assert proto.SerializeToString() != before
    report = check(proto, checkpoint, given(), 2)
    assert report.verdict == "fail"
    of = {"padding": "tokens", "lost": "dense", "followed": "token_map"}.get(name, name)
    reasons = {comparison.reason for comparison in report.of("fail")}
    assert any(f"head: with the same decisions the {of}" in reason for reason in reasons), reasons


def test_the_reference_alone_knows_only_what_it_is_asked() -> None:
    timms, vit = model()
    trace = Reference(timms, dense_plan(vit.depth)).run(random_vits.images(vit, 1, 1)[0])
    assert {*trace.final} == {"features"}
    assert TensorProto.INT64 == 7


def test_files_tell_what_they_give(tmp_path: Path) -> None:
    from ltmp_export import inspect

    checkpoint = random_vits.bare(*model(), plans("ltmp")["dynamic"])
    onnx.save(to_onnx(checkpoint, opset=17, outputs=outputs.KNOWN), tmp_path / "m.onnx")
    told = {value["name"]: value["shape"] for value in inspect(tmp_path / "m.onnx")["outputs"]}
    assert told == {
        "logits": ["batch", 5], "features": ["batch", 48], "tokens": ["batch", "kept", 48],
        "sizes": ["batch", "kept"], "token_map": ["batch", 9], "dense": ["batch", 48, 3, 3],
    }  # fmt: skip
