"""The same verdicts in other runtimes, and what outputs alone can tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import pytest

from ltmp_export import check, replay
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import UnavailableError
from ltmp_export.images import inputs
from ltmp_export.model_file import targets
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.parity.computed import Here, Runner
from ltmp_export.parity.report import CheckReport
from ltmp_export.runtimes import installed
from ltmp_export.steps.prune.step import Prune
from tests.conftest import DIGITS_LTMP
from tests.makers.commands import ltmp, refused
from tests.makers.edge_cases import on_the_threshold
from tests.makers.lower_precision import prepared
from tests.makers.mutations import MUTATIONS, change_stored

Digits = Callable[[str], Checkpoint]
BATCHES = (1, 2, 7)


class Blind(Here):
    """A runtime that gives no inner tensors."""

    def tapped(self, wanted: Mapping[str, int]) -> Runner | None:
        self.why_outputs_only = "it is blind"
        return None


def needs(runtime: str) -> None:
    if installed.version(runtime) is None:
        pytest.skip(f"{runtime} is not installed")


def judged(
    model: onnx.ModelProto, checkpoint: Checkpoint, images: inputs.Images, *sizes: int, **how: str
) -> CheckReport:
    computed = Here(model, None, **how) if how else Blind(model)
    return compare.compare(model, checkpoint, images, batch_sizes=sizes, computed=computed)


def test_openvino_takes_every_decision(shallow_digits: Digits, images: inputs.Images) -> None:
    needs("openvino")
    checkpoint = shallow_digits("ltmp")
    found = judged(to_onnx(checkpoint, opset=17), checkpoint, images, *BATCHES, runtime="openvino")
    assert (found.verdict, found.proved_at) == ("equal", "decisions"), found.headline()
    assert found.runtime.startswith("OpenVINO ")
    assert len(found.comparisons) == 6 * 4


@pytest.mark.parametrize(
    "name",
    ["even and odd rows swapped", "epsilon 1e-5", "importance summed", "rows of mlp.fc1 exchanged"],
)
def test_a_wrong_graph_fails_in_openvino_as_in_onnxruntime(
    name: str, shallow_digits: Digits, images: inputs.Images
) -> None:
    needs("openvino")
    checkpoint, few = shallow_digits("ltmp"), images.select(2)
    wrong = MUTATIONS[name].mutate(checkpoint, 2)
    own = compare.compare(wrong, checkpoint, few, batch_sizes=(2,))
    found = judged(wrong, checkpoint, few, 2, runtime="openvino")
    assert (own.verdict, found.verdict) == ("fail", "fail")
    assert {c.where for c in found.of("fail")} == {c.where for c in own.of("fail")}
    assert found.reason == own.reason


@pytest.mark.parametrize("family", ["ltmp", "ltpm", "ltm", "ltp"])
def test_outputs_alone(family: str, shallow_digits: Digits, images: inputs.Images) -> None:
    """A right file is equal; a wrong one fails where it changes what is given."""
    checkpoint = shallow_digits(family)
    model = to_onnx(checkpoint, opset=17, token_counts=True)
    found = judged(model, checkpoint, images, *BATCHES)
    assert (found.verdict, found.proved_at) == ("equal", "outputs"), found.headline()
    assert found.warnings == ("only outputs are compared: it is blind",)
    assert found.comparisons[0].counts == found.comparisons[0].expected_counts
    wrong = MUTATIONS["attn.proj times 1.01"].mutate(checkpoint, 1)
    found = judged(wrong, checkpoint, images.select(2), 2)
    assert {c.where for c in found.of("fail")} == {"head"}


@pytest.mark.parametrize("family", ["evit", "m", "mp", "multiscale_mergence"])
def test_outputs_alone_of_families_of_fixed_numbers(family: str, digits_base: Path) -> None:
    from tests.backbones.test_outputs import given, model, plans
    from tests.makers import random_vits

    for plan in plans(family).values():
        checkpoint = random_vits.bare(*model(), plan)
        proto = to_onnx(checkpoint, opset=17, outputs=("logits",))
        found = judged(proto, checkpoint, given(), 1, 4)
        assert found.verdict == "equal", found.headline()


@pytest.mark.parametrize("form", ["static", "qdq"])
def test_int8_by_outputs_alone(form: str, shallow_digits: Digits, images: inputs.Images) -> None:
    """The reference rounds by itself; what a file gives otherwise fails."""
    checkpoint, few = shallow_digits("ltmp"), images.select(2)
    balanced, precision = prepared(checkpoint, images.pixels, form)
    model = to_onnx(balanced, opset=17, token_counts=True, precision=precision)
    verdicts = []
    for wrong in (False, True):
        if wrong:
            change_stored(model, "head.bias", lambda bias: bias.fill(0.5))
        found = compare.compare(
            model, checkpoint, few, batch_sizes=(1, 2), precision=precision, computed=Blind(model)
        )
        verdicts.append((found.verdict, found.proved_at))
    assert verdicts == [("bounded", "outputs"), ("fail", "outputs")], found.headline()


@pytest.mark.parametrize(
    ("runtime", "family", "form"), [("openvino", "ltmp", "qdq"), ("tract", "m", "static")]
)
def test_int8_in_other_runtimes(
    runtime: str, family: str, form: str, shallow_digits: Digits, images: inputs.Images
) -> None:
    """Its decisions and every rounding are proved there; what the graph computes else fails."""
    needs(runtime)
    checkpoint, few = shallow_digits(family), images.select(2)
    balanced, precision = prepared(checkpoint, images.pixels[:8], form)
    model = to_onnx(balanced, opset=17, precision=precision)
    first = next(node for node in model.graph.node if node.op_type == "LayerNormalization")
    (epsilon,) = (one for one in first.attribute if one.name == "epsilon")
    verdicts = []
    for value in (epsilon.f, 0.1):
        epsilon.f = value
        found = compare.compare(
            model, checkpoint, few, batch_sizes=(2,), precision=precision,
            computed=Here(model, None, runtime=runtime),
        )  # fmt: skip
        verdicts.append((found.verdict, found.proved_at))
    assert verdicts == [("bounded", "decisions"), ("fail", "decisions")], found.headline()
    assert {c.where for c in found.of("fail")} == {"block 0"}


def test_a_decision_on_its_threshold(shallow_digits: Digits, images: inputs.Images) -> None:
    """Where outputs fit the other decision, it is borderline; where they fit neither, unknown."""
    edge = on_the_threshold(shallow_digits("ltp"), images, Prune)
    found = judged(to_onnx(edge, opset=17), edge, images.select(2), 2)
    own = compare.compare(to_onnx(edge, opset=17), edge, images.select(2), batch_sizes=(2,))
    assert found.verdict == own.verdict == "borderline"
    assert found.of("borderline")[0].reason == own.of("borderline")[0].reason
    wrong = judged(MUTATIONS["mlp.fc2 times 1.01"].mutate(edge, 2), edge, images.select(2), 2)
    first = wrong.comparisons[0]
    assert first.verdict == "inconclusive"
    assert "a decision in block 0 lies" in first.reason
    assert {c.verdict for c in wrong.comparisons if c.number == 1} == {"fail"}


def test_what_a_runtime_does_not_load(shallow_digits: Digits, images: inputs.Images) -> None:
    """It does not compute what the checkpoint computes: exit code 1, with the runtime's words."""
    needs("tract")
    checkpoint = shallow_digits("ltmp")
    model = to_onnx(checkpoint, opset=17)
    model.graph.node[0].op_type = "NoSuchOperator"
    found = judged(model, checkpoint, images.select(1), 1, runtime="tract")
    assert found.verdict == "fail"
    assert ": tract fails on images of shape (1, 3, 32, 32): Translating node" in found.reason
    assert "\n" not in found.reason


def test_inner_tensors_that_a_runtime_refuses_when_run(
    shallow_digits: Digits, images: inputs.Images
) -> None:
    """The file as it is runs there, and its outputs tell a wrong graph from a right one."""
    needs("tract")
    checkpoint, few = shallow_digits("ltmp"), images.select(2)
    right = to_onnx(checkpoint, opset=17, batch_size=1)
    wrong = to_onnx(checkpoint, opset=17, batch_size=1)
    change_stored(wrong, "head.bias", lambda bias: bias.fill(0.5))
    found = []
    for model in (right, wrong):
        targets.write_for(model, "tract", 17)
        found.append(judged(model, checkpoint, few, 1, runtime="tract"))
    assert [(one.verdict, one.proved_at) for one in found] == [
        ("equal", "outputs"), ("fail", "outputs"),
    ]  # fmt: skip
    said = "only outputs are compared: with inner tensors as outputs, tract fails on images of"
    assert found[0].warnings[0].startswith(said)
    assert {c.where for c in found[1].of("fail")} == {"head"}


def test_as_a_user_types_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is saved with the runtime it failed in."""
    needs("openvino")
    monkeypatch.chdir(tmp_path)
    from ltmp_export import load_checkpoint

    wrong = MUTATIONS["rows of mlp.fc1 exchanged"].mutate(load_checkpoint(DIGITS_LTMP), 3)
    onnx.save(wrong, "wrong.onnx")
    few = ("--samples", "1", "-b", "1", "--runtime", "openvino")
    shown = ltmp("check", "wrong.onnx", DIGITS_LTMP, *few, "--save-repro", "r", "--json", "c.json")
    assert shown.exit_code == 1
    assert ", in OpenVINO 20" in shown.stdout
    assert '"proved_at": "decisions"' in Path("c.json").read_text()
    assert replay("r").runtime.startswith("OpenVINO ")


@pytest.mark.parametrize("name", ["OpenVINO", "tract", "IREE", "MNN", "TVM"])
def test_what_is_not_installed_is_refused_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_there", lambda module: False)
    extra = name.lower()
    message = f"{name} is not installed .*: install it, or ltmp's extra '{extra}'$"
    refused(ltmp("check", "a.onnx", "b.pth", "--runtime", extra), message, 4)
    with pytest.raises(UnavailableError, match=message):
        check("a.onnx", "b.pth", runtime=extra)


def test_an_unknown_runtime_is_refused() -> None:
    refused(ltmp("check", "a.onnx", "b.pth", "--runtime", "tensorflow"), "no runtime 'tensorflow'")


def test_providers_are_onnxruntimes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_there", lambda module: True)
    told = ltmp("check", "a.onnx", "b.pth", "--runtime", "openvino", "--providers", "cuda")
    refused(told, "openvino has no execution provider cuda; it runs on the CPU", 4)
