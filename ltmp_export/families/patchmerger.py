"""Replace all patch tokens by a few learned mixtures of them, once or several times (PatchMerger).

Renggli et al., "Learning to Merge Tokens in Vision Transformers", 2022, arXiv 2202.12015.
"""

from ltmp_export.steps.patch_merge.step import PatchMerge

WEIGHTS = r"cluster_layers\.(0|[1-9][0-9]{0,5})\.(queries|norm\.weight|norm\.bias)"


def patch_merge(index: int, tokens: int, scale: float, eps: float) -> PatchMerge:
    """The mixtures of the tokens that enter a block; nothing happens inside blocks."""
    return PatchMerge(f"cluster_layers.{index}", tokens, scale, eps)
