"""What weights do not tell of a ViT: known, near-certain, or asked for.

Known is what a flag, the file, the model's name or a shape says. Near-certain is what every public
ViT of such weights has; it is taken, said, and written into the exported file. Everything else is
asked for, all of it in one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ltmp_export.backbones.vit import kinds
from ltmp_export.backbones.vit import vit_pytorch_keys as vit_pytorch
from ltmp_export.backbones.vit.features import Shaped
from ltmp_export.errors import InputError
from ltmp_export.plan import mlps
from ltmp_export.plan.geometry import ACTIVATIONS, POOLS
from ltmp_export.plan.vit import CLASS_AND_MEAN
from ltmp_export.statements.gather import Answer, Statements

if TYPE_CHECKING:
    from ltmp_export.statements.timm_names import TimmName

# What needs timm is imported where a name is known: PyTorch and timm take seconds.

Weights: TypeAlias = Mapping[str, Shaped]  # read or not

HEAD_WIDTH = 64  # channels of a head in nearly every published ViT
USUAL_WIDTHS = (192, 384, 768, 1024)  # at which every published ViT has heads of 64 channels
SIXTEEN_HEADS = (1280, 1408, 1664)  # widths at which every published ViT has 16
NORM_EPS = 1e-6
RMS_EPS = 1e-5  # AIMv2's; no other public plain ViT with MLPs behind attention has RMSNorm
LATENT, MAP = kinds.LATENT, "map"  # attention pooling
FIRST, LAST = "first", "last"


class Named(NamedTuple):
    """A model that timm knows by name.

    Attributes:
        timm: Its name.
        where: Who calls it so: a flag, or a place in the file.
        model: As timm builds it, without numbers in its weights.
    """

    timm: TimmName
    where: str
    model: Any

    @property
    def normalises_average(self) -> bool:
        """Whether there is a norm behind the pooling."""
        return any(key.startswith("fc_norm.") for key in self.model.state_dict())

    @property
    def told(self) -> str:
        """Where a fact comes from that the name tells."""
        return f"{self.timm.name} ({self.where})"


class Question(NamedTuple):
    """What has to be stated, how, and why nothing tells it."""

    what: str
    flag: str
    why: str


@dataclass(frozen=True)
class Facts:
    """What the weights do not tell.

    Attributes:
        answers: By timm's word for it: num_heads, act, norm_eps, pool, gate.
    """

    answers: Mapping[str, Answer]

    @property
    def heads(self) -> int:
        """Attention heads."""
        return int(self.answers["num_heads"].value)

    @property
    def act(self) -> str:
        """One of `plan.geometry.ACTIVATIONS`."""
        return str(self.answers["act"].value)

    @property
    def norm_eps(self) -> float:
        """Epsilon of every norm."""
        return float(self.answers["norm_eps"].value)

    @property
    def pool(self) -> str:
        """One of `plan.geometry.POOLS`, or "map"."""
        return str(self.answers["pool"].value)

    @property
    def gate_last(self) -> bool:
        """Whether the gate is the second half of what a packed MLP's first layer gives."""
        return "gate" in self.answers and self.answers["gate"].value == LAST


def settle(weights: Weights, named: Named | None, says: Statements, source: str) -> Facts:
    """Find out, or ask.

    Args:
        weights: timm names.
        named: The model by name, if there is one.
        says: What is said.
        source: Where the weights come from, for messages.

    Raises:
        InputError: Something has to be stated, or what is stated does not fit the weights.
    """
    if vit_pytorch.NORM in weights:
        _require_no_flags(says, source)
    pooling = _pool(weights, named, says)
    found = {"num_heads": _heads(weights, named, says), "act": _act(weights, named, says)}
    found |= {"norm_eps": _norm_eps(weights, named, says), "pool": pooling}
    found |= _gate(weights, named, says)
    found |= _norms(weights, named, says)
    questions = [one for one in found.values() if isinstance(one, Question)]
    if questions:
        raise InputError(_asked(questions, source))
    answers = {key: one for key, one in found.items() if isinstance(one, Answer)}
    _require_possible(weights, answers, says, source)
    return Facts(answers)


def _asked(questions: list[Question], source: str) -> str:
    """All questions in one line."""
    what = " and ".join(f"{one.what} ({one.why})" for one in questions)
    flags = " ".join(one.flag for one in questions)
    return f"{source}: nothing tells {what}; state {flags}, or the model's name with --model"


def _require_no_flags(says: Statements, source: str) -> None:
    for said in (says.act, says.norm_eps, says.pool):
        if said is not None and said.where.startswith("--"):
            raise InputError(
                f"{source}: {vit_pytorch.SAYS} fixes what {said.where} states; drop it"
            )


def require_dividing(weights: Weights, heads: Answer, source: str) -> None:
    """Refuse a number of heads that does not divide the attention width (InputError)."""
    width = kinds.attention_width(weights)
    if heads.value < 1 or width % heads.value:
        raise InputError(
            f"{source}: {heads.value} heads ({heads.where}) do not divide the attention width "
            f"{width}; state the right number with --num-heads"
        )


def _require_possible(
    weights: Weights, answers: Mapping[str, Answer], says: Statements, source: str
) -> None:
    require_dividing(weights, answers["num_heads"], source)
    pool, act = answers["pool"], answers["act"]
    if LATENT in weights and says.pool is not None and says.pool.value != MAP:
        raise InputError(
            f"{source} has attention pooling ({LATENT}); {says.pool.where} states "
            f"{says.pool.value!r}: drop it"
        )
    if pool.value not in (*POOLS, CLASS_AND_MEAN) and LATENT not in weights:
        raise InputError(
            f"{source} pools by {pool.value!r} ({pool.where}); supported are {' and '.join(POOLS)}"
        )
    if pool.value == "token" and "cls_token" not in weights:
        raise InputError(
            f"{source} has no class token, by which {pool.where} pools; state --pool avg"
        )
    if act.value not in ACTIVATIONS:
        raise InputError(
            f"{source} has the activation {act.value!r} ({act.where}); supported are "
            f"{', '.join(ACTIVATIONS)}; if it is one of these by another name, state it with --act"
        )


def _heads(weights: Weights, named: Named | None, says: Statements) -> Answer | Question:
    """The number of heads; the norm of q tells it, too."""
    if says.heads is not None:
        times, where = says.attentions, says.heads.where
        where += f" for each of {times} attentions side by side" if times > 1 else ""
        return Answer(says.heads.value * times, where)
    width, own = kinds.attention_width(weights), kinds.attention(weights)
    behind = weights.get(f"{own}.sub_norm.weight")  # of differential attention
    if behind is not None and width % behind.shape[0] == 0:
        return Answer(width // behind.shape[0], f"the shape of {own}.sub_norm.weight")
    normed = weights.get(f"{own}.q_norm.weight")
    if normed is not None and width % normed.shape[0] == 0 and normed.shape[0] < width:
        return Answer(width // normed.shape[0], f"the shape of {own}.q_norm.weight")
    if named is not None:
        from ltmp_export.backbones.vit import eager

        return Answer(eager.attends(named.model.blocks[0]).num_heads, named.told)
    usual = width == kinds.embedding(weights)[0] and width in USUAL_WIDTHS
    usual = usual and not kinds.rms(weights)  # AIMv2's have 128 channels
    if width % HEAD_WIDTH == 0 and (usual or says.authors or says.assume_defaults):
        return Answer(width // HEAD_WIDTH, f"{HEAD_WIDTH} channels a head", True)
    why = f"width {width}"
    if width in SIXTEEN_HEADS:
        why += ", at which published ViTs have 16"
    return Question("the number of heads", f"--num-heads{says.usual_heads}", why)


def _act(weights: Weights, named: Named | None, says: Statements) -> Answer | Question:
    if vit_pytorch.NORM in weights:
        return Answer("gelu", vit_pytorch.SAYS)
    if says.act is not None:
        return Answer(*says.act)
    if named is not None:
        from ltmp_export.backbones.vit import describe

        return Answer(describe.activation(describe.act(named.model.blocks[0])), named.told)
    if "norm_pre.weight" in weights and not says.assume_defaults:
        flag = f"--act {'|'.join(ACTIVATIONS)}"
        return Question("the activation", flag, "CLIP's are gelu or quick_gelu")
    swish = kinds.mlp(weights) in (mlps.PACKED, mlps.SPLIT)
    if kinds.siglip(weights) and not swish and not says.assume_defaults:
        why = "SigLIP's are gelu_tanh or, of timm's first, gelu"
        return Question("the activation", "--act gelu|gelu_tanh", why)
    return Answer("silu" if swish else "gelu", "usual", True)


def _norms(weights: Weights, named: Named | None, says: Statements) -> dict[str, Question]:
    """Whether blocks normalise behind their halves, where weights fit a public ViT that does."""
    front = ("cls_token", "reg_token", "blocks.0.attn.qkv.bias", vit_pytorch.NORM)
    fits = not any(key in weights for key in front) and "fc_norm.weight" in weights
    fits = fits and "blocks.0.attn.proj.bias" in weights
    if named is not None or says.assume_defaults or not fits:
        return {}
    why = "vit_base_patch16_rpn_224 has them behind"
    what = "whether norms stand in front of attention and MLP"
    return {"norms": Question(what, "--model NAME", why)}


def _gate(weights: Weights, named: Named | None, says: Statements) -> dict[str, Answer]:
    """Which half of a packed MLP's first layer is the gate, where it is packed."""
    if kinds.mlp(weights) != mlps.PACKED:
        return {}
    if says.gate is not None:
        return {"gate": Answer(*says.gate)}
    if named is None:
        return {"gate": Answer(FIRST, "usual", True)}
    last = getattr(named.model.blocks[0].mlp, "gate_last", False)
    return {"gate": Answer(LAST if last else FIRST, named.told)}


def _norm_eps(weights: Weights, named: Named | None, says: Statements) -> Answer | Question:
    if vit_pytorch.NORM in weights:
        return Answer(vit_pytorch.NORM_EPS, vit_pytorch.SAYS)
    if says.norm_eps is not None:
        return Answer(*says.norm_eps)
    if named is not None:
        from ltmp_export.backbones.vit import describe

        return Answer(describe.norm_eps(named.model), named.told)
    if "norm_pre.weight" in weights and not says.assume_defaults:
        return Question("the epsilon of its LayerNorms", "--norm-eps 1e-5|1e-6", "CLIP's is 1e-5")
    aimv2 = kinds.rms(weights) and not kinds.side_by_side(weights)
    return Answer(RMS_EPS if aimv2 else NORM_EPS, "usual", True)


def _takes_twice(weights: Weights) -> bool:
    """Whether the classifier is given the class token and something of its width behind it."""
    head = weights.get("head.weight")
    twice = head is not None and tuple(head.shape[1:]) == (2 * kinds.embedding(weights)[0],)
    return twice and "cls_token" in weights and "dist_token" not in weights


def _pool(weights: Weights, named: Named | None, says: Statements) -> Answer | Question:
    """How tokens are pooled: a norm behind the pooling tells averages, nothing tells the rest."""
    if vit_pytorch.NORM in weights:
        return Answer("avg", vit_pytorch.SAYS)
    if LATENT in weights:
        return Answer(MAP, f"{LATENT} is there")
    if _takes_twice(weights):
        return Answer(CLASS_AND_MEAN, "the shape of head.weight")
    if says.pool is not None:
        return Answer(*says.pool)
    if "dist_token" in weights:
        return Answer("token", "dist_token is there")
    normed = "fc_norm.weight" in weights
    if named is None and not normed and "cls_token" not in weights:
        return Answer("avg", "there is no class token", True)
    if named is not None and normed == named.normalises_average:
        open_still = not normed and named.model.global_pool == "token" and not says.trained
        return Answer(named.model.global_pool, named.told, open_still)
    if normed:
        return Answer("avg", "fc_norm.weight is there", True)
    if named is not None and named.model.global_pool != "token" and not says.assume_defaults:
        why = f"{named.timm.name} pools by {named.model.global_pool} and has fc_norm, which is not"
        return Question("the pooling", f"--pool {'|'.join(POOLS)}", f"{why} in the file")
    return Answer("token", "usual", True)
