"""Files and graphs of LTM-Transformer: what they tell, what is refused, what is found wrong."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console

from ltmp_export import check, export, inspect, load_checkpoint
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.reports import export_summary
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.merge_mask.step import MergeMask
from tests.conftest import load_torch
from tests.makers import masks

STATED = Choices(num_heads=2, mean=(0.5,) * 3, std=(0.5,) * 3)
ASKED = replace(STATED, family="ltm_transformer")


@pytest.fixture(scope="module")
def trained(digits_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("masks") / "c.pth"
    torch.save(masks.content(load_torch(digits_base)), path)
    return load_checkpoint(path, STATED)


def few(count: int) -> Images:
    pixels = np.random.default_rng(3).standard_normal((count, 3, 32, 32)).astype(np.float32)
    return Images(pixels, None, tuple(map(str, range(count))), "test")


def wrong_weights(model: onnx.ModelProto) -> None:
    """The mask moves by more."""
    node = next(n for n in model.graph.node if "blocks.2.ltm.step" in n.input)
    node.op_type = "Div"


def wrong_target(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.output[0] == "block_02/ArgMax")
    node.op_type = "ArgMin"


def wrong_mean(model: onnx.ModelProto) -> None:
    """Each target is the sum of what comes to it."""
    node = [n for n in model.graph.node if re.fullmatch(r"block_02/Div(_\d)?", n.output[0])][-1]
    node.op_type, node.input[1] = "Mul", "wrong/one"
    one = onnx.numpy_helper.from_array(np.array([1], np.float32), "wrong/one")
    model.graph.initializer.append(one)


def all_alive(model: onnx.ModelProto) -> None:
    """Empty targets are attended to."""
    node = next(n for n in model.graph.node if n.output[0] == "block_02/reached")
    named = onnx.helper.make_node("Or", ["all/given", "all/not"], ["block_02/reached"])
    given = onnx.helper.make_node(node.op_type, list(node.input), ["all/given"])
    other = onnx.helper.make_node("Not", ["all/given"], ["all/not"])
    at = list(model.graph.node).index(node)
    model.graph.node.remove(node)
    for place, one in enumerate((given, other, named)):
        model.graph.node.insert(at + place, one)


def unweighted(model: onnx.ModelProto) -> None:
    """What comes back is not divided among the targets of a patch."""
    node = next(n for n in model.graph.node if n.output[0] == "block_02/merge_mask/Div")
    node.op_type = "Mul"


@pytest.mark.parametrize(
    ("hard", "restore", "change", "words"),
    [
        (False, False, wrong_weights, "weight of token"),
        (True, False, wrong_target, "is merged into another partner than the reference's"),
        (False, False, wrong_mean, "with the same decisions the vectors after it"),
        (False, False, all_alive, "is a target that patches reach in the file"),
        (False, True, unweighted, "with the same decisions the vectors after it"),
    ],
)
def test_wrong_graphs_are_found(
    trained: Checkpoint,
    hard: bool,
    restore: bool,
    change: Callable[[onnx.ModelProto], None],
    words: str,
) -> None:
    checkpoint = masks.digits(trained, hard=hard, restore=restore)
    model = to_onnx(checkpoint, opset=17)
    change(model)
    found = compare.compare(model, checkpoint, few(2), batch_sizes=(1,))
    assert found.verdict == "fail"
    assert "block 2" in found.headline()
    assert words in found.headline()


def test_a_file_and_what_is_told_of_it(trained: Checkpoint, tmp_path: Path) -> None:
    made = export(trained, tmp_path / "m.onnx", check=False)
    assert made.tokens == (65, 65, 17, 17, 17, 17)
    told = inspect(tmp_path / "m.onnx")
    assert (told["family"], told["mode"]) == ("ltm_transformer", "static")
    step = {"name": "blocks.2.ltm", "start": "ltm.mask0", "of": 64, "tokens": 16, "sets": 1}
    switches = {"first": True, "hard": False, "restore": False}
    assert told["plan"]["blocks"][2] == [{"step": "MergeMask", **step, **switches}]
    assert check(tmp_path / "m.onnx", trained, samples=2, batch_sizes=[2]).verdict == "equal"


def test_tokens_that_come_back_are_told(trained: Checkpoint, tmp_path: Path) -> None:
    restored = masks.digits(trained, hard=True, restore=True)
    made = export(restored, tmp_path / "m.onnx", check=False)
    assert made.restores
    assert made.tokens == (17,) * 6
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(export_summary(made))
    assert "the MLP of each block runs on 17 17 17 17 17 17" in console.export_text()


def saved(content: dict[str, Any], folder: Path) -> Path:
    torch.save(content, folder / "c.pth")
    return folder / "c.pth"


def test_a_restoring_file_is_told_by_its_masks(digits_base: Path, tmp_path: Path) -> None:
    content = masks.content(load_torch(digits_base), *range(6), hard=True)
    plan = load_checkpoint(saved(content, tmp_path), STATED).plan
    steps = [step for (step,) in plan.blocks]
    assert all(isinstance(s, MergeMask) and s.hard and s.restore for s in steps)
    assert [s.first for s in steps if isinstance(s, MergeMask)] == [True] + [False] * 5
    assert set(plan.parameters) == set(masks.weights(*range(6)))


@pytest.mark.parametrize(
    ("change", "stated", "words"),
    [
        ({"ltm.mask0": None}, {}, r"ltm.mask0 is missing; expected \[64, targets\]"),
        ({"ltm.mask0": (63, 16)}, {}, r"ltm.mask0 is \[63, 16\]; expected \[64, 16\]"),
        ({"ltm.mask0": (64, 65)}, {}, "ltm.mask0 makes 65 tokens of 64"),
        ({"ltm.mask0": (64, 0)}, {}, r"ltm.mask0 is \[64, 0\]; expected \[64, targets\]"),
        ({"blocks.2.ltm.center": (4,)}, {}, r"blocks.2.ltm.center is \[4\]; expected \[128\]"),
        ({"blocks.2.ltm.step": None}, {}, r"blocks.2.ltm.step is missing; expected \[1\]"),
        ({"blocks.7.ltm.step": (1,)}, {}, "masks of blocks .2, 7.; the model has 6 blocks"),
        ({"blocks.3.ltm.step": (1,)}, {}, "masks of blocks 2, 3; expected one block that merges"),
        ({"layers.2.ltm.mask0": (3, 3)}, {}, "layers.2.ltm.mask0 is .*a plain ViT has no such"),
        ({}, {"compression_ratio": float("nan")}, "--compression-ratio nan: expected a share"),
        ({}, {"compression_ratio": -1.0}, "--compression-ratio -1.0: expected a share"),
        ({}, {"restore": True}, "masks of 1 blocks, but tokens are restored"),
        ({}, {"merge_at": (3,)}, "--merge-at 3: .* merges in 2"),
        ({}, {"compression_ratio": 0.5}, "--compression-ratio 0.5: 36 of 64 patches; .* leave 16"),
        ({}, {"reduction_target": 0.5}, "--reduction-target"),
        ({}, {"keep_rate": 0.5}, "takes no --keep-rate; drop it"),
    ],
)
def test_files_that_cannot_be(
    digits_base: Path,
    tmp_path: Path,
    change: dict[str, tuple[int, ...] | None],
    stated: dict[str, Any],
    words: str,
) -> None:
    content = masks.content(load_torch(digits_base))
    for name, shape in change.items():
        content["state_dict"].pop(name, None)
        if shape is not None:
            content["state_dict"][name] = torch.zeros(shape)
    with pytest.raises(InputError, match=words):
        load_checkpoint(saved(content, tmp_path), replace(STATED, **stated))


def test_hard_or_soft_is_asked_for(digits_base: Path, tmp_path: Path) -> None:
    content = masks.content(load_torch(digits_base)) | {"args": argparse.Namespace()}
    path = saved(content, tmp_path)
    with pytest.raises(InputError, match="whether its masks are hard.*state --hard or --soft"):
        load_checkpoint(path, STATED)
    (step,) = load_checkpoint(path, replace(STATED, hard=True)).plan.blocks[2]
    assert isinstance(step, MergeMask)
    assert step.hard


def test_dense_weights_start_from_cells(digits_base: Path) -> None:
    found = load_checkpoint(digits_base, replace(ASKED, compression_ratio=0.25))
    assert found.plan.blocks[2] == (MergeMask("blocks.2.ltm", "ltm.mask0", 64, 16),)
    assert any("as training starts" in warning for warning in found.warnings)
    costly = load_checkpoint(digits_base, replace(ASKED, compression_ratio=1.0, restore=True))
    assert any("% of the dense multiply-accumulates: the method's" in w for w in costly.warnings)


def test_a_file_that_lost_its_masks(digits_base: Path, tmp_path: Path) -> None:
    content = masks.content(load_torch(digits_base))
    content["state_dict"] = {k: v for k, v in content["state_dict"].items() if "ltm" not in k}
    path = saved(content, tmp_path)
    with pytest.raises(InputError, match="holds no weights of ltm_transformer, which it calls"):
        load_checkpoint(path, STATED)
    assert load_checkpoint(path, ASKED).plan.parameters


def test_a_switch_that_the_file_says_otherwise(trained: Checkpoint) -> None:
    found = load_checkpoint(trained.path, replace(STATED, hard=True))
    assert "hard True as asked, though the file's args say False" in found.warnings
