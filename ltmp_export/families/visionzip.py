"""Keep the patches that the class token attends to, merge the others into a few (VisionZip).

Yang et al., "VisionZip: Longer is Better but Not Necessary in Vision Language Models", CVPR 2025,
arXiv 2412.04467, as dvlab-research/VisionZip at 3151f6d has it; METHOD §1.
"""

from __future__ import annotations

from ltmp_export.errors import InputError
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.contextual.step import Contextual

BACKBONES = (Vit.kind,)
CLASS_TOKEN = True
CUT = True
STATED = ("dominant", "contextual")


def from_stated(source: str, vit: Vit, *, dominant: int | None, contextual: int | None) -> Placed:
    """The step behind the last block that is used, the last but one of the file.

    Args:
        source: The file, for messages.
        vit: Geometry, without the block that is not used.
        dominant: Tokens that stay, the class token among them.
        contextual: Tokens that the others become.

    Raises:
        InputError: Something has to be stated, or does not fit the model.
    """
    if dominant is None or contextual is None:
        raise InputError(
            f"{source}: how many tokens VisionZip leaves is in no file; state it, like --dominant "
            "54 --contextual 10, the class token among the first"
        )
    step = Contextual(dominant - vit.prefix, contextual)
    if not step.possible(vit.tokens, vit.prefix):
        raise InputError(
            f"{source}: --dominant {dominant} --contextual {contextual} of {vit.tokens} tokens; "
            f"expected {vit.prefix + 1} or more and 1 or more, fewer than these together"
        )
    told = f"behind block {vit.depth - 1}, the last that is used, {dominant + contextual} tokens"
    stated = {"dominant": dominant, "contextual": contextual}
    return Placed({vit.depth - 1: (step,)}, stated=stated, found=(told,))
