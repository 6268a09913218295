"""What the `config.json` of Hugging Face's transformers says, in timm's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ltmp_export.backbones.vit.libraries.parts import Part
from ltmp_export.errors import InputError
from ltmp_export.statements.gather import CONFIG, Said

_VISION = "vision_config"  # in a model of images and texts
_ACTIVATIONS = {
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "swish": "silu",
}
_OF_CLASSIFIERS = "ForImageClassification"


@dataclass(frozen=True)
class Defaults:
    """What a configuration means that does not say it, by the code of transformers 5.24.0.

    Attributes:
        name: The model's, as a person says it.
        act: `hidden_act`.
        norm_eps: `layer_norm_eps`.
        certain: Which of the two hold also where there is no configuration at all.
    """

    name: str
    act: str
    norm_eps: float
    certain: Sequence[str] = ("act", "norm_eps")
    heads: int = 12
    image_size: int = 224


def words(
    config: Mapping[str, Any], defaults: Defaults, parts: Mapping[str, Part], source: str
) -> dict[str, Said]:
    """Heads, activation, epsilon, pooling by the class token, image size and classes.

    Args:
        config: Of such a model; empty where there is none.
        defaults: What it means where it does not say it.
        parts: timm's tensors.
        source: Where the weights come from, for messages.

    Raises:
        InputError: The configuration is of a model of another size.
    """
    code = f"the code of Hugging Face's {defaults.name}"
    pool = {"gp": Said("token", code)}
    if not config:
        told = {"act": defaults.act, "norm_eps": defaults.norm_eps}
        return pool | {key: Said(told[key], code) for key in defaults.certain}
    vision, place = config, CONFIG
    if isinstance(config.get(_VISION), Mapping):
        vision, place = config[_VISION], f"{CONFIG}: {_VISION}"

    def said(key: str, default: Any) -> Said:
        known = vision.get(key) is not None
        return Said(
            vision[key] if known else default, f"{place}: {key}{'' if known else ', default'}"
        )

    _require_same_size(vision, parts, source)
    act = said("hidden_act", defaults.act)
    found = {
        "num_heads": said("num_attention_heads", defaults.heads),
        "act": act._replace(value=_ACTIVATIONS.get(str(act.value), act.value)),
        "norm_eps": said("layer_norm_eps", defaults.norm_eps),
        "img_size": said("image_size", defaults.image_size),
    }
    return pool | found | _classes(config)


def _require_same_size(vision: Mapping[str, Any], parts: Mapping[str, Part], source: str) -> None:
    depth = len({name.split(".")[1] for name in parts if name.startswith("blocks.")})
    norm = parts["norm.weight"].shape if "norm.weight" in parts else ()
    width = norm[0] if norm else None
    for key, own in (("hidden_size", width), ("num_hidden_layers", depth)):
        if own is not None and vision.get(key, own) != own:
            raise InputError(
                f"{source}: {CONFIG} beside it says {key} {vision[key]!s:.20}, its weights have "
                f"{own}; put the configuration of this model there, or give the file its own folder"
            )


def _classes(config: Mapping[str, Any]) -> dict[str, Said]:
    """Names of classes, where they are some."""
    listed, classes = config.get("id2label"), config.get("architectures")
    named = classes if isinstance(classes, list) else ()
    classifies = any(_OF_CLASSIFIERS in str(name) for name in named)
    if not isinstance(listed, Mapping) or not classifies:
        return {}
    names = [listed.get(str(index)) for index in range(len(listed))]
    own = any(name != f"LABEL_{index}" for index, name in enumerate(names))
    if not own or not all(isinstance(name, str) for name in names):
        return {}
    return {"label_names": Said(names, f"{CONFIG}: id2label")}
