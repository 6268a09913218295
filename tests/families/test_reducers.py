"""Public reducers: checkpoints as published, against what the original code gave.

Sources: JoakimHaurum/TokenReduction@88fe07e, noyaboy/TokenReductionPT@8b0099e,
youweiliang/evit@5ca95a7, raoyongming/DynamicViT@1322e62.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.medoids.eager import Clustering as Medoids
from ltmp_export.steps.tokens import Decision
from tests.conftest import load_torch
from tests.makers.commands import ltmp, succeeded
from tests.makers.golden_sets import HEADS, folder, golden

# By set: the family, and what each MLP runs on.
SETS = {
    "topk-a": ("topk", (197, 138, 97, 68, 68)),
    "evit-a": ("evit", (197, 139, 98, 69, 69)),
    "evit_official_fuse-a": ("evit", (197, 140, 100, 72, 72)),
    "evit_official_nofuse-a": ("evit", (197, 99, 50, 26, 26)),
    "pt_topk_deit-a": ("topk", (197, 139, 98, 69, 69)),
    "pt_evit_deit3-a": ("evit", (197, 140, 100, 72, 72)),
    "tome-a": ("m", (197, 138, 97, 68, 68)),
    "patchmerger-a": ("patchmerger", (197, 118, 71, 43, 43)),
    "dyvit-a": ("dynamicvit", (197, 138, 97, 68, 68)),
    "sit-a": ("sit", (197, 138, 97, 68, 68)),
    "sinkhorn-a": ("sinkhorn", (197, 138, 97, 68, 68)),
    "sinkhorn_sharp-a": ("sinkhorn", (197, 99, 50, 25, 25)),
    "dpcknn-a": ("dpcknn", (197, 118, 71, 43, 43)),
    "kmedoids-a": ("kmedoids", (197, 99, 50, 25, 25)),
    "heuristic-a": ("heuristic", (197, 165, 97, 45, 45)),
    "heuristic_stages-a": ("heuristic", (197, 141, 97, 69, 69)),
    "heuristic_stages_l1-a": ("heuristic", (197, 137, 93, 69, 69)),
    "dynamicvit_official-a": ("dynamicvit", (197, 138, 97, 68, 68)),
}
# What no file says beside the heads.
STATED = {"dynamicvit_official-a": replace(HEADS, merge_at=(1, 2, 3))}
MIXED = ("patchmerger", "sit", "sinkhorn")  # no token is of certain patches
REFERENCE, FILE = 1e-10, 5e-5  # float64 and float32, of logits


def patches(orders: list[NDArray[np.int64]], patches: int = 196) -> list[list[int]]:
    """Original patches that each stage keeps, -1 of a token that an earlier one fused."""
    names, found = np.arange(patches), []
    for order in orders:
        names = names[order]
        found.append(names.tolist())
        names = np.append(names, -1)
    return found


@pytest.mark.parametrize("name", SETS)
def test_reference_is_the_original(name: str) -> None:
    """Logits in float64, who is kept in which order, and the right weights of the file."""
    one, (family, counts) = golden(name, STATED.get(name, HEADS)), SETS[name]
    assert one.checkpoint.plan.family == family
    traces = one.traces()
    logits = np.stack([trace.logits.numpy() for trace in traces])
    assert {trace.counts for trace in traces} == {counts}
    assert np.abs(logits - one.arrays["logits64"]).max() < REFERENCE
    assert np.abs(logits - one.arrays["logits_wrong_weights"]).max() > 1e-2
    assert np.abs(one.dense() - one.arrays["logits_dense64"][:1]).max() < REFERENCE
    for number, trace in enumerate(traces if "stage0_kept_patch" in one.arrays else ()):
        rows = [_staying(decisions[0]) for decisions in trace.decisions if decisions]
        for stage, kept in enumerate(patches(rows)):
            theirs = one.arrays[f"stage{stage}_kept_patch"][number].tolist()
            assert kept == theirs[: len(kept)]
            assert set(theirs[len(kept) :]) <= {-1}


def _staying(decision: Decision) -> NDArray[np.int64]:
    """Rows of the patches that stay, in their order."""
    if isinstance(decision, Medoids):
        return decision.medoids.numpy()
    assert decision.order is not None
    return np.asarray(decision.order)[1:] - 1


def test_clusters_are_the_originals() -> None:
    """Centres in their order, whose cluster each patch is part of, and no noise in densities."""
    one = golden("dpcknn-a")
    for number, trace in enumerate(one.traces(2)):
        for stage, (decision,) in enumerate(filter(None, trace.decisions)):
            theirs = {k: one.arrays[f"stage{stage}_{k}"][number] for k in ("kept", "cluster")}
            assert decision.order is not None
            assert decision.partners is not None
            assert np.array_equal(decision.order[1:] - 1, theirs["kept"])
            into = decision.partners.index[1:].numpy()
            into[theirs["kept"]] = np.arange(len(theirs["kept"]))
            assert np.array_equal(into, theirs["cluster"])


@pytest.mark.parametrize("name", SETS)
def test_graph_is_the_original(name: str) -> None:
    """One opset at batches 1, 3 and 6, the others at one of them; whom the file keeps."""
    one = golden(name, STATED.get(name, HEADS))
    wanted, pixels = one.arrays["logits64"], one.pixels
    outputs = ["logits", "token_map"] if SETS[name][0] not in MIXED else ["logits"]
    for opset in (16, 17, opsets.newest_opset()):
        model = to_onnx(one.checkpoint, opset=opset, outputs=outputs)
        session = Session(model, threads=1)
        for size in (1, 3, 6) if opset == 17 else (3,):
            runs = [session.run(pixels[at : at + size]) for at in range(0, 6, size)]
            logits, *went = (np.concatenate(part) for part in zip(*runs, strict=True))
            assert np.abs(logits - wanted).max() < FILE
            assert all(map(one.holds, went))


Changed = Callable[..., Path]


@pytest.fixture
def changed(tmp_path: Path) -> Changed:
    """A set's file with other arguments (None takes one away) and entries of its top level."""

    def save(name: str, top: Mapping[str, Any] | None = None, **others: Any) -> Path:
        content = load_torch(folder(name) / "checkpoint.pth")
        args = {k: v for k, v in (vars(content["args"]) | others).items() if v is not None}
        content = {k: v for k, v in (content | dict(top or {})).items() if v is not None}
        torch.save(content | {"args": argparse.Namespace(**args)}, tmp_path / "c.pth")
        return tmp_path / "c.pth"

    return save


def test_a_share_for_each_place(changed: Changed) -> None:
    """Of the zoo not cumulative, of TokenReductionPT of the patches that are there."""
    wanted = {"topk-a": (197, 177, 99, 50, 50), "pt_topk_deit-a": (197, 178, 90, 24, 24)}
    for name, counts in wanted.items():
        found = load_checkpoint(changed(name, keep_rate=[0.9, 0.5, 0.25]), HEADS)
        assert found.plan.counts(197, 1) == counts


@pytest.mark.parametrize(
    ("name", "others", "words"),
    [
        ("topk-a", {"keep_rate": [0.5, 0.5, 0.3]}, "keep all 98 patches, on which the zoo's topk"),
        ("topk-a", {"keep_rate": [0.5, 0.6, 0.3]}, "keep 117 of 98 patches, which are fewer"),
        ("topk-a", {"keep_rate": [0.5, 0.4]}, "2 keep rates for 3 blocks"),
        ("topk-a", {"keep_rate": [0.1]}, "leaves no patch at block 3"),
        ("topk-a", {"reduction_loc": [1, 9]}, "blocks 1,9 .*expected rising numbers of the 5"),
        ("topk-a", {"keep_rate": ["a"]}, "expected a list of blocks, and of shares"),
        ("topk-a", {"top": {"model_ema": None}}, "state --keep-rule zoo|official"),
        ("kmedoids-a", {"reduction_loc": [0, 2]}, "go by the attention of a block before it"),
        ("kmedoids-a", {"equal_weight": True}, "around a token that is drawn at random"),
        ("kmedoids-a", {"cluster_iters": None}, "lacks args.cluster_iters .usual 3. and equal_wei"),
        ("kmedoids-a", {"cluster_iters": 0}, "cluster_iters 0; expected a number from 1"),
        ("kmedoids-a", {"keep_rate": [1.0]}, "block 1 is to make 196 clusters of 196 patches"),
        ("kmedoids-a", {"keep_rate": [0.5, 0.3]}, "kmedoids takes them for counts, and its script"),
        ("ats-a", {"keep_rate": [0.7, 0.5, 0.3]}, "numbers of samples, whole ones from 2"),
        ("ats-a", {"keep_rate": [137.0, 90.0]}, "2 numbers of samples for 3 blocks"),
        ("ats-a", {"keep_rate": [0.1]}, "its keep rate 0.1 leaves no patch to sample"),
        ("ats-a", {"keep_rate": [1.5]}, "keep rate 1.5: expected shares above 0, at most 1"),
        ("sit-a", {"keep_rate": [float("nan")]}, "keep rate nan: expected shares above 0"),
        ("tome-a", {"keep_rate": [float("nan")]}, "keep rate nan: expected shares above 0"),
        ("dpcknn-a", {"equal_weight": True}, r"it holds cluster_layers.0.score; another model's"),
        ("heuristic-a", {"min_radius": float("nan")}, "args.min_radius nan; expected a number"),
        ("topk-a", {"model": "topk_deit_tiny_patch16_224"}, "whose files hold no model_ema"),
        ("topk-a", {"ifa_head": False}, "whose args hold no ifa_head"),
        (
            "evit_official_fuse-a",
            {"reduction_loc": [1, 3], "keep_rate": [0.7], "model": "evit_tiny_patch16_224"},
            "two scripts, base_keep_rate of youweiliang/evit and reduction_loc of JoakimHaurum",
        ),
        ("dyvit-a", {"base_rate": 0.7}, "base_rate of raoyongming/DynamicViT and reduction_loc"),
        ("pt_topk_deit-a", {"keep_rate": [1.0]}, "all 196 patches, on which TokenReductionPT"),
        ("pt_topk_deit-a", {"model": "sit_deit_tiny_patch16_224"}, "known here for topk and evit"),
    ],
)  # fmt: skip
def test_files_that_no_script_wrote(
    changed: Changed, name: str, others: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        load_checkpoint(changed(name, **others), HEADS)


def test_clusters_whose_tokens_weigh_the_same(changed: Changed) -> None:
    """Such a file has no layers for weights; and one with layers has not lost them."""
    content = load_torch(folder("dpcknn-a") / "checkpoint.pth")
    bare = {
        key: {name: value for name, value in content[key].items() if ".score." not in name}
        for key in ("model", "model_ema")
    }
    one = load_checkpoint(changed("dpcknn-a", bare, equal_weight=True), HEADS)
    assert one.plan.counts(197, 1) == SETS["dpcknn-a"][1]
    images = golden("dpcknn-a").images(2)
    report = compare.compare(to_onnx(one, opset=17), one, images, batch_sizes=(2,))
    assert report.verdict == "equal", report.headline()
    with pytest.raises(InputError, match="weigh by layers .equal_weight False., but it holds no"):
        load_checkpoint(changed("dpcknn-a", bare), HEADS)


def test_what_a_user_says_goes_first(changed: Changed) -> None:
    """A rule where the file leaves it open, other weights of the file, no method at all."""
    path = changed("topk-a", {"model_ema": None}, keep_rate=[0.5])
    for rule, counts in (("zoo", (197, 99, 50, 25, 25)), ("official", (197, 99, 50, 26, 26))):
        found = load_checkpoint(path, replace(HEADS, keep_rule=rule))
        assert found.plan.counts(197, 1) == counts
    other = golden("topk-a", replace(HEADS, use_ema=False))
    logits = other.traces(1)[0].logits.numpy()
    assert np.abs(logits - other.arrays["logits_wrong_weights"][0]).max() < FILE
    file = folder("topk-a") / "checkpoint.pth"
    assert load_checkpoint(file, replace(HEADS, family="m", rate="8")).plan.family == "m"
    with pytest.raises(InputError, match=r"--num-heads 3 \(usual of topk_tiny_patch16_224\)"):
        load_checkpoint(file)


@pytest.mark.parametrize("name", ["topk-a", "dyvit-a"])
def test_a_checkpoint_is_measured_as_its_script_says(tmp_path: Path, name: str) -> None:
    """Though a dense one will do there, or its layers alone would leave their places open."""
    one = golden(name)
    labels = one.arrays["logits64"].argmax(1)
    np.savez(tmp_path / "six.npz", images=one.pixels, labels=labels)
    file = folder(name) / "checkpoint.pth"
    said = succeeded(ltmp("eval", file, "--num-heads", 3, "--data", tmp_path / "six.npz"))
    family, counts = SETS[name]
    assert f"{family}, top-1 100.00%" in said
    assert [line.split()[1] for line in said.splitlines()[1:6]] == [f"{n:.1f}" for n in counts]
    if name == "topk-a":
        assert load_checkpoint(file, HEADS, dense=True).plan.family == "dense"


def test_keeping_needs_no_training(digits_base: Path) -> None:
    """Of any plain ViT with a class token, by the official rule."""
    stated = Choices(num_heads=2, merge_at=(1, 3), keep_rate=0.5)
    found = {f: load_checkpoint(digits_base, replace(stated, family=f)) for f in ("topk", "evit")}
    counts = {family: one.plan.counts(65, 1) for family, one in found.items()}
    assert counts == {"topk": (65, 33, 33, 17, 17, 17), "evit": (65, 34, 34, 19, 19, 19)}
    with pytest.raises(InputError, match="usual is --keep-rate 0.7"):
        load_checkpoint(digits_base, replace(stated, family="topk", keep_rate=None))
    with pytest.raises(InputError, match="state them, like --merge-at 1,2,3"):
        load_checkpoint(digits_base, replace(stated, family="topk", merge_at=None))


def test_places_that_no_argument_tells_are_asked_for() -> None:
    path = folder("dynamicvit_official-a") / "checkpoint.pth"
    words = r"^\S+: its args, base_rate 0.7 \(args\): nothing tells the blocks .*--merge-at 1,2,3$"
    with pytest.raises(InputError, match=words):
        load_checkpoint(path, HEADS)


def test_tome_is_family_m(digits_base: Path) -> None:
    found = load_checkpoint(digits_base, Choices(family="tome", rate="8", num_heads=2))
    assert found.plan.family == "m"
    assert "tome is family m here" in found.found
