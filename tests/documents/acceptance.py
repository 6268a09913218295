"""What is accepted and what is refused, case by case: two tables of `checkpoint/README.md`.

    python -m tests.documents.acceptance      prints the tables, as the manual must have them

A case makes its files in the current folder and gives the command to run. `says` is what the
command must print, word for word; "…" stands for anything.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tests.conftest import DIGITS_LTMP, FIXTURES
from tests.makers.given_files import (
    ARCH,
    DIGIT,
    MERGE_2,
    NOT_A_NUMBER,
    TWO_HEADS,
    base,
    changed,
    claims,
    classifier,
    classifiers,
    clip,
    cut,
    dense,
    dino,
    distilled,
    given_up,
    headless,
    heads,
    hugging_face,
    initial,
    lightning,
    mae,
    malicious,
    numbered,
    outside,
    patchmerger,
    pictures,
    renamed,
    resnet,
    safetensors,
    saved,
    state,
    things,
    thresholds,
    top,
    torchvision_vit,
    transformers_swin,
    unclassed,
    unprepared,
    vit_pytorch,
    with_prefix,
    zoo,
)


@dataclass(frozen=True)
class Case:
    """One row: what is given, what happens, what it says, and how to try it.

    Attributes:
        given: First column.
        says: Last column, printed by the command.
        command: Makes the files and gives the command line, without `ltmp`.
        code: Exit code.
    """

    given: str
    says: str
    command: Callable[[], list[str]]
    code: int = 0


CKPT = str(DIGITS_LTMP)
LTM = str(FIXTURES / "digits_ltm_thresholds.pth.tar")

ACCEPTED: tuple[Case, ...] = (
    Case("timm's training checkpoint (the authors' script)", "timm training checkpoint, epoch 2",
         lambda: ["inspect", CKPT]),
    Case("a bare state_dict; also inside `state_dict` or `model`", "bare state_dict",
         lambda: saved(state(), "--family", "ltmp", *TWO_HEADS)),
    Case("the format of PyTorch before 1.6", "dictionary with 'model'",
         lambda: saved({"model": state()}, "--family", "ltmp", *TWO_HEADS,
                       _use_new_zipfile_serialization=False)),
    Case("safetensors", "family ltmp: as the name ltmp_vit_digits_patch4_32 says", safetensors),
    Case("PyTorch Lightning, any attribute name", "prefix 'model.' taken off 92 keys", lightning),
    Case("a Hugging Face folder or its weights, `config.json` beside", "Hugging Face model",
         hugging_face),
    Case("DDP, FSDP, `torch.compile`", "wrapped as _orig_mod, module: taken off",
         lambda: saved({"state_dict": with_prefix("module._orig_mod.")}, "--family", "ltmp",
                       *TWO_HEADS)),
    Case("averaged weights beside others, with `--use-ema`",
         "averaged weights (state_dict_ema): asked for",
         lambda: saved(top() | {"state_dict_ema": state()}, "--use-ema")),
    Case("the zoo's `best_checkpoint.pth`: its `ema_best` tells",
         "averaged weights (model_ema): ema_best says that these count", zoo),
    Case("averaged weights alone", "averaged weights (state_dict_ema): there are no others",
         lambda: saved({"state_dict_ema": state(), "arch": ARCH})),
    Case("thresholds only, with `--base-checkpoint FILE` or `timm:NAME`", "check: equal",
         lambda: ["export", LTM, "--base-checkpoint", base({})]),
    Case("a plain ViT with `--family m --r 8`", "static: every image takes 60.5% of the dense …",
         lambda: saved(dense(), "--family", "m", "--r", "8", *TWO_HEADS, do="export")),
    Case("a fine-tuned file as another family, `--family p --r 8`",
         "warning: family p as asked, though the file says ltmp; its merge and prune thresholds …",
         lambda: ["export", CKPT, "--family", "p", "--r", "8"]),
    Case("a distillation token, registers, no class token, in any family", "check: equal",
         distilled),
    Case("timm's `ParallelThingsBlock`, `--num-heads` of one of them",
         "2 attentions side by side are one of all their heads", things),
    Case("PatchMerger's layers in a DeiT, `--merge-at 2,4`", "patch tokens made anew before it",
         lambda: ["inspect", *patchmerger("--merge-at", "2,4", *TWO_HEADS)[1:]]),
    Case("vit-pytorch's ViT with PatchMerger", "names of vit-pytorch: taken as timm's",
         vit_pytorch),
    Case("float16, bfloat16 or float64 weights", "computed with as float32",
         lambda: saved({k: v.half() for k, v in state().items()}, "--family", "ltmp",
                       *TWO_HEADS)),
    Case("another image size, `--img-size 40`",
         "warning: position embedding resized from 8x8 to 10x10 patches; …",
         lambda: ["export", CKPT, "--img-size", "40", "--no-check"]),
    Case("a name that timm has given up, or of the Hub",
         "vit_small_patch16_224_dino: vit_small_patch16_224.dino of timm",
         given_up),
    Case("DINOv2's `mask_token` beside a classifier",
         "left out: mask_token, which only pretraining uses",
         lambda: saved(dense(mask_token=torch.zeros(1, 128)), *TWO_HEADS)),
    Case("a ViT without a classifier: its features", "no classifier, 128 features",
         lambda: saved(headless(), *TWO_HEADS)),
    Case("MAE's decoder beside a model",
         "left out: decoder_pos_embed and 1 more, a decoder, which only pretraining uses", mae),
    Case("a classifier under another name, or `--head-name NAME`",
         "…; classifier classifier (--head-name)", classifier),
    Case("a ViT of another library: [below](#names-of-other-libraries)",
         "names of torchvision: taken as timm's", torchvision_vit),
    Case("thresholds where training starts",
         "warning: all merge thresholds are at their initial value 0.9: never fine-tuned", initial),
    Case("labels or class counts that contradict the head",
         "warning: the file states 1000 classes (num_classes), its weights have 10",
         lambda: saved(top() | {"args": argparse.Namespace(num_classes=1000)}, do="export")),
)  # fmt: skip

REFUSED: tuple[Case, ...] = (
    Case("a pickle with any other class", "is refused: it asks to load posix.system, and only …",
         malicious, 2),
    Case("a file that unpacks to more than 8 GiB",
         "would take … GiB of memory, more than the limit of …; if that is right, raise it: "
         "ltmp --memory-limit …",
         lambda: ["--memory-limit", "0.001", "export", CKPT], 2),
    Case("a shape without its numbers",
         "claims the shape (1000000, 1000000) but holds fewer numbers", claims, 2),
    Case("a cut or damaged file",
         "is damaged or not a PyTorch checkpoint or a safetensors file (…)",
         cut, 2),
    Case("ONNX data outside the model's folder", "head.weight …", outside, 2),
    Case("a dense model", "holds no thresholds (…): it is a dense model or …",
         lambda: saved(dense(), do="export"), 2),
    Case("another architecture", "it looks like a ResNet", resnet, 2),
    Case("features that are not supported, all of them",
         "is a ViT with features that are not supported: talking heads "
         "(blocks.0.attn.proj_l.weight), mixture of experts (blocks.0.mlp.router.weight); expected "
         "a plain ViT …",
         lambda: changed(**{"blocks.0.mlp.router.weight": torch.ones(4, 128),
                            "blocks.0.attn.proj_l.weight": torch.ones(2, 2)}), 2),
    Case("several layers that may be the classifier",
         "classifier and fc may be its classifier; state which: --head-name classifier|fc|none",
         classifiers, 2),
    Case("another model of Hugging Face's",
         "this is Hugging Face's SwinModel, which is not covered; expected a model whose "
         "config.json has the model_type …",
         transformers_swin, 2),
    Case("DINO's student and teacher in one file",
         "holds weights under 'student' and 'teacher'; state which: --use-ema for the teacher, …",
         dino, 2),
    Case("a LoRA adapter",
         "holds an adapter (LoRA or kin: …); merge the adapter into the model's weights first "
         "(peft: model.merge_and_unload()), then save their state_dict",
         lambda: saved({"base_model.model.blocks.0.attn.qkv.lora_A.weight": torch.ones(4, 128)},
                       do="export"), 2),
    Case("a model of timm that is not supported, before any download",
         "timm:resnet18: not a plain timm VisionTransformer: it looks like a ResNet …",
         lambda: ["export", "timm:resnet18"], 2),
    Case("a family that goes by a class token, of a model without one",
         "has no class token, which family multiscale_mergence needs; dpcknn, …",
         unclassed, 2),
    Case("a fixed-rate family without r",
         "family mp takes a fixed number of tokens from each block, which no file holds; state it "
         "with --r 8, or --reduction-target 0.6 …",
         lambda: renamed("mp_vit_digits"), 2),
    Case("r without a family", "state which with --family m|mp|p|pm (m is ToMe)",
         lambda: saved(dense(), "--r", "8", do="export"), 2),
    Case("PatchMerger without its places",
         "does not say where its 2 layers of PatchMerger stand; state the blocks before which they "
         "do, like --merge-at 3,6,9",
         lambda: patchmerger(*TWO_HEADS), 2),
    Case("a static file without a budget",
         "family ltmp keeps as many tokens as an image needs; state the most …",
         lambda: ["export", CKPT, "--mode", "static"], 2),
    Case("a threshold that is NaN or outside [0, 1]",
         "blocks.2.merge_masker.threshold is nan; a threshold lies in [0, 1]",
         lambda: changed(**{MERGE_2: torch.tensor([torch.nan])}), 2),
    Case("NaN or infinity in a weight",
         "head.bias holds NaN or infinite values (1 of 10); the checkpoint is "
         "broken: …",
         lambda: changed(**{"head.bias": torch.tensor([torch.inf] + [0.0] * 9)}), 2),
    Case("a threshold that is missing",
         "merge thresholds missing in blocks [2]; the model has 6 blocks",
         lambda: changed(**{MERGE_2: None}), 2),
    Case("a block without all of its weights",
         "1 missing (blocks.3.mlp.fc1.bias)", lambda: changed(**{"blocks.3.mlp.fc1.bias": None}),
         2),
    Case("weights of another model than the name",
         "the weights are not those of deit_small_patch16_224 (arch): width 128 (by name 384); "
         "state what they are with --model",
         lambda: renamed("ltmp_deit_small_patch16_224"), 2),
    Case("the wrong base",
         "the weights are not those of vit_digits_patch4_32: 1 unexpected (extra.weight)",
         lambda: ["export", LTM, "--base-checkpoint", base({"extra.weight": torch.ones(1)})], 2),
    Case("thresholds only, without a base",
         "holds thresholds only; give the dense model's weights with --base-checkpoint …",
         thresholds, 2),
    Case("thresholds of a run that trained the weights, too",
         "but its optimizer trained 92 parameters: the weights were fine-tuned, too, …",
         lambda: thresholds(optimizer={"param_groups": [{"params": list(range(92))}]}), 2),
    Case("`ltmp` or `ltpm`, and no name to tell",
         "fit ltmp or ltpm, and the file has no 'arch' to tell; state it with --family ltmp|ltpm",
         lambda: saved(state(), do="export"), 2),
    Case("a shape that leaves something open",
         "has 13 rows, which is no square of patches …; state the image size it was trained at "
         "(--img-size HEIGHT,WIDTH); fitting are 16x12, 12x16",
         heads, 2),
    Case("a bare file of another width than the usual ones",
         "nothing tells the number of heads (width 128); state --num-heads, or the model's name …",
         lambda: saved(state(), "--family", "ltmp", do="export"), 2),
    Case("a bare CLIP",
         "nothing tells the activation (…) and the epsilon of its LayerNorms (…); state "
         "--act gelu|gelu_tanh|quick_gelu|silu|relu --norm-eps 1e-5|1e-6, …",
         clip, 2),
    Case("pictures, and a file without their normalisation",
         "holds pictures, and nothing tells the mean and deviation that the model was trained "
         "with; …",
         unprepared, 2),
    Case("class folders whose natural and string order differ",
         "class 1 is folder '2' in natural order (timm's), '10' in string order (torchvision's "
         "ImageFolder), and nothing tells which the model was trained on; state --class-order "
         "natural|string, or …",
         numbered, 2),
    Case("marks of two scripts, whose rules differ", "state --keep-rule zoo|official …",
         lambda: zoo(model_ema=None, do="export"), 2),
    Case("a list of rates where its script takes counts",
         "its script makes them floats, on which the original fails: …",
         lambda: zoo("sit", do="export"), 2),
    Case("several models in one file", "holds several models, under 'a.', 'b.'; save one of them",
         lambda: saved(with_prefix("a.") | with_prefix("b."), do="export"), 2),
    Case("a misspelt name", "no family 'ltpmm'; …; did you mean ltpm or …?",
         lambda: ["export", CKPT, "--family", "ltpmm"], 2),
    Case("a file that is not there", "does not exist; …; did you mean base.pth?",
         lambda: ["export", base({}).replace("pth", "pt")], 2),
    Case("an output that is the input",
         "the output c.pth is the input c.pth; choose another output",
         lambda: saved(top(), "-o", "c.pth", do="export"), 2),
    Case("an opset that is not supported", "opset 15 is not supported; choose from 16 to …",
         lambda: ["export", CKPT, "--opset", "15"], 2),
    Case("images with NaN", "images[0] holds NaN or infinite values",
         lambda: pictures(NOT_A_NUMBER), 2),
    Case("images of another shape", "images uint8(2, 32, 31); expected [n, 3, 32, 32], n > 0",
         lambda: pictures(DIGIT[:, :, 1:]), 2),
    Case("labels that are no classes", "labels from 3 to 10; the model has the classes 0 to 9",
         lambda: pictures(DIGIT, np.array([3, 10])), 2),
)  # fmt: skip


def table(cases: tuple[Case, ...]) -> str:
    """One of the manual's tables."""
    head = "| given | says |\n|---|---|\n"
    rows = (f"| {case.given} | `{case.says.replace('|', chr(92) + '|')}` |\n" for case in cases)
    return head + "".join(rows)


if __name__ == "__main__":
    print(table(ACCEPTED))
    print(table(REFUSED))
