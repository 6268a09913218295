"""MobileViT and EfficientViT from weights and timm's name; what is not covered is refused."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from ltmp_export.backbones.efficientvit import build as efficientvit
from ltmp_export.backbones.efficientvit import describe as efficientvits
from ltmp_export.backbones.mobilevit import build as mobilevit
from ltmp_export.backbones.mobilevit import describe as mobilevits
from ltmp_export.errors import InputError
from ltmp_export.plan.plan import dense_plan
from ltmp_export.statements import timm_names
from ltmp_export.statements.gather import Said, Statements
from ltmp_export.steps.merge_mask import stages
from tests.makers import hybrids

NETWORKS = {"mobilevit_xxs": mobilevit, "efficientvit_b0": efficientvit}
LAST = {"mobilevit_xxs": "head.fc", "efficientvit_b0": "head.classifier.4"}
FIRST = {"mobilevit_xxs": "stem.conv.weight", "efficientvit_b0": "stem.in_conv.conv.weight"}
NAMES = sorted(NETWORKS)


@functools.cache
def weights(name: str, **kwargs: Any) -> dict[str, Tensor]:
    """Random ones of a model of timm's."""
    model = timm.create_model(name, num_classes=3, **kwargs)
    return dict(model.state_dict())


def built(name: str, state: dict[str, Tensor], says: Statements | None = None) -> Any:
    module: ModuleType = NETWORKS[name]
    return module.build(state, None, says, timm_name=timm_names.require(name))


@pytest.mark.parametrize("name", NAMES)
def test_weights_and_a_name_make_the_model(name: str) -> None:
    found = built(name, weights(name, in_chans=1))
    geometry = found.geometry
    assert (geometry.classes, geometry.in_chans, geometry.name) == (3, 1, name)
    assert geometry.image_size == timm_names.require(name).image_size
    assert found.answers["img_size"].where.startswith("its name")
    images = torch.zeros(1, *geometry.input_size)
    assert found.model(images).shape == (1, 3)


@pytest.mark.parametrize("name", NAMES)
def test_training_counters_may_be_missing(name: str) -> None:
    kept = {k: v for k, v in weights(name).items() if not k.endswith("num_batches_tracked")}
    assert built(name, kept).geometry == built(name, weights(name)).geometry


@pytest.mark.parametrize("name", NAMES)
def test_a_stated_size(name: str) -> None:
    found = built(name, weights(name), Statements(stored_size=(128, 192)))
    assert found.geometry.image_size == (128, 192)
    assert found.answers["img_size"].where == "the file"


def test_without_a_name() -> None:
    for module in NETWORKS.values():
        with pytest.raises(InputError, match="state its name of timm's, like --model"):
            module.build({}, None)


@pytest.mark.parametrize("name", NAMES)
def test_other_weights(name: str) -> None:
    state = weights(name)
    last = f"{LAST[name]}.bias"
    missing = {k: v for k, v in state.items() if k != last}
    with pytest.raises(InputError, match=rf"1 missing \({last}\)"):
        built(name, missing)
    with pytest.raises(InputError, match=r"1 unexpected \(more\)"):
        built(name, {**state, "more": torch.zeros(1)})
    with pytest.raises(InputError, match=rf"1 misshapen \({last} \(4,\), expected \(3,\)\)"):
        built(name, {**state, last: torch.zeros(4)})
    with pytest.raises(InputError, match=f"{FIRST[name]} is missing"):
        built(name, {k: v for k, v in state.items() if k != FIRST[name]})


def test_the_name_of_another_network() -> None:
    state = weights("mobilevit_xxs")
    with pytest.raises(
        InputError, match=r"is a MobileViT, but efficientvit_b0 \(its name\) is a EfficientVit"
    ):
        mobilevit.build(state, None, timm_name=timm_names.require("efficientvit_b0"))


def test_what_timms_name_tells_cannot_be_stated() -> None:
    says = Statements(heads=Said(4, "--num-heads"))
    with pytest.raises(InputError, match="--num-heads is not for a MobileViT, whose name tells"):
        built("mobilevit_xxs", weights("mobilevit_xxs"), says)


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("mobilevitv2_050", mobilevits, "MobileVitV2Block .* is not supported"),
        ("efficientvit_l1", efficientvits, "EfficientVitLarge is not supported"),
        ("efficientvit_m0", efficientvits, "EfficientVitMsra is not supported"),
        ("gernet_s", mobilevits, "BasicBlock .* is not supported in a MobileViT"),
    ],
)
def test_other_networks_of_timms(name: str, module: ModuleType, message: str) -> None:
    with pytest.raises(InputError, match=message):
        module.describe(timm_names.create(name), name)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"attn_layer": "se"}, "not supported in the exported form: SEModule in stages.0.0"),
        ({"act_layer": "elu"}, "activation ELU is not supported"),
        ({"global_pool": "max"}, "global_pool='max'"),
        ({"num_classes": 0}, "Identity as classifier is not supported"),
    ],
    ids=str,
)
def test_features_of_a_mobilevit(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mobilevits.describe(hybrids.mobilevit(**kwargs), "small", hybrids.TALL)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"act_layer": nn.ELU}, "activation ELU is not supported"),
        ({"global_pool": "max"}, "global_pool='max'"),
        ({"num_classes": 0}, "the classifier Sequential.* is not supported"),
    ],
    ids=str,
)
def test_features_of_an_efficientvit(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        efficientvits.describe(hybrids.efficientvit(**kwargs), "small", (128, 96))


def test_maps_that_timm_interpolates() -> None:
    with pytest.raises(
        InputError, match=r"images of 72 × 48 pixels: stages.2.1 is given a map of 9 × 6"
    ):
        mobilevits.describe(hybrids.mobilevit(), "small", (72, 48))


def test_maps_that_a_ratio_makes_not_fit() -> None:
    geometry = hybrids.net(hybrids.MOBILEVIT).geometry
    message = (
        r"--compression-ratio 0.6 of small: stages.2.1 is given a map of 6 × 5 cells, no whole "
        r"number of 2 × 2 patches: timm interpolates it, which is not supported; near it 0.\d\d, "
    )
    with pytest.raises(InputError, match=message):
        stages.of_ratio(geometry, 0.6, hard=False)


def test_nothing_left() -> None:
    with pytest.raises(InputError, match="nothing is left of 8 × 6 tokens of stages"):
        stages.of_ratio(hybrids.net(hybrids.EFFICIENTVIT).geometry, 1e-3, hard=False)


def test_a_plan_of_another_network() -> None:
    geometry = hybrids.net(hybrids.MOBILEVIT).geometry
    other = hybrids.planned(hybrids.net(hybrids.EFFICIENTVIT).geometry, hybrids.RATIO)
    with pytest.raises(ValueError, match="block 0 cannot take MergeMask"):
        geometry.require_possible(other)
    with pytest.raises(ValueError, match="a plan of 2 blocks"):
        geometry.require_possible(dense_plan(2))


def stated(**own: Any) -> dict[str, Any]:
    """What a user may state of masks."""
    none = ("compression_ratio", "merge_at", "hard", "restore", "reduction_target")
    return dict.fromkeys(none) | own


@pytest.mark.parametrize("made", hybrids.ALL, ids=str)
def test_masks_that_nobody_trained(made: hybrids.Made) -> None:
    geometry = hybrids.net(made).geometry
    placed = stages.from_stated("file", geometry, **stated(compression_ratio=hybrids.RATIO))
    assert sorted(placed.blocks) == [0, 2]
    assert placed.assumed == {"masks": "soft"}
    assert "24 of 48, 2 of 6 tokens" in placed.found[0]
    assert "as training starts" in placed.warnings[0]


def test_a_target_of_the_work() -> None:
    geometry = hybrids.net(hybrids.EFFICIENTVIT).geometry
    placed = stages.from_stated("file", geometry, **stated(reduction_target=0.9))
    blocks: Any = placed.blocks
    plan = stages.plan_of(geometry, blocks)
    assert geometry.macs(plan) <= 0.9 * geometry.macs(dense_plan(geometry.depth))
    with pytest.raises(InputError, match="cannot leave so little"):
        stages.from_stated("file", geometry, **stated(reduction_target=0.01))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"restore": True}, "--restore: small keeps the smaller map"),
        ({"merge_at": (1,)}, "--merge-at: of small the first block of each stage merges"),
    ],
    ids=str,
)
def test_what_leaves_no_choice(own: dict[str, Any], message: str) -> None:
    geometry = hybrids.net(hybrids.MOBILEVIT).geometry
    with pytest.raises(InputError, match=message):
        stages.from_stated("file", geometry, **stated(**own))


def test_masks_that_do_not_fit() -> None:
    geometry = hybrids.net(hybrids.MOBILEVIT).geometry
    _, start = stages.of_ratio(geometry, hybrids.RATIO, hard=False)
    shapes: dict[str, Any] = {k: tuple(torch.tensor(value).shape) for k, value in start.items()}
    own: dict[str, Any] = dict.fromkeys(("compression_ratio", "merge_at", "restore"))
    own["hard"] = True
    placed = stages.from_weights("file", geometry, shapes, **own)
    steps: Any = placed.blocks
    assert all(step.hard for (step,) in steps.values())
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        (
            {"stages.1.ltm.mask0": (48, 23)},
            "its masks do not fit small: .* no share leaves so many",
        ),
        ({"stages.1.ltm.mask0": (47, 24)}, "its masks do not fit small: block 0 cannot take"),
        ({"stages.2.ltm.center": (7,)}, r"stages.2.ltm.center is \[7\]; expected \[24\]"),
        ({"stages.0.ltm.mask0": (4, 2)}, r"stages.0.ltm.mask0 is \[4, 2\]; expected no such"),
        (
            {"stages.2.ltm.mask0": ()},
            r"stages.2.ltm.mask0 is missing; expected \[tokens, targets\]",
        ),
    )
    for change, message in changes:
        with pytest.raises(InputError, match=message):
            stages.from_weights("file", geometry, shapes | change, **own)
    with pytest.raises(InputError, match="leaves 48 of 48, 12 of 12 tokens; the masks of file"):
        stages.from_weights("file", geometry, shapes, **own | {"compression_ratio": 1.0})
