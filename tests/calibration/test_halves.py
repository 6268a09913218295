"""float16's range: what has no room stays float32, and a file that lacks the room fails its check.

The judge of a file is onnx's reference evaluator, which computes in the types that the file states;
onnxruntime's CPU does not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from ltmp_cli.main import app
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from timm.layers import GELUTanh, QuickGELU
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn
from typer.testing import CliRunner

from ltmp_export import families
from ltmp_export.calibration import halves
from ltmp_export.checkpoint import rates
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.commands import check, export
from ltmp_export.errors import CheckFailedError, ExportError, InputError
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import half_places, to_onnx
from ltmp_export.parity import compare
from ltmp_export.plan.outputs import LOGITS
from ltmp_export.precision.formats import FP16, Precision
from ltmp_export.reference import Reference
from ltmp_export.runtimes import opsets, session
from ltmp_export.statements.choices import Choices
from tests.makers import random_vits
from tests.makers.lower_precision import reference_logits
from tests.makers.random_vits import Case, bare

HALF = Precision(FP16)
OPSETS = (16, 17, 20, opsets.newest_opset())
TANH = Case("gelu_tanh", 18, {"act_layer": GELUTanh})
QUICK = Case("quick_gelu", 19, {"act_layer": QuickGELU})


def scaled(rows: slice | int, path: str, by: float) -> Callable[[VisionTransformer], None]:
    """Some outputs of a linear layer, weights and bias, are so many times as large."""

    def change(model: VisionTransformer) -> None:
        layer = model.get_submodule(path)
        layer.weight[rows] *= by
        layer.bias[rows] *= by

    return change


def balanced(
    rows: slice | int, path: str, then: str, by: float
) -> Callable[[VisionTransformer], None]:
    """The same, and the layer behind takes it back."""

    def change(model: VisionTransformer) -> None:
        scaled(rows, path, by)(model)
        columns = slice(0, 48) if then.endswith("proj") else rows
        model.get_submodule(then).weight[:, columns] /= by

    return change


def one_weight(model: VisionTransformer) -> None:
    """A weight beyond the range, that is multiplied with 0."""
    block: Block = model.blocks[1]
    block.norm2.weight[3] = block.norm2.bias[3] = 0
    block.mlp.fc1.weight[7, 3] = 1e5


Q, QK, V = slice(0, 48), slice(0, 96), slice(96, 144)  # rows of qkv, 48 channels wide
FC1, FC2, QKV, PROJ = (
    f"blocks.1.{leaf}" for leaf in ("mlp.fc1", "mlp.fc2", "attn.qkv", "attn.proj")
)
ACT, SCORES, MIXED = (f"blocks.1.{leaf}" for leaf in ("mlp.act", "attn.scores", "attn.mixed"))

# name: model, what is changed, what is kept in float32 for it
FAULTS: dict[str, tuple[Case, Callable[[VisionTransformer], None], set[str]]] = {
    "fc2": (random_vits.EVEN, scaled(5, "blocks.2.mlp.fc2", 1e5), {"blocks.2.mlp.fc2"}),
    "fc1": (random_vits.EVEN, balanced(slice(4, 12), FC1, FC2, 1e5), {FC1, ACT, FC2}),
    "qk": (random_vits.EVEN, scaled(QK, QKV, 150), {SCORES}),
    "qk480": (random_vits.EVEN, scaled(QK, QKV, 2000), {SCORES}),
    "q": (random_vits.EVEN, scaled(Q, QKV, 1e5), {QKV, SCORES}),
    "v": (random_vits.EVEN, balanced(V, QKV, PROJ, 1e5), {QKV, MIXED, PROJ}),
    "proj": (random_vits.EVEN, scaled(3, "blocks.2.attn.proj", 1e5), {"blocks.2.attn.proj"}),
    "head": (random_vits.EVEN, scaled(2, "head", 1e5), {"head"}),
    "patches": (random_vits.EVEN, scaled(3, "patch_embed.proj", 2e5), {"patch_embed.proj"}),
    "a weight": (random_vits.EVEN, one_weight, {FC1}),
    "x³": (TANH, balanced(7, FC1, FC2, 60), {ACT}),
    "1.702 x": (QUICK, balanced(7, FC1, FC2, 1.3e4), {ACT}),
}  # fmt: skip


@functools.cache
def faulty(name: str, family: str = "m") -> tuple[Checkpoint, Images]:
    """A model one of whose inner values is too large, and images."""
    case, change, _ = FAULTS[name]
    model, vit = random_vits.build(case)
    with torch.no_grad():
        change(model)
    pixels = random_vits.images(vit, case.seed).numpy()
    plan = rates.plan(families.load("m"), rates.parse("2", vit.depth), vit)
    if family != "m":
        plan = random_vits.middle_plan(model, torch.from_numpy(pixels), family, case.seed)
    return bare(model, vit, plan), some(pixels)


def some(pixels: NDArray[np.float32]) -> Images:
    return Images(pixels, None, tuple(f"noise {i}" for i in range(len(pixels))), "noise")


def truly(model: onnx.ModelProto, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits [n, classes], as the file's types have it."""
    with np.errstate(all="ignore"):
        outputs: list[Any] = list(ReferenceEvaluator(model).run(None, {"images": pixels}))
    found: NDArray[np.float32] = outputs[0]
    return found


@pytest.mark.parametrize("name", FAULTS)
def test_only_what_overflows_is_kept(name: str) -> None:
    """And the file is then finite where float16 is float16, and near the float32 model."""
    checkpoint, images = faulty(name)
    model, precision = halves.fitted(checkpoint, [images], HALF, opset=17)
    assert set(precision.kept) == FAULTS[name][2]
    assert all(value > 65504 / 2 for value in precision.kept.values())
    wanted, found = reference_logits(checkpoint, images.pixels), truly(model, images.pixels)
    assert np.isfinite(found).all()
    errors = np.abs(found - wanted).max(1) / np.abs(wanted).max()
    assert np.median(errors) < 0.01  # some image may decide otherwise
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in ("qk", "x³", "1.702 x")])
def test_all_in_float16_fails_its_check(name: str) -> None:
    checkpoint, images = faulty(name)
    model = to_onnx(checkpoint, opset=17, precision=HALF)
    report = compare.compare(model, checkpoint, images, precision=HALF)
    assert report.verdict == "fail"
    place = next(iter(sorted(FAULTS[name][2])))
    block = f"block {place.split('.')[1]}: " if place.startswith("blocks") else ""
    assert report.reason.startswith(block)
    assert "export it again with --calibration-images like these" in report.reason
    with pytest.raises(CheckFailedError):
        report.require()


@pytest.mark.parametrize("name", ["fc2", "fc1", "qk480"])
def test_such_a_file_is_not_finite(name: str) -> None:
    """These cases are what they are made for; onnxruntime's CPU hides it."""
    checkpoint, images = faulty(name)
    model = to_onnx(checkpoint, opset=17, precision=HALF)
    assert np.isfinite(session.Session(model).run(images.pixels)[0]).all()
    assert not np.isfinite(truly(model, images.pixels)).all()


def test_what_the_check_says() -> None:
    checkpoint, images = faulty("fc2")
    model = to_onnx(checkpoint, opset=17, precision=HALF)
    reason = halves.overflow(model, images)
    value = halves.reaches(model, images)["block_02/mlp/Gemm_2"]
    assert reason == (
        "block 2: the float16 tensor block_02/mlp/Gemm_2 (blocks.2.mlp.fc2) reaches "
        f"{value.value:.1e} on {value.image}, and float16 ends at 65504: a processor that computes "
        "in float16 gives infinities or NaN; export it again with --calibration-images like these, "
        "and what float16 has no room for stays float32"
    )


@pytest.mark.parametrize("name", ["fc1", "v"])
@pytest.mark.parametrize(
    ("family", "opset", "keep"),
    [("ltmp", 16, None), ("ltpm", 20, None), ("ltmp", 17, (8, 6, 4))],
    ids=["ltmp", "ltpm", "budget"],
)
def test_other_graphs(name: str, family: str, opset: int, keep: tuple[int, ...] | None) -> None:
    checkpoint, images = faulty(name, family)
    if keep is not None:
        checkpoint = replace(checkpoint, plan=checkpoint.plan.within(keep))
    batch_size = 1 if name == "v" else None
    _, precision = halves.fitted(checkpoint, [images], HALF, opset=opset, batch_size=batch_size)
    assert set(precision.kept) == FAULTS[name][2]


@pytest.mark.parametrize(("opset", "kept"), [(19, {ACT}), (20, set())])
def test_activation_written_out(opset: int, kept: set[str]) -> None:
    """Before opset 20, GELU's tanh form has x³ as a tensor: beyond the range from 40 on."""
    checkpoint, images = faulty("x³")
    _, precision = halves.fitted(checkpoint, [images], HALF, opset=opset)
    assert set(precision.kept) == kept


class TestOrdinary:
    @pytest.mark.parametrize("case", random_vits.OPTIONS, ids=str)
    def test_nothing_is_kept(self, case: Case) -> None:
        """The graph is the one that is written without measuring."""
        model, vit = random_vits.build(case)
        pixels = random_vits.images(vit, case.seed, 2)
        checkpoint = bare(model, vit, random_vits.middle_plan(model, pixels, "ltmp", case.seed))
        opset = OPSETS[case.seed % len(OPSETS)]
        images = some(pixels.numpy())
        found, precision = halves.fitted(checkpoint, [images], HALF, opset=opset)
        assert precision == replace(HALF, calibration="noise, 2 images")
        plain = to_onnx(checkpoint, opset=opset, precision=HALF)
        assert found.graph == plain.graph
        assert not halves.overflow(found, images)

    @pytest.mark.parametrize("case", random_vits.OPTIONS, ids=str)
    def test_every_float16_tensor_has_a_place(self, case: Case) -> None:
        """With all places kept, no tensor and no weight is float16."""
        model, vit = random_vits.build(case)
        images = random_vits.images(vit, case.seed, 2)
        plan = rates.plan(families.load("m"), rates.parse("2", vit.depth), vit)
        if case.seed % 3:
            plan = random_vits.middle_plan(model, images, "ltmp", case.seed)
        opset, protected = OPSETS[case.seed % len(OPSETS)], bool(case.seed % 2)
        checkpoint, precision = bare(model, vit, plan), replace(HALF, protected=protected)
        file = to_onnx(checkpoint, opset=opset, precision=precision)
        places = half_places(
            checkpoint, opset=opset, batch_size=None, outputs=(LOGITS,), precision=precision
        )
        tensors = halves.float16_tensors(file)
        assert len(tensors) > 20 * vit.depth
        assert set(tensors) <= set(places)
        every = replace(precision, kept=dict.fromkeys(places.values(), 1.0))
        whole = to_onnx(checkpoint, opset=opset, precision=every)
        assert not halves.float16_tensors(whole)
        assert onnx.TensorProto.FLOAT16 not in {t.data_type for t in whole.graph.initializer}

    def test_reaches_are_those_of_timm(self) -> None:
        """What each linear layer gives, by a hook in PyTorch."""
        checkpoint, images = faulty("a weight", "ltmp")
        seen: dict[str, float] = {}

        def watch(path: str) -> Callable[..., None]:
            def hook(_: nn.Module, __: Any, output: torch.Tensor) -> None:
                seen[path] = max(seen.get(path, 0.0), float(output.abs().max()))

            return hook

        handles = [
            module.register_forward_hook(watch(path))
            for path, module in checkpoint.model.named_modules()
            if isinstance(module, (nn.Linear, nn.Conv2d))
        ]
        reference = Reference(checkpoint.model, checkpoint.plan)
        for pixels in torch.from_numpy(images.pixels):
            reference.run(pixels)
        for handle in handles:
            handle.remove()
        file = to_onnx(checkpoint, opset=17, precision=replace(HALF, kept={FC1: 1e5}))
        found = halves.reaches(file, images)
        stored = {f"{path}.weight": path for path in seen}
        layers = {
            stored[given]: node.output[0]
            for node in file.graph.node
            for given in node.input
            if given in stored
        }
        assert len(layers) == 4 * 3 + 2
        for path, tensor in layers.items():
            if path != FC1:
                assert found[tensor].value == pytest.approx(seen[path], rel=0.02), path

    def test_float32_files_are_not_run(self) -> None:
        checkpoint, images = faulty("fc1")
        assert not halves.reaches(to_onnx(checkpoint, opset=17), images)


class TestInputsAndOutputs:
    IO = Precision(FP16, io=FP16)

    def test_images(self) -> None:
        checkpoint, images = faulty("a weight")
        bright = some(images.pixels * np.float32(1e5))
        with pytest.raises(
            InputError, match=r"--io fp16: the images reach .*e\+05 \(noise 4\), and"
        ):
            halves.fitted(checkpoint, [images, bright], self.IO, opset=17)

    def test_logits(self) -> None:
        checkpoint, images = faulty("head")
        with pytest.raises(InputError, match=r"the logits reach .* export with --io fp32"):
            halves.fitted(checkpoint, [images], self.IO, opset=17)
        file = to_onnx(checkpoint, opset=17, precision=self.IO)
        assert "(head) reaches" in halves.overflow(file, images)

    def test_kept_beside_them(self) -> None:
        checkpoint, images = faulty("patches")
        model, precision = halves.fitted(checkpoint, [images], self.IO, opset=17)
        assert set(precision.kept) == {"patch_embed.proj"}
        assert np.isfinite(truly(model, images.pixels.astype(np.float16))).all()

    def test_float32_overflows(self) -> None:
        checkpoint, images = faulty("fc2")
        with np.errstate(over="ignore"):
            huge = some(images.pixels * np.float32(1e38))
        with pytest.raises(InputError, match="leads to infinite numbers in float32"):
            halves.fitted(checkpoint, [huge], HALF, opset=17)


def test_a_tensor_that_belongs_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, images = faulty("fc1")
    monkeypatch.setattr(halves, "half_places", lambda *_, **__: {})
    with pytest.raises(ExportError, match=r"the tensor block_01/mlp/Gemm reaches .*e\+05 and"):
        halves.fitted(checkpoint, [images], HALF, opset=17)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A bare checkpoint whose hidden layer overflows on images of high contrast only."""
    model, _ = random_vits.build(Case("bright", 1, {"img_size": (16, 16)}))
    with torch.no_grad():
        model.patch_embed.proj.weight.mul_(300)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    return tmp_path / "model.pth"


def test_command(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images to calibrate on decide what is kept; without them `check` finds what they would."""
    monkeypatch.chdir(tmp_path)
    pixels = 200 * np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    np.savez("bright.npz", images=pixels)

    def said(code: int, *arguments: str) -> tuple[str, str]:
        result = CliRunner(env={"COLUMNS": "400"}).invoke(app, arguments)
        assert result.exit_code == code, result.output
        return result.stdout, result.stderr

    half = ("--num-heads", "2", "--family", "m", "--r", "2", "--precision", "fp16", "-o")
    calibrated = ("--calibration-images", "bright.npz")
    plain = said(0, "export", str(file), *half, "plain.onnx")
    bright = said(0, "export", str(file), *half, "bright.onnx", *calibrated)
    line = "precision: fp16, images and outputs fp32, decisions protected"
    assert f"{line}\n" in plain[0]
    assert "float16 ranges are measured on 7 synthetic pictures" in plain[1]
    assert f"{line}; kept in float32: patch_embed.proj (" in bright[0]
    assert "float16 ranges" not in bright[1]
    shown = ("--images", "bright.npz", "--batch-size", "1")
    assert "patch_embed.proj) reaches" in said(1, "check", "plain.onnx", str(file), *shown)[0]
    assert "bounded" in said(0, "check", "bright.onnx", str(file), *shown)[0]
    assert "kept in float32: patch_embed.proj (" in said(0, "inspect", "bright.onnx")[0]


def test_api(file: Path, tmp_path: Path) -> None:
    choices = Choices(num_heads=2, family="m", rate="2")
    output = tmp_path / "model.onnx"
    report = export.export(file, output, precision=HALF, choices=choices)
    assert report.precision.calibration == "7 synthetic pictures, seed 0, 7 images"
    assert report.to_json()["precision"]["kept_in_float32"] == {}
    assert check.check(output, file).verdict == "bounded"
    with pytest.raises(InputError, match="about --precision int8 and fp16"):
        export.export(file, output, choices=choices, calibration_samples=3)
