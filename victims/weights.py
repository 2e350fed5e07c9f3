"""Weights from a file: all of a network's tensors, by whatever names a training gave them, or a refusal."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import WEIGHTS_VARIABLE, find_file

State = Mapping[str, Tensor]
PART = "#"
"""Before the name of a part of a file, such as ``checkpoint.pth#model_ema``."""
PLAIN = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
"""Under which of several names a checkpoint's own network is, the first that it has; others are copies, as of EMA."""
WRAPPERS = ("module", "_module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What DataParallel, Opacus, torch.compile and FSDP put into the names of what they wrap."""
COUNTERS = ("num_batches_tracked", "n_averaged")
"""Last parts of names that count steps and change no output; older files lack them."""
OLDER_NAMES = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\b")
"""In torchvision's own files of densenets; its networks write norm1 for norm.1."""
AUXILIARY_HEADS = ("aux1.", "aux2.", "AuxLogits.", "aux_classifier.")
"""Names in googlenet, inception_v3 and networks that segment that are used in their own training only."""


SAVED_BY_TORCH = (b"PK", b"\x80")
"""How a zip archive and a pickle begin."""


@dataclass(frozen=True)
class Loaded:
    """``untrained``: those of the classifier that keep their initial values; ``notes``: what was done to the file."""

    untrained: tuple[str, ...]
    notes: tuple[str, ...]


def find_weights(weights: str, wanted: str = "weights file") -> tuple[Path, str]:
    """The file that is meant, also looked for in $SPLITLEAK_WEIGHTS, and the part of it, empty where none is named.

    Raises:
        InvalidInputError: no such file; ``wanted`` says of what.
    """
    name, sign, part = weights.rpartition(PART)
    if not sign or Path(weights).expanduser().exists():
        return find_file(weights, wanted, WEIGHTS_VARIABLE), ""
    return find_file(name, wanted, WEIGHTS_VARIABLE), part


def in_weights_file(weights: str) -> bool:
    """Whether this names a file rather than weights that torchvision numbers."""
    return bool(Path(weights).suffix) or Path(weights).expanduser().is_file()


def read_weights(weights: str, wanted: str = "weights file") -> State:
    """The tensors of a .safetensors file or of one that torch saved; nothing else is unpickled.

    Names of what a checkpoint nests are joined by dots: ``state_dict.conv.weight``. Where ``weights`` names a part,
    it is that part alone.

    Raises:
        InvalidInputError: no file, not readable, more than tensors and plain values, no tensors, or no such part.
    """
    path, part = find_weights(weights, wanted)
    content = _content(path)
    tensors = dict(_flat(content))
    if not tensors:
        held = f"; it holds {some([str(key) for key in content])}" if isinstance(content, Mapping) and content else ""
        raise InvalidInputError(f"{path} holds no state_dict (a mapping of names to tensors){held}")
    if not part:
        return tensors
    names = {key: key for key in tensors} | _unwrapped(tensors)
    begins = f"{part}."
    inside = {name.removeprefix(begins): tensors[key] for name, key in names.items() if name.startswith(begins)}
    if not inside:
        parts = list(dict.fromkeys(key.partition(".")[0] for key in tensors))
        raise InvalidInputError(f"{path} has no part '{part}'; it has {some(parts, most=12)}")
    return inside


def _content(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # a damaged file may make its reader raise anything; of what is not unpickled it says more than one line
        wrong = _refused_content(path) if type(error).__name__ == "UnpicklingError" else _unreadable(error)
        raise InvalidInputError(f"{path} {wrong}") from None


def _refused_content(path: Path) -> str:
    """What is wrong with a file that torch does not unpickle."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(SAVED_BY_TORCH):
        return "holds more than tensors and is not loaded: save a state_dict"
    return f"is no readable weights file: neither torch nor safetensors saves what begins with {start!r}"


def _unreadable(error: Exception) -> str:
    reason = str(error).strip() or type(error).__name__
    return f"is no readable weights file: {reason.splitlines()[0]}"


def _flat(content: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items() if isinstance(content, Mapping) else ():
        inner = f"{name}.{key}" if name else str(key)
        if not isinstance(value, Tensor):
            yield from _flat(value, inner)
        elif isinstance(key, str) and key:
            yield inner, value


def load_weights(
    module: nn.Module, tensors: State, origin: str, resized: Callable[[State], State] | None = None
) -> Loaded:
    """Copy ``tensors`` into ``module``; only the classifier may be missing or have another number of classes.

    Args:
        module: its parameters and buffers are overwritten.
        tensors: by their names in the file, as ``read_weights`` returns them.
        origin: what errors call the file.
        resized: what makes another image size's position embeddings fit, where that is known.

    Raises:
        InvalidInputError: any other tensor is missing, unknown, of another shape, no plain numbers or not finite, or
            several parts of the file fit alike.
    """
    own = module.state_dict()
    named, notes = _named_as(own, tensors, origin)
    head = classifier(module)

    def in_head(key: str) -> bool:
        return key == head or key.startswith(f"{head}.")

    def misshapen(state: State) -> list[str]:
        return sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)

    _check_numbers({key: value for key, value in named.items() if key in own}, own, origin)
    shared = _same_as(own, named)
    missing = sorted(
        key for key in own.keys() - named.keys() - shared if not (in_head(key) or key.endswith(COUNTERS))
    )
    unknown = sorted(key for key in named.keys() - own.keys() if not in_head(key))
    other = [key for key in misshapen(named) if not in_head(key)]
    if other and resized and not missing and not unknown:
        named = dict(resized(named))
        notes.append(f"resized for this image size: {some(other)}")
        other = [key for key in misshapen(named) if not in_head(key)]
    fitting = {key: value for key, value in named.items() if key in own and own[key].shape == value.shape}
    if missing or unknown or other or not fitting:
        raise InvalidInputError(_refusal(origin, missing, unknown, other))
    for key in misshapen(named):
        notes.append(f"'{key}' is {_shape(named[key])} there and {_shape(own[key])} here: not taken")
    if left := sorted(named.keys() - own.keys()):
        notes.append(f"left out {len(left)} tensors of the file's classifier: {some(left)}")
    module.load_state_dict(fitting, strict=False)
    untrained = own.keys() - fitting.keys() - _same_as(own, fitting)
    return Loaded(tuple(sorted(untrained)), (*notes, *_precision(fitting)))


def _same_as(own: State, given: State) -> set[str]:
    """Names of the network's tensors that are given under another name: safetensors writes shared ones once."""
    places = {own[key].data_ptr() for key in given if key in own and own[key].numel()}
    return {key for key, value in own.items() if value.data_ptr() in places}


def _named_as(own: State, tensors: State, origin: str) -> tuple[dict[str, Tensor], list[str]]:
    """A file's tensors by the network's names, and what was done to get there.

    A name is the network's once something before it is removed, in the file as in the network, and wrappers' names
    anywhere. It is what most tensors, also by shape, agree on.
    """
    short, names = _unwrapped(own), _unwrapped(tensors)
    strip, found = "", _agreements(short, names, own, tensors)
    if not found:
        strip = _common(short)
        bare = {name.removeprefix(strip): key for name, key in short.items()}
        found = _agreements(bare, names, own, tensors)
    most = max(found.values(), default=0)
    other_network = most < len(own)  # a few names agree by chance, and an error is to name the file's own
    best = [""] if other_network else sorted(prefix for prefix, count in found.items() if count == most)
    prefix = _chosen(best, origin)
    inside = {name.removeprefix(prefix): key for name, key in names.items() if name.startswith(prefix)}
    named = {short.get(strip + rest, strip + rest): tensors[key] for rest, key in inside.items()}
    notes = list(_renamed(prefix, strip, best, [key for key in tensors if key not in inside.values()]))
    heads = [key for key in named if key.startswith(AUXILIARY_HEADS) and key not in own]
    if heads:
        notes.append(f"left out {len(heads)} tensors of auxiliary heads: {some(heads)}")
    dropped = {*heads, *(key for key in named if key.endswith(COUNTERS) and key not in own)}
    return {key: value for key, value in named.items() if key not in dropped}, notes


def _agreements(targets: Mapping[str, str], names: Mapping[str, str], own: State, tensors: State) -> dict[str, int]:
    """How much the names agree without each of the things before them; a tensor of equal shape counts three times."""
    found: Counter[str] = Counter()
    for name, key in names.items():
        parts = [] if name.endswith(COUNTERS) else name.split(".")
        for depth in range(len(parts)):
            target = targets.get(".".join(parts[depth:]))
            if target is not None:
                alike = own[target].shape == tensors[key].shape
                found["".join(f"{part}." for part in parts[:depth])] += 3 if alike else 1
    return found


def _unwrapped(state: State) -> dict[str, str]:
    """By their names without those of wrappers, as they are where that makes two the same."""
    newer = {key: OLDER_NAMES.sub(r"\1\2", key) for key in state}
    short = {".".join(part for part in new.split(".") if part not in WRAPPERS): key for key, new in newer.items()}
    return short if len(short) == len(state) else {key: key for key in state}


def _common(names: Mapping[str, str]) -> str:
    """What all names begin with: whole parts, with their dots."""
    split = [name.split(".")[:-1] for name in names]
    shared = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(f"{parts[0]}.")
    return "".join(shared)


def _chosen(prefixes: list[str], origin: str) -> str:
    """Of parts that fit alike the network's own, not a copy of it."""
    parts = {prefix: prefix.split(".")[:-1] for prefix in prefixes}
    plain = [prefix for prefix, names in parts.items() if set(names) <= set(PLAIN)]
    if plain or len(prefixes) == 1:
        return min(plain, key=lambda prefix: [PLAIN.index(name) for name in parts[prefix]], default=prefixes[0])
    offered = " or ".join(f"{origin}{PART}{prefix[:-1]}" for prefix in prefixes if prefix)
    raise InvalidInputError(f"{origin} holds several networks that fit: say {offered}")


def _renamed(prefix: str, strip: str, best: list[str], outside: list[str]) -> Iterator[str]:
    if prefix:
        yield f"names are read without '{prefix}'"
    if strip:
        yield f"names are read with '{strip}' before them"
    copies = [other for other in best if other != prefix]
    if copies:
        yield "it also holds copies, which FILE#PART takes: " + ", ".join(other[:-1] for other in copies)
    beside = [key for key in outside if not key.startswith(tuple(copies))]
    if beside:
        yield f"left out {len(beside)} tensors beside the network: {some(beside)}"


def _check_numbers(state: State, own: State, origin: str) -> None:
    for key, value in state.items():
        if value.is_quantized or value.layout != torch.strided or value.is_meta:
            raise InvalidInputError(f"{origin}: '{key}' holds no plain numbers; save the network in float32")
        if own[key].is_floating_point() and not value.is_floating_point():
            raise InvalidInputError(f"{origin}: '{key}' is {_kind(value.dtype)}, where the network has real numbers")
        if not value.isfinite().all():
            raise InvalidInputError(
                f"{origin} holds numbers that are not finite, first in '{key}': a training diverged"
            )


def _precision(state: State) -> Iterator[str]:
    reduced = {value.dtype for value in state.values() if value.is_floating_point() and value.dtype.itemsize < 4}
    for dtype in sorted(reduced, key=str):
        yield f"stored in {_kind(dtype)}, computed in float32"


def _refusal(origin: str, missing: list[str], unknown: list[str], other: list[str]) -> str:
    wrong = {"missing": missing, "unknown": unknown, "of another shape": other}
    listed = "; ".join(f"{len(keys)} keys {what} ({some(keys)})" for what, keys in wrong.items() if keys)
    hint = (
        "; position embeddings of another shape belong to another image size"
        if any("pos" in k for k in other)
        else ""
    )
    return f"{origin} are weights of another network: {listed or 'no key fits'}{hint}"


def classifier(module: nn.Module) -> str:
    """The name of what a change of the number of classes replaces; empty where there is none.

    It is the last child with parameters, if that is one layer or a few dense ones in a row; else it is in there.
    """
    children = [(name, child) for name, child in module.named_children() if _has_parameters(child)]
    if not children:
        return ""
    name, child = children[-1]
    inner = "" if _is_dense(child) else classifier(child)
    return f"{name}.{inner}" if inner else name


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _is_dense(module: nn.Module) -> bool:
    """Whether no layer lies deeper than one level, and none has a kernel."""
    layers = [child for child in module.children() if _has_parameters(child)]
    nested = any(_has_parameters(inner) for layer in layers for inner in layer.children())
    return not nested and all(value.shape[2:].numel() == 1 for value in module.parameters())


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "one number"


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def some(names: list[str], most: int = 4) -> str:
    """The first of them."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
