"""Who owns each patch of an image behind each block of a file, by the file's own decisions.

They are read from its named tensors (`steps.decided`), as `parity` reads them, and composed; where
the file gives a `token_map`, that is what they must come to. Letters: P patches of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.errors import CheckFailedError, InputError
from ltmp_export.graph.interface import missing_tensors
from ltmp_export.plan import outputs
from ltmp_export.plan.outputs import TOKEN_MAP
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.steps import decided, recorded
from ltmp_export.steps.recorded import NOWHERE, Places, Read

if TYPE_CHECKING:
    from ltmp_export.model_file.model import ExportedModel
    from ltmp_export.plan.geometry import Size


@dataclass(frozen=True)
class Owned:
    """The patches of one image behind one block.

    Attributes:
        block: Which.
        grid: Rows and columns of the patches.
        places: [P] in row-major order the token that each patch is part of, counted among those
            that are left, rows in front included; -1 where it was pruned.
        before: [P] the same before the block.
        tokens: How many are left, rows in front included.
        protected: How many rows stand in front, which own no patch.
    """

    block: int
    grid: Size
    places: Places
    before: Places
    tokens: int
    protected: int

    @property
    def living(self) -> NDArray[np.bool_]:
        """[P] the patches that are part of a token."""
        return self.places >= 0

    @property
    def sizes(self) -> Places:
        """[tokens] how many patches each token owns."""
        return np.bincount(self.places[self.living], minlength=self.tokens)

    @property
    def several(self) -> NDArray[np.bool_]:
        """[P] the patches whose token owns others, too."""
        return self.living & (self.sizes[self.places] > 1)

    @property
    def merged_here(self) -> NDArray[np.bool_]:
        """[P] the patches whose token this block made of several."""
        pairs = np.unique(np.stack([self.places, self.before])[:, self.living], axis=1)
        parts = np.bincount(pairs[0], minlength=self.tokens)
        return self.living & (parts[self.places] > 1)

    @property
    def pruned_here(self) -> NDArray[np.bool_]:
        """[P] the patches whose token this block pruned."""
        return ~self.living & (self.before >= 0)


class Owners:
    """A file, opened to be asked who owns what.

    Args:
        exported: The file.
        threads: Threads of an operator; all processors by default.
        optimised: As for `runtimes.session.Session`.

    Attributes:
        blocks: Those that it can tell of, all or the last one.
        remarks: What a person should know of them.

    Raises:
        InputError: Patches are in no one token, see `require_owners`; or nothing tells.
        ExportError: The runtime does not load the file.
    """

    def __init__(
        self, exported: ExportedModel, *, threads: int | None = None, optimised: bool = True
    ) -> None:
        require_owners(exported)
        self._exported = exported
        plan, model = exported.plan, exported.proto
        self._hidden = decided.hidden(plan, model)
        taps = decided.names(plan)
        missing = missing_tensors(model, taps)
        if missing and TOKEN_MAP not in exported.outputs:
            raise InputError(
                f"{exported.path} has no tensor {missing[0]} and gives no token_map, so that "
                "nothing tells which patch is part of which token; export it again"
            )
        depth = len(plan.blocks)
        self.blocks = (depth - 1,) if missing else tuple(range(depth))
        self.remarks = _remarks(exported, missing)
        taps = {} if missing else taps | dict.fromkeys(self._hidden.values(), decided.FLOAT)
        self._session = TappedSession(model, taps, threads=threads, quiet=True, optimised=optimised)

    @property
    def grid(self) -> Size:
        """Rows and columns of the patches."""
        return self._exported.vit.grid

    def of(self, pixels: NDArray[np.float32]) -> tuple[Owned, ...]:
        """Of one image [channels, H, W], the patches behind each of the `blocks`.

        Raises:
            CheckFailedError: The file's decisions are none, or not what its token_map says.
            ExportError: The runtime fails on the image.
        """
        return self.read(self.run(pixels))

    def run(self, pixels: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The file's own outputs for one image, and the tensors that its decisions are read from.

        Raises:
            ExportError: The runtime fails on the image.
        """
        return self._session.run(pixels[None])

    def read(self, given: Mapping[str, NDArray[Any]]) -> tuple[Owned, ...]:
        """`of` what `run` gave.

        Raises:
            CheckFailedError: The file's decisions are none, or not what its token_map says.
        """
        tensors = {**given} | {name: given[hidden] for name, hidden in self._hidden.items()
                           if hidden in given}  # fmt: skip
        final = given.get(TOKEN_MAP)
        last = None if final is None else final[0]
        if len(self.blocks) == 1 < len(self._exported.plan.blocks) and last is not None:
            return (self._owned(self.blocks[0], last, self._first(), None),)
        try:
            found = self._composed(tensors)
        except (ValueError, IndexError) as err:
            raise CheckFailedError(
                f"{self._exported.path}: its decisions are none ({err}); run ltmp check"
            ) from err
        if last is not None and not self._restores and not np.array_equal(found[-1].places, last):
            raise CheckFailedError(
                f"{self._exported.path}: its token_map is not what its own decisions come to; run "
                "ltmp check"
            )
        return found

    @property
    def _restores(self) -> bool:
        return self._exported.plan.restores

    def _first(self) -> Places:
        """[P] each patch its own token."""
        geometry = self._exported.geometry
        return np.arange(geometry.prefix, geometry.tokens)

    def _owned(self, block: int, places: Places, before: Places, tokens: int | None) -> Owned:
        front = self._exported.geometry.prefix
        left = max(front, int(places.max(initial=-1)) + 1) if tokens is None else tokens
        return Owned(block, self.grid, places, before, left, front)

    def _composed(self, tensors: Mapping[str, NDArray[Any]]) -> tuple[Owned, ...]:
        """From decisions.

        Raises:
            ValueError: They are none.
            IndexError: Neither.
        """
        plan, geometry = self._exported.plan, self._exported.geometry
        fresh = decided.fresh(geometry, plan)
        places, found = self._first(), []
        walk = decided.blocks(plan, tensors, 0, 1, geometry.tokens, geometry.prefix, fresh)
        for block in walk:
            step, before = plan.before.get(block.number), places
            if step is not None and not step.decides and not step.restores:
                given = int(block.given[0])
                went = recorded.went(step, given, geometry.prefix)
                places = np.where(places >= 0, went[places], NOWHERE)
            elif step is not None and not step.decides:  # of constant matrices, which are recovered
                found.append(self._owned(block.number, places, places, int(block.given[0])))
                continue
            reads = block.read(0)
            left = len(reads[-1].left) if reads else int(block.received[0])
            after = composed(places, reads)
            found.append(self._owned(block.number, after, before, left))
            places = places if plan.restoring(block.number) is not None else after
        return tuple(found)


def composed(places: Places, reads: Sequence[Read]) -> Places:
    """[P] who owns the patches after some steps, of those who owned them before.

    Raises:
        ValueError: The decisions of a step do not tell where tokens go.
    """
    for read in reads:
        if read.went is None:
            raise ValueError("nothing tells where a mask takes each patch")
        places = np.where(places >= 0, read.went[places], NOWHERE)
    return places


def require_owners(exported: ExportedModel) -> None:
    """Check that each patch is part of one token at most.

    Raises:
        InputError: It may be part of several, or the network has no patches of its own.
    """
    plan, geometry = exported.plan, exported.geometry
    if TOKEN_MAP in outputs.of(geometry, plan):
        return
    if plan.mixes:
        raise InputError(
            f"{exported.path}: family {plan.family} makes every token of many patches, so that no "
            "patch has one owner; --heat shows the share of each patch in each token"
        )
    raise InputError(
        f"{exported.path}: a {geometry.kind} network makes other tokens of its tokens from stage "
        "to stage, so that nothing tells which patch is part of which; give a file of a ViT"
    )


def _remarks(exported: ExportedModel, missing: Sequence[str]) -> tuple[str, ...]:
    """What a person should know."""
    if missing:
        return (
            f"{exported.path} has no tensor {missing[0]}: shown is what its token_map says behind "
            "the last block",
        )
    plan = exported.plan
    if not plan.restores:
        return ()
    told = f"{exported.path}: family {plan.family} gives back every patch behind each block"
    if plan.before:
        return (f"{told}, so that each is its own; --heat shows what blocks run on",)
    return (f"{told}; shown is what a block merges within",)
