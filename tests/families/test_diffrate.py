"""DiffRate: the original code's outputs, a slow oracle, wrong graphs, and wrong files of counts.

Source: OpenGVLab/DiffRate@91ae3e3.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.ragged import Layout
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.plan.work import share
from ltmp_export.precision.formats import FP16, INT8, Precision
from ltmp_export.reference import Reference
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.session import Session
from ltmp_export.statements import compression
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.absorb import slots
from ltmp_export.steps.absorb.step import Absorb
from ltmp_export.steps.rank.step import Rank
from tests.conftest import load_torch
from tests.makers.commands import ltmp, refused, succeeded
from tests.makers.examples import DIFFRATE
from tests.makers.golden_sets import Golden, folder, golden
from tests.oracles.oracle_diffrate import run_diffrate

SETS = {"diffrate-a": ("0.1", (145, 126, 101, 81, 58, 37)),
        "diffrate-mae-a": ("8.7", (140, 120, 95, 70, 48))}  # fmt: skip
STATED = Choices(diffrate=DIFFRATE, num_heads=2)
COUNTS = (60, 50, 50, 35, 33, 11)
EVEN: dict[str, Any] = {"diffrate": None, "family": "diffrate"}


def original(name: str) -> Golden:
    budget = SETS[name][0]
    text = compression.read(folder(name) / "compression_rate.json", budget)
    return golden(name, Choices(diffrate=text, budget=budget, num_heads=4))


@pytest.mark.parametrize("name", SETS)
def test_it_is_the_original(name: str) -> None:
    """Reference, who holds each token, sizes; the file at batches and opsets."""
    one, wanted = original(name), original(name).arrays["logits64"]
    for number, trace in enumerate(one.traces(outputs=("token_map",))):
        assert trace.counts == SETS[name][1]
        assert np.abs(trace.logits.numpy() - wanted[number]).max() < 1e-10
        assert np.array_equal(trace.final["token_map"], one.arrays["owner"][number, -1, 1:])
        assert np.abs(trace.sizes[-1].numpy() - one.arrays["size_final"][number]).max() < 1e-5
    for opset, sizes in {16: (3,), 17: (1, 3, 6), opsets.newest_opset(): (6,)}.items():
        session = Session(to_onnx(one.checkpoint, opset=opset, outputs=["logits", "token_map"]))
        for size in sizes:
            found = [session.run(one.pixels[at : at + size]) for at in range(0, 6, size)]
            logits, owner = (np.concatenate(part) for part in zip(*found, strict=True))
            assert np.abs(logits - wanted).max() < 5e-5
            assert np.array_equal(owner, one.arrays["owner"][:, -1, 1:])


@pytest.fixture(scope="module")
def averaged(digits_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The digits as MAE's fine-tuned models are: patches averaged, then normalised."""
    weights: dict[str, Tensor] = load_torch(digits_base)
    moved = {("fc_" * k.startswith("norm.")) + k: value for k, value in weights.items()}
    path = tmp_path_factory.mktemp("mae") / "mae.pth"
    torch.save({"model": moved}, path)
    return load_checkpoint(path, STATED)


@pytest.fixture(scope="module")
def plain(digits_base: Path) -> Checkpoint:
    return load_checkpoint(digits_base, STATED)


@pytest.fixture(scope="module")
def images(digit_images: Tensor) -> Images:
    return Images(digit_images[:3].numpy(), None, ("0", "1", "2"), "digits")


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_it_is_the_oracle(request: pytest.FixtureRequest, images: Images, pool: str) -> None:
    """Logits, sizes, owners, with a count that grows (block 2); every number of the file."""
    checkpoint: Checkpoint = request.getfixturevalue("plain" if pool == "token" else "averaged")
    assert (checkpoint.plan.family, checkpoint.vit.pool) == ("diffrate", pool)
    weights = {key: value.numpy() for key, value in checkpoint.model.state_dict().items()}
    lists = {k: json.loads(v) for k, v in json.loads(DIFFRATE)["ViT-T-DeiT"]["0.5"].items()}
    reference = Reference(checkpoint.model, checkpoint.plan, torch.float64, ("token_map",))
    trace = reference.run(torch.from_numpy(images.pixels[0]))
    found = run_diffrate(
        weights, images.pixels[0], heads=2, prune=lists["prune_kept_num"],
        merge=lists["merge_kept_num"], pool=pool,
    )  # fmt: skip
    assert trace.counts == found.counts == COUNTS
    assert np.abs(trace.logits.numpy() - found.logits).max() < 1e-10
    assert np.abs(trace.sizes[-1].numpy() - found.sizes).max() < 1e-10
    assert trace.final["token_map"].tolist() == found.owner
    given = ("logits", "tokens", "sizes", "token_map", "dense")
    model = to_onnx(checkpoint, opset=17, outputs=given)
    report = compare.compare(model, checkpoint, images, batch_sizes=(1, 3))
    assert report.verdict == "equal", report.headline()
    assert not {"NonZero", "Compress", "Loop"} & {node.op_type for node in model.graph.node}


def test_even_counts(digits_base: Path, images: Images) -> None:
    """Without a file of counts: the largest rate that leaves no more of the work."""
    one = load_checkpoint(digits_base, replace(STATED, **EVEN, keep_rate=0.75))
    left = [1 + round(64 * 0.75 ** (block + 1)) for block in range(6)]
    assert [rows.kept for rows in one.vit.rows(one.plan)] == left == [49, 37, 28, 21, 16, 12]
    assert one.plan.blocks[1] == (Rank(42), Absorb(36))  # of 48 patches 6 are dropped, 6 merge
    assert "not DiffRate's learned ones" in one.warnings[0]
    report = compare.compare(to_onnx(one, opset=17), one, images, batch_sizes=(3,))
    assert report.verdict == "equal", report.headline()
    half = load_checkpoint(digits_base, replace(STATED, **EVEN, reduction_target=0.5))
    more = replace(STATED, **EVEN, keep_rate=half.plan.stated["keep_rate"] + 0.001)
    above = load_checkpoint(digits_base, more)
    assert share(half.vit, half.plan) <= 0.5 < share(above.vit, above.plan)


def test_lower_precision(plain: Checkpoint, images: Images) -> None:
    for precision in (Precision(FP16), Precision(INT8)):
        source, made = plain, precision
        if precision.kind == INT8:
            source, made = quantise.prepare(plain, images, precision)
        model = to_onnx(source, opset=17, precision=made)
        found = compare.compare(model, plain, images, batch_sizes=(3,), precision=made)
        assert found.verdict == "bounded", found.headline()


def wrong_sizes(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Each grows by the plain sum."""
    reduce = GraphBuilder.reduce

    def ones(g: GraphBuilder, kind: str, x: Name, *rest: Any, **named: Any) -> Name:
        found = reduce(g, kind, x, *rest, **named)
        return g.op("Div", found, found) if kind == "ReduceMax" else found

    write = slots.write

    def wrong(g: GraphBuilder, *rest: Any) -> Any:
        with mock.patch.object(GraphBuilder, "reduce", ones):
            return write(g, *rest)

    with mock.patch.object(slots, "write", wrong):
        return to_onnx(checkpoint, opset=17)


def weighted_means(checkpoint: Checkpoint) -> onnx.ModelProto:
    """What merges weighs as much as it stands for."""
    write, op = slots.write, GraphBuilder.op

    def wrong(g: GraphBuilder, step: Any, tokens: Any) -> Any:
        def changed(own: GraphBuilder, kind: str, *given: Name, **named: Any) -> Name:
            if kind == "Cast" and tokens.size is not None:
                moving = own.slice(tokens.size, 1, step.after(tokens.number, tokens.protected))
                return op(own, "Mul", op(own, kind, *given, **named),
                          op(own, "Unsqueeze", moving, own.ints(1)))  # fmt: skip
            return op(own, kind, *given, **named)

        with mock.patch.object(GraphBuilder, "op", changed):
            return write(g, step, tokens)

    with mock.patch.object(slots, "write", wrong):
        return to_onnx(checkpoint, opset=17)


def without_sizes(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Attention takes each token for one patch."""
    with mock.patch.object(Layout, "score_bias", return_value=None):
        return to_onnx(checkpoint, opset=17)


@pytest.mark.parametrize(
    ("mutate", "words"),
    [
        (wrong_sizes, "block 0: a token stands for"),
        (weighted_means, "block 5: with the same decisions"),
        (without_sizes, "block 1"),
    ],
)
def test_a_wrong_graph_is_found(
    averaged: Checkpoint, images: Images, mutate: Callable[..., Any], words: str
) -> None:
    report = compare.compare(mutate(averaged), averaged, images, batch_sizes=(1,))
    assert report.verdict == "fail", report.reason
    assert words in report.headline()


def text(**changed: Any) -> str:
    """The counts with some of them changed."""
    content = json.loads(DIFFRATE)
    content["ViT-T-DeiT"]["0.5"] |= changed
    return json.dumps(content)


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"diffrate": "{"}, "no JSON"),
        ({"diffrate": "[]"}, "no model with budgets in it"),
        ({"budget": "0.7"}, r"--budget 0\.7: ViT-T-DeiT has the budgets 0\.5; state one"),
        ({"budget": "ViT-S-DeiT:0.5"}, "has the models ViT-T-DeiT, and this one would be ViT-S"),
        ({"diffrate": '{"a": {}, "b": {}}'}, r"has the models a, b, and .*--budget a:NAME"),
        ({"diffrate": text(merge_kept_num="[60,50]")}, "has 2 counts; the model has 6 blocks"),
        ({"diffrate": text(prune_kept_num=[1] * 6)}, "expected a list of whole numbers of 2 or"),
        ({"diffrate": text(prune_kept_num="6; 5")}, "expected a list of whole numbers of 2 or"),
        ({"diffrate": None, "family": "diffrate"}, "its file with .*, or --reduction-target 0.5"),
        ({"keep_rate": 0.9}, "--keep-rate or --reduction-target even ones instead; give one"),
        ({**EVEN, "keep_rate": 1.1}, "keep rate 1.1: expected shares above 0, at most 1"),
        ({**EVEN, "reduction_target": 0.01}, "no rate leaves so little; ask for more"),
        ({**EVEN, "reduction_target": 0.5, "keep_rate": 0.5}, "in two ways; give one"),
        ({"merge_at": (1,)}, "takes no --merge-at"),
    ],
)  # fmt: skip
def test_counts_that_cannot_be(digits_base: Path, stated: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_checkpoint(digits_base, replace(STATED, **stated))


def test_commands(digits_base: Path, tmp_path: Path) -> None:
    """From a file beside the weights, which the exported file then needs no more."""
    rates, model = tmp_path / "rates.json", tmp_path / "m.onnx"
    rates.write_text(DIFFRATE)
    stated = ("--num-heads", 2, "--diffrate", rates, "--budget", "0.5")
    told = succeeded(ltmp("export", digits_base, *stated, "-o", model, "--no-check"))
    assert "tokens after each block 60 50 50 35 33 11" in told
    assert "merged into" in succeeded(ltmp("inspect", digits_base, *stated))
    rates.unlink()
    assert "equal" in succeeded(ltmp("check", model, digits_base, "--samples", 1, "-b", 1))
    refused(ltmp("inspect", digits_base, *stated), "does not exist")
    rates.write_text("{")
    refused(ltmp("inspect", digits_base, *stated), "is no JSON")
    rates.write_text("[1]")
    refused(ltmp("inspect", digits_base, *stated), "holds something else; expected JSON of model")
    refused(ltmp("export", digits_base, "--budget", "1"), "state the family, --family diffrate")
