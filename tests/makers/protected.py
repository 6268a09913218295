"""Small ViTs with any number of rows before the patches, each built once, and images for them."""

from __future__ import annotations

from functools import cache

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ltmp_export.plan.vit import Vit
from tests.makers import random_vits
from tests.makers.random_vits import Case

SMALL = {"depth": 2, "img_size": (16, 12)}  # 12 patches
NONE = {"class_token": False, "global_pool": "avg"}
FOUR = {"reg_tokens": 4, "no_embed_class": True}

ROWS = (
    Case("no row", 41, SMALL | NONE),
    Case("no row, odd", 42, SMALL | NONE | {"img_size": (12, 12), "fc_norm": False}),
    Case("one", 43, SMALL),
    Case("two, distilled", 44, SMALL | {"distilled": True}),
    Case("two, averages", 45, SMALL | {"reg_tokens": 1, "global_pool": "avg"}),
    Case("five", 46, SMALL | FOUR),
    Case("five, no class token", 47, SMALL | NONE | FOUR | {"reg_tokens": 5}),
)
EQUAL = (  # of one colour all patches are alike
    Case("no row, tied", 48, SMALL | NONE | {"no_embed_class": True}, tied=True),
    Case("five, tied", 49, SMALL | FOUR, tied=True),
)


@cache
def model_of(case: Case) -> tuple[VisionTransformer, Vit]:
    """The model of a case and its geometry."""
    return random_vits.build(case)


@cache
def images_of(case: Case) -> Tensor:
    """Seven images: five of noise, and two of one colour."""
    vit = model_of(case)[1]
    return torch.cat([random_vits.images(vit, case.seed), random_vits.one_colour(vit)[1:3]])
