#!/usr/bin/env bash
# torchvision 0.29.1: importing it imports PyTorch's compiler front end, which `import torch` does not.
#
# After `import torch` (2.14.1) neither torch._dynamo nor sympy is loaded. After `import torchvision`
# both are: torchvision.ops.roi_align imports torch._dynamo.utils at its top, and torchvision's own
# __init__ leads there through its models. What imports torchvision for anything, timm among others,
# pays for it: a thousand modules more, and most of the time that `import torch` takes once again.
#
# Exits with 1 if any of this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1
"$work/venv/bin/python" - <<'PY'
import sys
import time


def loaded(name):
    started = time.perf_counter()
    __import__(name)
    names = ("torch._dynamo", "torch._dynamo.symbolic_convert", "sympy")
    found = {name: name in sys.modules for name in names}
    print(f"import {name}: {time.perf_counter() - started:.1f} s, {len(sys.modules)} modules, {found}")
    return found


before, after = loaded("torch"), loaded("torchvision")
importer = "torchvision.ops.roi_align" in sys.modules
raise SystemExit(0 if importer and not any(before.values()) and all(after.values()) else 1)
PY
