"""Who owns each patch behind each block: as a file that stops there tells it itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ltmp_export import families
from ltmp_export.calibration import quantise
from ltmp_export.drawing.owned import Owned, Owners
from ltmp_export.errors import CheckFailedError, InputError
from ltmp_export.model_file.model import ExportedModel, read_exported, to_onnx
from ltmp_export.parity.replay import Observer
from ltmp_export.parity.runs import Run
from ltmp_export.plan.outputs import TOKEN_MAP
from ltmp_export.plan.plan import Plan
from ltmp_export.precision.formats import FP16, INT8, Precision
from ltmp_export.runtimes.session import Session
from ltmp_export.steps.fit.step import Fit
from tests.backbones.test_outputs import given, model, plans
from tests.backbones.test_positioned import learned
from tests.makers import positioned, random_vits
from tests.makers.positioned import BEIT, DINO
from tests.oracles.oracle_owners import composed

HARD = [name for name in families.names() if name not in ("patchmerger", "pmvit")]
FORMS = [
    (family, form)
    for family in HARD
    for form in plans(family)
    if not plans(family)[form].mixes and not plans(family)[form].restores
]


def file(tmp_path: Path, plan: Plan, **kwargs: Any) -> ExportedModel:
    """A small model under a plan, as a file that is read back."""
    proto = to_onnx(random_vits.bare(*model(), plan), opset=17, **kwargs)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    return read_exported(path)


def until(plan: Plan, block: int) -> Plan:
    """The same that does nothing behind a block; under a budget there is room for all then."""
    rest = len(plan.blocks) - block - 1
    fits = plan.blocks[block][-1:] if plan.keep else ()
    assert all(isinstance(step, Fit) for step in fits)
    before = {place: step for place, step in plan.before.items() if place <= block}
    return replace(plan, blocks=plan.blocks[: block + 1] + (fits,) * rest, before=before)


def maps(exported: ExportedModel) -> list[np.ndarray]:
    """What a file says of each image at its end."""
    session = Session(exported.proto, threads=1)
    names = [value.name for value in exported.proto.graph.output]
    return [
        session.run(pixels[None])[names.index(TOKEN_MAP)][0] for pixels in given().pixels
    ]  # fmt: skip


@pytest.mark.parametrize(("family", "form"), FORMS)
def test_every_family_behind_every_block(tmp_path: Path, family: str, form: str) -> None:
    """A graph of its own follows the patches there, by rows and slots, not by decisions."""
    plan = plans(family)[form]
    single = None if plan.static else 1
    for batch_size in dict.fromkeys((None, single)):
        owners = Owners(file(tmp_path, plan, batch_size=batch_size), threads=1)
        assert owners.blocks == (0, 1, 2)
        found = [owners.of(pixels) for pixels in given().pixels]
        for block in owners.blocks:
            wanted = maps(file(tmp_path, until(plan, block), outputs=[TOKEN_MAP]))
            for one, expected in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(one[block].places, expected)
                before = one[block - 1].places if block else np.arange(1, 10)
                np.testing.assert_array_equal(one[block].before, before)
                assert one[block].tokens > one[block].places.max()


@pytest.mark.parametrize("kind", [FP16, INT8])
def test_lower_precision_shows_its_own_decisions(tmp_path: Path, kind: str) -> None:
    checkpoint = random_vits.bare(*model(), plans("ltmp")["dynamic"])
    source, precision = checkpoint, Precision(kind)
    if kind == INT8:
        source, precision = quantise.prepare(checkpoint, given(), precision)
    path = tmp_path / "model.onnx"
    proto = to_onnx(source, opset=17, precision=precision)
    onnx.save(proto, path)
    owners, vit = Owners(read_exported(path), threads=1), checkpoint.vit
    observer = Observer(proto, checkpoint, given(), (), precision)
    for number, pixels in enumerate(given().pixels):
        choices = observer.record(Run(1), number).choices()
        for block, owned in enumerate(owners.of(pixels)):
            steps = checkpoint.plan.blocks[: block + 1]
            wanted = composed(steps, choices[: block + 1], vit.patches, vit.prefix)
            np.testing.assert_array_equal(owned.places, wanted)


@pytest.mark.parametrize("name", [DINO, BEIT])
def test_other_backbones(tmp_path: Path, name: str) -> None:
    """Registers, rotary and relative positions: the composition ends in the file's own map."""
    path = tmp_path / "model.onnx"
    onnx.save(to_onnx(learned(tmp_path, name), opset=17, outputs=["features", TOKEN_MAP]), path)
    exported = read_exported(path)
    owners = Owners(exported, threads=1)
    for pixels in positioned.images(3).numpy():
        last = owners.of(pixels)[-1]  # compared there
        assert last.protected == exported.geometry.prefix
        assert len(last.places) == np.prod(last.grid)


def test_what_is_restored_shows_what_a_block_merges_within(tmp_path: Path) -> None:
    exported = file(tmp_path, plans("pmvit")["static"])
    owners = Owners(exported, threads=1)
    assert "gives back every patch" in owners.remarks[0]
    for owned in owners.of(given().pixels[0]):
        assert owned.places.tolist() == list(range(1, 10))


def test_without_names_the_map_tells_of_the_last_block(tmp_path: Path) -> None:
    plan = plans("m")["static"]
    exported = file(tmp_path, plan, outputs=["logits", TOKEN_MAP])
    renamed(exported.proto, "block_01/count", "told from the tokens")
    assert Owners(exported, threads=1).blocks == (0, 1, 2)
    renamed(exported.proto, "block_01/ranking", "somewhere")
    owners = Owners(exported, threads=1)
    assert owners.blocks == (2,)
    assert "has no tensor block_01/ranking" in owners.remarks[0]
    for pixels, wanted in zip(given().pixels, maps(exported), strict=True):
        (owned,) = owners.of(pixels)
        np.testing.assert_array_equal(owned.places, wanted)
    bare = file(tmp_path, plan)
    renamed(bare.proto, "block_01/ranking", "somewhere")
    with pytest.raises(InputError, match=r"no tensor block_01/ranking and gives no token_map"):
        Owners(bare)


def renamed(proto: onnx.ModelProto, name: str, other: str) -> None:
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [other if one == name else one for one in names]


def test_a_map_that_the_decisions_do_not_come_to_is_an_error(tmp_path: Path) -> None:
    exported = file(tmp_path, plans("m")["static"], outputs=["logits", TOKEN_MAP])
    renamed(exported.proto, TOKEN_MAP, "right")
    exported.proto.graph.node.append(onnx.helper.make_node("Neg", ["right"], [TOKEN_MAP]))
    with pytest.raises(CheckFailedError, match="token_map is not what its own decisions come to"):
        Owners(exported, threads=1).of(given().pixels[0])


def test_soft_methods_and_stages_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"family patchmerger makes every token of many patches"):
        Owners(file(tmp_path, plans("patchmerger")["static"]))


def test_what_became_of_patches_in_this_block() -> None:
    """Patches 0 and 1 merged before, 2 joined them here, 3 was pruned here, 4 before."""
    owned = Owned(
        1, (1, 6), np.array([1, 1, 1, -1, -1, 2]), np.array([1, 1, 3, 2, -1, 4]), 3, 1
    )  # fmt: skip
    assert owned.sizes.tolist() == [0, 3, 1]
    assert owned.several.tolist() == [True] * 3 + [False] * 3
    assert owned.merged_here.tolist() == [True] * 3 + [False] * 3
    assert owned.pruned_here.tolist() == [False] * 3 + [True] + [False] * 2
    again = replace(owned, before=np.array([2, 2, 2, -1, -1, 1]))
    assert not again.merged_here.any()
    assert not again.pruned_here.any()
