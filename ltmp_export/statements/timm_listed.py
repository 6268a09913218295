"""Names of timm's models, as its source lists them: read in milliseconds, where timm takes seconds.

What stands nowhere in that source is no name of a model, not even of one that timm has given up.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

from ltmp_export.errors import InputError
from ltmp_export.files.near_misses import did_you_mean

HUB = ("hf-hub:", "hf_hub:")
LIKE = ("vit*", "deit*", "swin_*", "mobilevit_*", "efficientvit_b*")  # what somebody may mean
_REGISTERED = re.compile(r"^@register_model\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)

# Names that training scripts have for timm's architectures: MAE's main_finetune.py (models_vit.py)
# and DeiT's main.py (models_v2.py).
SCRIPTS = {
    "vit_base_patch16": "vit_base_patch16_224.mae",
    "vit_large_patch16": "vit_large_patch16_224.mae",
    "vit_huge_patch14": "vit_huge_patch14_224.mae",
    "deit_small_patch16_LS": "deit3_small_patch16_224",
    "deit_medium_patch16_LS": "deit3_medium_patch16_224",
    "deit_base_patch16_LS": "deit3_base_patch16_224",
    "deit_large_patch16_LS": "deit3_large_patch16_224",
    "deit_huge_patch14_LS": "deit3_huge_patch14_224",
}


def require_listed(written: str) -> None:
    """Refuse what cannot be a name of timm's, unless timm is there to be asked.

    Raises:
        InputError: No model is called so.
    """
    if "timm" in sys.modules or written.startswith(HUB) or written in SCRIPTS:
        return
    arch, source = written.partition(".")[0], _source()
    known = set(_REGISTERED.findall(source))
    if not known or arch in known or re.search(rf"(?<!\w){re.escape(arch)}(?!\w)", source):
        return
    meant = sorted(name for name in known if any(fnmatch(name, pattern) for pattern in LIKE))
    raise InputError(f"timm has no model {written!r}{did_you_mean(written, meant, cutoff=0.4)}")


@functools.cache
def _source() -> str:
    """All modules of `timm.models`; nothing where they are no files."""
    spec = importlib.util.find_spec("timm")
    places = [] if spec is None else spec.submodule_search_locations or []
    files = [file for place in places for file in sorted((Path(place) / "models").glob("*.py"))]
    return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
