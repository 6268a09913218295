#!/usr/bin/env bash
# timm 1.0.31: two of its 209 deprecated model names cannot be built, not even without weights.
#
# `vit_base_patch16_224_sam` and `vit_base_patch32_224_sam` are still mapped to the pretrained tag
# "sam" of the model's present name, which has no such tag any more. `create_model` warns that it maps
# the name, and then raises RuntimeError: "Invalid pretrained tag (sam) for vit_base_patch16_224.",
# although no pretrained weights are asked for. `is_model` says True of both. All other deprecated
# names lead to a tag that exists. Checkpoints saved under these names need the present name without
# the tag.
#
# Exits with 1 if any of this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q timm==1.0.31 torch==2.14.1 torchvision==0.29.1
"$work/venv/bin/python" - <<'PY'
import warnings

import timm
from timm.models import _registry

print("timm", timm.__version__)
mapped = {old: new for old, new in _registry._deprecated_models.items() if new}
broken = {}
for old, new in mapped.items():
    try:
        timm.models.get_pretrained_cfg(new)
    except RuntimeError as err:
        broken[old] = str(err)
print(len(mapped), "deprecated names;", broken)
for old in broken:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            timm.create_model(old, pretrained=False)
        except RuntimeError as err:
            print(f"create_model({old!r}): RuntimeError: {err}; is_model: {timm.is_model(old)}")
            continue
    raise SystemExit(f"{old} can be built")
expected = {"vit_base_patch16_224_sam", "vit_base_patch32_224_sam"}
raise SystemExit(0 if len(mapped) == 209 and set(broken) == expected else 1)
PY
