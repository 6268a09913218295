"""timm's modules of convolutions read back as plain numbers; what is not covered is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ltmp_export.backbones.hybrid.convolutions import HARDSWISH, Conv
from ltmp_export.backbones.vit.describe import activation
from ltmp_export.errors import InputError
from ltmp_export.plan.geometry import Size


def conv(path: str, module: nn.Module, norm: str = "", act: str = "") -> Conv:
    """A convolution of timm's.

    Args:
        path: Of its weights.
        module: It.
        norm: Path of the BatchNorm behind it, or "".
        act: The activation behind that, or "".

    Raises:
        InputError: It is of another kind than `Conv`.
    """
    if type(module) is not nn.Conv2d:
        raise InputError(f"{type(module).__name__} ({path}) is not supported; only Conv2d")
    (side, other), (stride, across) = module.kernel_size, module.stride
    plain = side == other and stride == across and side % 2 == 1
    plain = plain and module.padding == (side // 2, side // 2) and module.dilation == (1, 1)
    if not plain or module.padding_mode != "zeros":
        raise InputError(
            f"a convolution of kernel {module.kernel_size}, stride {module.stride}, padding "
            f"{module.padding}, dilation {module.dilation} ({path}) is not supported"
        )
    ins, outs = module.in_channels, module.out_channels
    return Conv(path, ins, outs, side, stride, module.groups, norm, act)


def normed(path: str, module: Any, norm: str) -> Conv:
    """A convolution with what timm has behind it in one module.

    Args:
        path: Of the module.
        module: It; its convolution is `conv`, its activation `act`, where `norm` has none.
        norm: What it calls its BatchNorm.
    """
    behind = getattr(module, norm)
    act = getattr(behind, "act", None) if norm == "bn" else module.act
    own = "" if type(behind) is nn.Identity else f"{path}.{norm}"
    if own and not isinstance(behind, nn.BatchNorm2d):
        raise InputError(f"{type(behind).__name__} ({own}) is not supported; only BatchNorm2d")
    for word in ("drop", "aa"):
        found = getattr(module if norm != "bn" or word == "aa" else behind, word, None)
        if found is not None and type(found) is not nn.Identity:
            raise InputError(f"{type(found).__name__} ({path}) is not supported")
    return conv(f"{path}.conv", module.conv, own, act_of(act))


def act_of(module: nn.Module | None) -> str:
    """An activation by its name, "" where there is none.

    Raises:
        InputError: It is none of those known.
    """
    if module is None or type(module) is nn.Identity:
        return ""
    return HARDSWISH if type(module) is nn.Hardswish else activation(module)


def the_epsilon(model: nn.Module, *kinds: type[nn.Module]) -> float:
    """The one epsilon of all norms of some kinds.

    Raises:
        InputError: They have different ones.
    """
    found = {float(getattr(m, "eps", 0)) for m in model.modules() if isinstance(m, kinds)}
    if len(found) != 1:
        names = " and ".join(kind.__name__ for kind in kinds)
        raise InputError(f"{names} with epsilons {sorted(found)} are not supported; expected one")
    return found.pop()


def require_means(pool: Any) -> None:
    """Check that a map is averaged.

    Raises:
        InputError: It is pooled otherwise.
    """
    if getattr(pool, "pool_type", None) != "avg":
        raise InputError(
            f"not supported in the exported form: global_pool={getattr(pool, 'pool_type', None)!r}"
        )


def usual_size(model: nn.Module, name: str) -> Size:
    """Height and width of the images that timm knows for a model.

    Raises:
        InputError: It knows none.
    """
    config = getattr(model, "pretrained_cfg", None) or {}
    found = config.get("input_size")
    if found is None:
        raise InputError(f"timm knows no image size for {name}")
    return int(found[1]), int(found[2])


def refuse(features: Mapping[str, bool]) -> None:
    """Refuse by name what is there and not covered.

    Args:
        features: Whether each is there.

    Raises:
        InputError: One is.
    """
    found = [feature for feature, present in features.items() if present]
    if found:
        raise InputError(f"not supported in the exported form: {', '.join(found)}")
