"""What the `config.json` of Hugging Face's transformers says, in timm's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ltmp_export.backbones.vit.libraries.parts import Part
from ltmp_export.backbones.vit.libraries.stated_sizes import Configuration, Keys, require_same
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


_KEYS = Keys(
    "hidden_size", "num_hidden_layers", mlp="intermediate_size", channels="num_channels"
)  # fmt: skip


@dataclass(frozen=True)
class Defaults:
    """What a configuration means that does not say it, by the code of transformers 5.24.0.

    Attributes:
        name: The model's, as a person says it.
        act: `hidden_act`.
        norm_eps: `layer_norm_eps`.
        certain: Which of the two hold also where there is no configuration at all.
        patch_size: `patch_size`.
        mlp: The key of the width of an MLP; empty where there is none.
    """

    name: str
    act: str
    norm_eps: float
    certain: Sequence[str] = ("act", "norm_eps")
    patch_size: int = 16
    mlp: str = _KEYS.mlp

    def by_key(self) -> dict[str, Any]:
        """All of it, by the keys of a configuration."""
        sizes = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
        images = {"patch_size": self.patch_size, "num_channels": 3, "image_size": 224}
        more = {"hidden_act": self.act, "layer_norm_eps": self.norm_eps, "num_attention_heads": 12}
        return sizes | images | more


def words(
    config: Mapping[str, Any], defaults: Defaults, parts: Mapping[str, Part], source: str
) -> dict[str, Said]:
    """Heads, activation, epsilon, pooling by the class token, image size and classes.

    Args:
        config: Of such a model; empty where there is none.
        defaults: What it means where it does not say it.
        parts: timm's tensors, positions with those of the tokens before the patches.
        source: Where the weights come from, for messages.

    Raises:
        InputError: It says what is no number, or is of a model of another size.
    """
    code = f"the code of Hugging Face's {defaults.name}"
    pool = {"gp": Said("token", code)}
    if not config:
        told = {"act": defaults.act, "norm_eps": defaults.norm_eps}
        return pool | {key: Said(told[key], code) for key in defaults.certain}
    vision, place = config, CONFIG
    if isinstance(config.get(_VISION), Mapping):
        vision, place = config[_VISION], f"{CONFIG}: {_VISION}"
    of_images = Configuration(vision, place, source, defaults.by_key())
    require_same(of_images, replace(_KEYS, mlp=defaults.mlp), parts)
    act = of_images.text("hidden_act")
    found = {
        "num_heads": (of_images.whole("num_attention_heads"), "num_attention_heads"),
        "act": (_ACTIVATIONS.get(act, act), "hidden_act"),
        "norm_eps": (of_images.epsilon("layer_norm_eps"), "layer_norm_eps"),
        "img_size": (of_images.sides("image_size"), "image_size"),
    }
    said = {key: Said(value, of_images.place(name)) for key, (value, name) in found.items()}
    return pool | said | _classes(config)


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
