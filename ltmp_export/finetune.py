"""`python -m ltmp_export.finetune`: the command `ltmp finetune` as torchrun starts it.

torchrun --nproc-per-node 8 -m ltmp_export.finetune timm:deit_small_patch16_224 --data …
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from ltmp_cli.__main__ import main

    main(["finetune", *sys.argv[1:]])
