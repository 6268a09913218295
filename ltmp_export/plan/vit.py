"""The geometry of a plain ViT and the few facts that its weights do not tell.

Shape letters as in `geometry`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from ltmp_export.errors import InputError
from ltmp_export.plan import linears, mlps, parallel, pooling, work
from ltmp_export.plan.geometry import Geometry, Place, Shape, Size
from ltmp_export.plan.linears import Linear
from ltmp_export.plan.outputs import DENSE, FEATURES, LOGITS, SIZES, TOKEN_MAP, TOKENS
from ltmp_export.plan.plan import Plan, Rows, demands
from ltmp_export.plan.pooling import AttentionPool
from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.plan.stem import Stem

CLASS_AND_MEAN = "token_avg"  # pooling: the class token, and the mean of the patches behind it


@dataclass(frozen=True)
class Vit:
    """What the weights' names and shapes do not say about a plain ViT, plus its geometry.

    Attributes:
        name: timm's name, the name the file gives itself, or "vit".
        image_size: (height, width) in pixels.
        patch_size: (height, width) in pixels.
        width: Channels C of a token.
        mlp_width: Channels that the last layer of an MLP is given.
        heads: Attention heads H.
        head_width: Channels D per head.
        norm_eps: Epsilon of every norm.
        activation: "gelu", "gelu_tanh", "quick_gelu", "silu" or "relu".
        classes: Number of logits; 0 where there is no classifier.
        pool: "token" (class token), "avg" (mean over the patches that tokens stand for), "map"
            (attention pooling) or "token_avg" (the first two, one behind the other).
        prefix: Tokens before the patches, P: a class token, a distillation token, registers, in
            this order, or none.
        coarse: Whether patches twice as high and wide are embedded, too, and added.
        registers: How many of the tokens before the patches are registers.
        mlp: Kind of the MLPs, one of `plan.mlps.KINDS`.
        latent: The attention pooling, where there is one.
        stem: Convolutions in front of the patch embedding, where there are any.
        differential: Whether attention is the difference of two maps for each head.
        post_norm: Whether a block normalises what its halves give, and not what they are given.
        pool_prefix: Whether what is pooled includes the tokens before the patches.
        parallel: Where attention and MLP run side by side, one of `plan.parallel.KINDS`.
    """

    name: str
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    in_chans: int
    classes: int
    depth: int
    width: int
    mlp_width: int
    heads: int
    head_width: int
    norm_eps: float
    activation: str
    pool: str
    kind: ClassVar[str] = "vit"
    prefix: int = 1  # files made before it was written have a class token
    coarse: bool = False  # not written where it is not, like what follows
    registers: int = 0
    mlp: str = mlps.PLAIN
    latent: AttentionPool | None = None
    pool_prefix: bool = False
    stem: Stem | None = None
    differential: bool = False
    post_norm: bool = False
    parallel: str = ""

    def __post_init__(self) -> None:
        sizes: tuple[int, ...] = (
            *self.image_size,
            *self.patch_size,
            self.in_chans,
            1 if self.classes == 0 and type(self.classes) is int else self.classes,
            self.depth,
        )
        sizes += (self.width, self.mlp_width, self.heads, self.head_width)
        if len(sizes) != 11 or not all(type(size) is int and 0 < size < 2**31 for size in sizes):
            raise ValueError(f"a ViT of sizes {sizes}; expected 11 positive integers")
        rows = self.prefix, self.registers
        counted = all(type(some) is int and 0 <= some < 2**31 for some in rows)
        pools = {0: ("avg", "map"), 1: ("token", "avg", "map", CLASS_AND_MEAN), 2: ("token",)}
        if not counted or self.pool not in pools.get(self.leading, ()):
            raise ValueError(
                f"a ViT of {self.prefix!r} prefix tokens with {self.pool!r} pooling, "
                f"{self.registers!r} of them registers"
            )
        whole = all(
            side % (2 * patch) == 0
            for side, patch in zip(self.image_size, self.patch_size, strict=True)
        )
        if type(self.coarse) is not bool or (self.coarse and not whole):
            raise ValueError(f"images of {self.image_size} are no whole number of coarse patches")
        if type(self.pool_prefix) is not bool or (self.pool == "map") != (self.latent is not None):
            raise ValueError(f"{self.pool!r} pooling with {self.latent}, {self.pool_prefix!r}")
        if self.latent is not None:
            self.latent.require_sound(self.width)
        if not all(type(switch) is bool for switch in (self.differential, self.post_norm)):
            raise ValueError(f"switches {self.differential!r:.50} and {self.post_norm!r:.50}")
        if self.differential and self.head_width % 2:
            raise ValueError(f"differential attention with heads of {self.head_width} channels")
        if self.mlp not in mlps.KINDS:
            raise ValueError(f"MLPs of kind {self.mlp!r:.50}")
        parallel.require_sound(self)

    @property
    def patches(self) -> int:
        """Patch tokens of one image."""
        rows, columns = self.grid
        return rows * columns

    @property
    def grid(self) -> Size:
        """Rows and columns of patches."""
        (h, w), (ph, pw) = self.image_size, self.patch_size
        return h // ph, w // pw

    @property
    def tokens(self) -> int:
        """Tokens of one image before the first block: patches and those before them."""
        return self.patches + self.prefix

    @property
    def leading(self) -> int:
        """Tokens before registers and patches: class token, distillation token, or none."""
        return self.prefix - self.registers

    @property
    def maps(self) -> int:
        """Maps of attention of a block, by which steps score; and heads of its keys."""
        return 2 * self.heads if self.differential else self.heads

    @property
    def key_width(self) -> int:
        """Channels of a head's keys."""
        return self.head_width // 2 if self.differential else self.head_width

    @property
    def unpooled(self) -> int:
        """Tokens in front that are not pooled, where the class token alone is not."""
        return 0 if self.pool_prefix else self.prefix

    @property
    def class_token(self) -> bool:
        """Whether row 0 is a class token."""
        return self.leading >= 1

    @property
    def distilled(self) -> bool:
        """Whether there is a distillation token, with a classifier of its own."""
        return self.leading == 2

    @property
    def classifiers(self) -> int:
        """Linear heads; the logits are their mean."""
        if not self.classes:
            return 0
        return 2 if self.distilled else 1

    @property
    def pooled_width(self) -> int:
        """Numbers that a classifier is given."""
        return 2 * self.width if self.pool == CLASS_AND_MEAN else self.width

    @property
    def outputs(self) -> dict[str, Shape]:
        """What files of it can give, and the shape of each."""
        logits: dict[str, Shape] = {LOGITS: (self.classes,)} if self.classes else {}
        return logits | {
            FEATURES: (self.pooled_width,),
            TOKENS: (None, self.width),
            SIZES: (None,),
            TOKEN_MAP: (self.patches,),
            DENSE: (self.width, *self.grid),
        }

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return (self.in_chans, *self.image_size)

    def places(self) -> tuple[Place, ...]:
        """The blocks; a mask would begin with the first."""
        return tuple(
            Place(f"blocks.{block}", 1, self.grid, self.width, block == 0)
            for block in range(self.depth)
        )

    def rows(self, plan: Plan, counts: Sequence[int] | None = None) -> tuple[Rows, ...]:
        """Tokens at each block, those before the patches among them."""
        return plan.rows(self.tokens, self.prefix, counts)

    def require_possible(self, plan: Plan) -> None:
        """Check that the model can take a plan's steps.

        Raises:
            ValueError: It cannot.
        """
        plan.require_possible(self.patches, self.prefix)
        if not self.class_token and any(CLASS_ATTENTION in demands(steps) for steps in plan.blocks):
            raise ValueError("steps go by a class token, which the model has not")
        if self.parallel and any(step.restores for steps in plan.blocks for step in steps):
            raise ValueError("steps give back behind MLPs, which run beside attention here")

    def linears(self) -> Iterator[Linear]:
        """All linear layers in the order of the computation."""
        return linears.of_vit(self)

    def layer_rows(self, rows: Sequence[Rows]) -> list[int]:
        """Rows that one image gives to each of the `linears`."""
        return work.vit_layer_rows(self, rows)

    def macs(self, plan: Plan, counts: Sequence[int] | None = None) -> int:
        """Multiply-accumulates one image takes."""
        return work.vit_macs(self, plan, self.rows(plan, counts))

    def kept_places(self) -> frozenset[str]:
        """What of it a float16 file may compute in float32."""
        inner = ("attn.scores", "attn.mixed", "mlp.act")
        places = {f"blocks.{block}.{leaf}" for block in range(self.depth) for leaf in inner}
        layers = {layer.path for layer in self.linears()}
        places |= set() if self.stem is None else {conv.path for conv in self.stem.convs}
        places |= set(pooling.PLACES) if self.latent is not None else set()
        return frozenset(places | layers | {linears.EMBEDDING, linears.COARSE_EMBEDDING})

    def words(self) -> tuple[str, str]:
        """Architecture, and patches, for a person."""
        patch = "x".join(map(str, self.patch_size))
        rows = "" if self.class_token else ", no class token"
        rows += f", {self.registers} register{'s' * (self.registers > 1)}" if self.registers else ""
        behind = "" if self.stem is None else f" behind {len(self.stem.convs)} convolutions"
        return (
            f"{self.depth} blocks, width {self.width}, {self.heads} heads, {self._mlp_words()}, "
            f"{self.activation}, pool {self.pool}{rows}",
            f"patches {patch}{behind}",
        )

    def _mlp_words(self) -> str:
        gated = "" if self.mlp == mlps.PLAIN else "gated "
        return f"{gated}MLP {self.mlp_width}{' beside attention' if self.parallel else ''}"

    def to_json(self) -> dict[str, Any]:
        """Plain values for the exported file's metadata; see `from_json`."""
        usual: dict[str, Any] = {"coarse": False, "registers": 0, "mlp": mlps.PLAIN}
        usual |= {
            "latent": None,
            "pool_prefix": False,
            "stem": None,
            "differential": False,
            "post_norm": False,
            "parallel": "",
        }  # of fields that older files do not have
        return {k: v for k, v in asdict(self).items() if k not in usual or v != usual[k]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Vit:
        """The inverse of `to_json`."""
        pairs: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        if isinstance(pairs.get("latent"), Mapping):
            pairs["latent"] = AttentionPool(**pairs["latent"])
        if isinstance(pairs.get("stem"), Mapping):
            pairs["stem"] = Stem.from_json(pairs["stem"])
        return cls(**pairs)


def require_vit(geometry: Geometry, source: object, what: str) -> Vit:
    """The geometry of a ViT.

    Args:
        geometry: Any.
        source: Where it is from, for messages.
        what: Who needs a ViT, for messages.

    Raises:
        InputError: It is another network's.
    """
    if not isinstance(geometry, Vit):
        raise InputError(
            f"{source} is {geometry.name}, of kind {geometry.kind}; {what} takes plain ViTs alone"
        )
    return geometry
