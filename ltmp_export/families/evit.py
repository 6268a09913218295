"""Keep the tokens that the class token attends to, fuse the rest, at a few blocks (EViT).

Liang et al., "Not All Patches are What You Need: Expediting Vision Transformers via Token
Reorganizations", ICLR 2022, arXiv 2202.07800; METHOD §1. As the official training script states it
in the arguments that it saves.
"""

from ltmp_export.plan.step import Step
from ltmp_export.steps.fuse.step import Fuse

CLASS_TOKEN = True
ARGS = ("base_keep_rate", "drop_loc", "fuse_token")


def from_args(
    base_keep_rate: float, drop_loc: object, fuse_token: bool
) -> dict[int, tuple[Step, ...]]:
    """The steps of the blocks that take one: the same share everywhere.

    Raises:
        ValueError: The arguments are not what the script takes.
    """
    if type(base_keep_rate) not in (int, float) or not 0.0 < base_keep_rate <= 1.0:
        raise ValueError(f"base_keep_rate {base_keep_rate!r}; expected a share")
    if type(fuse_token) is not bool:
        raise ValueError(f"fuse_token {fuse_token!r}; expected True or False")
    if not isinstance(drop_loc, (tuple, list)) or not all(type(at) is int for at in drop_loc):
        raise ValueError(f"drop_loc {drop_loc!r}; expected blocks, like (3, 6, 9)")
    return {at: (Fuse(float(base_keep_rate), fuse_token),) for at in drop_loc}
