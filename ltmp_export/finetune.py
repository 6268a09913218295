"""`python -m ltmp_export.finetune`: the command `ltmp finetune` as torchrun starts it.

    torchrun --nproc-per-node 8 -m ltmp_export.finetune timm:deit_small_patch16_224 --data …

Imported, it holds the function of the command and what it takes.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from ltmp_cli.__main__ import main

    main(["finetune", *sys.argv[1:]])
else:
    from ltmp_export.commands.finetune import FinetuneReport, finetune
    from ltmp_export.training.settings import Settings, StaticSettings

    __all__ = ["FinetuneReport", "Settings", "StaticSettings", "finetune"]
