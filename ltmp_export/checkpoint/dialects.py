"""Who wrote a checkpoint, and where in it the model is (METHOD §2).

    timm's CheckpointSaver       state_dict, arch, args, perhaps state_dict_ema, optimizer
    PyTorch Lightning            state_dict under the name of an attribute (`model.`, `net.`, …)
    Hugging Face                 model.safetensors or pytorch_model.bin, config.json beside it
    DeiT and others              {"model": …}
    DINO and DINOv2              {"teacher": …}, the averaged weights, perhaps beside {"student": …}
    bare                         the state_dict itself

A dialect is told by its keys. The model's prefix is what stands before the first layer of a network
(see `backbones.chosen`; of other libraries, `backbones.vit.libraries`) or a block's threshold, so
that any attribute name does; wrappers (DDP, torch.compile, FSDP) are taken off.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ltmp_export.backbones import chosen
from ltmp_export.backbones.vit.libraries import index, open_clip_config, open_clip_trunk
from ltmp_export.checkpoint import description, scripts
from ltmp_export.checkpoint.beside import Beside, beside
from ltmp_export.checkpoint.containers.stored import StoredTensor
from ltmp_export.checkpoint.scripts import Script
from ltmp_export.errors import InputError
from ltmp_export.statements.gather import CONFIG

_PLAIN = ("state_dict", "model", "model_state_dict", "module", "net", "student")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "teacher")
_DISTILLED = ("student", "teacher")
_WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
_THRESHOLDS = re.compile(r"((?:[^.]+\.)*?)blocks\.\d+\.(?:merge|prune)_masker\.threshold")
_AVERAGE = re.compile(r"(^|[._])ema[._]|averag", re.IGNORECASE)
_COUNTER = "n_averaged"  # of torch's AveragedModel


@dataclass(frozen=True)
class Dialect:
    """The model in a file, and what the file says of it.

    Attributes:
        state: Stored values under timm's names.
        arch: The name the file gives the model.
        arch_in: Where that name stands in the file.
        others: Other names that it gives in other places.
        args: What else it says, in the words of timm's training script.
        trained: Parameters that its optimizer trained; None where it has no optimizer.
        found: What the file is and what was taken of it, for a person.
        prefix: What stands before the model's keys in the file, wrappers apart.
        beside: Values that were left out, by their names in the file.
        library: Whose names they are, if not timm's: see `libraries.index`.
        lies: Configurations that lie beside the file.
        configured: Where those of `args` stand that are not arguments of a script.
        script: What wrote it, of those that train token-reducing ViTs, or None.
    """

    state: Mapping[str, Any]
    arch: str | None
    arch_in: str
    others: tuple[str, ...]
    args: Mapping[str, Any]
    trained: int | None
    found: tuple[str, ...]
    prefix: str
    beside: Mapping[str, Any]
    library: ModuleType | None
    lies: Beside
    configured: Mapping[str, str]
    script: Script | None


def understand(path: Path, top: Mapping[Any, Any], use_ema: bool | None) -> Dialect:
    """Find the model in the top level of a file.

    Args:
        path: The file; Hugging Face's have a config.json beside them.
        top: Its content.
        use_ema: Take averaged weights (True), never (False), or only where there are no others.

    Raises:
        InputError: There is no model, several, or not the one asked for.
    """
    finder = _Finder(path, top, use_ema)
    state = finder.state()
    library = index.by_keys(state)
    lies = beside(path, foreign=library is not None)
    args, configured = _arguments(top, lies)
    if configured:
        finder.found.append(f"{CONFIG} beside it")
    told = description.names(top, args, lies.of_timm)
    if library is open_clip_trunk:
        place = f"{open_clip_config.FILE}: timm_model_name"
        told[place] = open_clip_config.timm_name(lies.open_clip)
    names: dict[str, str] = {}
    for where, name in told.items():
        if description.is_name(name):
            names.setdefault(name, where)
    trained = description.trained(top)
    if trained is not None:
        finder.found.append(f"optimizer of {trained} parameters, not read")
    arch, *others = names or (None,)
    found = (_writer(top, lies), *description.origin(top), *finder.found)
    where = "" if arch is None else names[arch]
    more = tuple(map(str, others))
    rest = finder.prefix, finder.beside, library, lies, configured, scripts.told(path, top, args)
    return Dialect(state, arch, where, more, args, trained, found, *rest)


def _arguments(top: Mapping[Any, Any], lies: Beside) -> tuple[dict[str, Any], dict[str, str]]:
    """What a file says and timm's configuration beside it; where what is only there stands."""
    args = description.arguments(top)
    words = description.from_config(lies.of_timm) if lies.of_timm else {}
    added = words.keys() - {k for k, v in args.items() if v is not None}
    args = {**words, **{k: v for k, v in args.items() if k not in added}}
    return args, {key: f"{CONFIG}: {key}" for key in added}


def _writer(top: Mapping[Any, Any], lies: Beside) -> str:
    """What kind of file it is."""
    if "pytorch-lightning_version" in top:
        return "PyTorch Lightning checkpoint"
    if lies.of_timm or (lies.belongs and lies.name):
        return "Hugging Face model"
    if isinstance(top.get("args"), (argparse.Namespace, Mapping)) and "arch" in top:
        epoch = top.get("epoch")
        return f"timm training checkpoint{f', epoch {epoch}' if isinstance(epoch, int) else ''}"
    holder = next((key for key in (*_PLAIN, *_AVERAGED) if _holds_tensors(top.get(key))), None)
    return "bare state_dict" if holder is None else f"dictionary with {holder!r}"


@dataclass
class _Finder:
    """Looks for the state_dict and keeps what it sees."""

    path: Path
    top: Mapping[Any, Any]
    use_ema: bool | None
    found: list[str] = field(default_factory=list)
    prefix: str = ""
    beside: dict[str, Any] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Stored values under timm's names."""
        outer = self._outer()
        plain: dict[str, Any] = {}
        wrapped: set[str] = set()
        for key, value in outer.items():
            if not isinstance(key, str):
                raise InputError(
                    f"{self.path}: a key of its state_dict is a {type(key).__name__}; expected "
                    "names of tensors"
                )
            parts = key.split(".")
            wrapped.update(_WRAPPERS.intersection(parts))
            name = ".".join(part for part in parts if part not in _WRAPPERS)
            if name in plain:
                raise InputError(f"{self.path}: {name} is there twice, with different prefixes")
            plain[name] = value
        if wrapped:
            self.found.append(f"wrapped as {', '.join(sorted(wrapped))}: taken off")
        return self._under_prefix(plain)

    def _outer(self) -> Mapping[Any, Any]:
        """The mapping of tensors inside the file's top level."""
        top = self.top
        held = [key for key in _PLAIN if _holds_tensors(top.get(key))]
        if len(held) > 1:
            raise InputError(
                f"{self.path} holds weights under {' and '.join(map(repr, held))}; save one of them"
            )
        plain = held[0] if held else None
        averaged = next((key for key in _AVERAGED if _holds_tensors(top.get(key))), None)
        if (plain, averaged) == _DISTILLED and self.use_ema is None:
            raise InputError(
                f"{self.path} holds weights under 'student' and 'teacher'; state which: --use-ema "
                "for the teacher, which DINO evaluates, --no-ema for the student"
            )
        best = scripts.averaged(top) if self.use_ema is None else None
        if averaged is not None and (self.use_ema or best or plain is None):
            if self.use_ema is False:
                raise InputError(f"{self.path} holds averaged weights only; drop --no-ema")
            why = f"{scripts.BEST} says that these count" if best else ""
            self._take_averaged(averaged, plain is None, why)
            return dict(top[averaged])
        if best:
            self.found.append(f"{scripts.BEST} is True, but there are no averaged weights")
        if plain is not None:
            if averaged is not None:
                self.found.append(f"weights of {plain!r}; {averaged} is there, too (--use-ema)")
            return dict(top[plain])
        if any(isinstance(value, StoredTensor) for value in top.values()):
            return top
        if any(isinstance(top.get(key), Mapping) and not top[key] for key in _PLAIN):
            raise InputError(f"{self.path} holds no weights: its state_dict is empty")
        keys = ", ".join(str(key)[:40] for key in list(top)[:6] if isinstance(key, str))
        raise InputError(
            f"{self.path} holds no weights: found {keys or 'nothing'}; expected 'state_dict' or "
            "'model'"
        )

    def _take_averaged(self, where: str, alone: bool, why: str = "") -> None:
        why = why or ("there are no others" if alone else "asked for")
        self.found.append(f"averaged weights ({where}): {why}")

    def _under_prefix(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The keys of one model, without what stands before all of them."""
        prefix, prefixes = self._prefix(state), self._prefixes(state)
        kept, left = {}, []
        for key, value in state.items():
            longest = max((p for p in prefixes if key.startswith(p)), key=len, default=None)
            if longest == prefix or not prefixes:
                kept[key.removeprefix(prefix)] = value
            else:
                left.append(key)
        kept.pop(_COUNTER, None)
        for key in left:
            if (match := _THRESHOLDS.fullmatch(key)) and match[1] not in prefixes:
                raise InputError(
                    f"{self.path}: thresholds stand under {match[1]!r}, the model under "
                    f"{prefix!r}; save them together"
                )
        self.prefix, self.beside = prefix, {key: state[key] for key in left}
        if prefix:
            self.found.append(f"prefix {prefix!r} taken off {len(kept)} keys")
        if left:
            shown = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
            self.found.append(f"left out: {len(left)} keys of something else ({shown})")
        return kept

    def _prefixes(self, state: Mapping[str, Any]) -> set[str]:
        """What stands before a model's keys, for every model there is."""
        library = index.by_keys(state)
        for patterns in _models(library):
            matches = (
                next(filter(None, (p.fullmatch(key) for p in patterns)), None) for key in state
            )
            if found := {m[1] for m in matches if m}:
                return found
        return set()

    def _prefix(self, state: Mapping[str, Any]) -> str:
        prefixes = self._prefixes(state) or {""}
        averaged = {prefix for prefix in prefixes if _AVERAGE.search(prefix)}
        plain = prefixes - averaged
        if len(plain) > 1:  # a teacher has no thresholds
            learned = {m[1] for key in state if (m := _THRESHOLDS.fullmatch(key))}
            plain = plain & learned or plain
        inside = any(_holds_tensors(self.top.get(key)) for key in _AVERAGED)
        wanted = averaged if self.use_ema and not inside else plain or averaged
        if self.use_ema and not wanted:
            raise InputError(f"{self.path} holds no EMA weights (state_dict_ema); drop --use-ema")
        if self.use_ema is False and wanted <= averaged:
            raise InputError(f"{self.path} holds averaged weights only; drop --no-ema")
        if len(wanted) > 1:
            names = ", ".join(repr(prefix) for prefix in sorted(wanted))
            raise InputError(f"{self.path} holds several models, under {names}; save one of them")
        (prefix,) = wanted
        if prefix in averaged:
            self._take_averaged(prefix, not plain)
        return prefix


def _models(library: ModuleType | None) -> list[list[re.Pattern[str]]]:
    """The names of first layers, with what stands before them: ViTs' together, then any other's."""
    first, *others = (_before(name) for name in chosen.first_layers())
    foreign = [] if library is None else [_before(library.FIRST)]
    return [[*foreign, first], *([other] for other in others), [_THRESHOLDS]]


def _before(first: str) -> re.Pattern[str]:
    return re.compile(rf"((?:[^.]+\.)*?)(?:{first})\.weight")


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(v, StoredTensor) for v in value.values())
