"""Networks by name and their weights."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.files import WEIGHTS_VARIABLE, find_file, load_module

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH_NORM_MOMENTUM = 0.1
TIMM = "timm:"
"""How the names of timm's networks begin."""
CLASSES_WITHOUT_TASK = 1000
"""What torchvision's weights have."""
SCRATCH = "scratch"
TRAINED_ON_HALVES = ("googlenet", "inception_v3")
"""Networks whose torchvision weights expect mean and standard deviation 0.5."""
NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Under which names a checkpoint holds a network's tensors, beside those of an optimizer and the like."""
WRAPPERS = ("module", "_orig_mod")
"""What DataParallel and torch.compile put into the names of what they wrap."""
AUXILIARY_HEADS = ("aux1.", "aux2.", "AuxLogits.")
"""Keys of googlenet and inception_v3 that are used in their own training only."""


@dataclass(frozen=True)
class Network:
    """A network with the statistics that its input is normalised with, and the keys left untrained."""

    module: nn.Module
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    untrained: tuple[str, ...] = ()


def names() -> list[str]:
    """All torchvision classification networks (``timm:NAME`` adds those of timm)."""
    return list(torchvision.models.list_models(module=torchvision.models))


def make_network(model: str, classes: int, size: int, weights: str = SCRATCH) -> Network:
    """Build a classification network in eval mode.

    Args:
        model: a torchvision name, ``timm:NAME`` (needs the extra ``timm``), or ``path/to/file.py:function``, where
            the function returns the network: a module that takes photos normalised with ImageNet's statistics, or a
            ``Network`` that says otherwise. It is given ``classes`` and ``size`` if it takes these parameters.
        classes: number of outputs.
        size: side of the square input, in pixels; transformers fix their positions to it.
        weights: ``scratch`` (of a network in a file: as its function made them), a torchvision weights name such as
            ``IMAGENET1K_V2``, or the path of a .safetensors or .pth file; relative paths are also looked for in
            $SPLITLEAK_WEIGHTS.

    Raises:
        InvalidInputError: unknown network, missing file, or weights of another network.
    """
    if in_file(model):
        network = _from_file(model, classes, size)
    elif model.startswith(TIMM):
        network = _from_timm(model, classes, size)
    else:
        network = _from_torchvision(model, classes, size)
    for module in network.module.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            # Some networks average statistics over hundreds of steps, more than a small training has.
            module.momentum = max(module.momentum, BATCH_NORM_MOMENTUM)
    if weights == SCRATCH:
        return network
    state = file_state(weights) if Path(weights).suffix else _torchvision_state(model, weights)
    missing = load_weights(network.module, state, weights)
    if model in TRAINED_ON_HALVES and not Path(weights).suffix:
        return Network(network.module, (0.5,) * 3, (0.5,) * 3, untrained=missing)
    return Network(network.module, network.mean, network.std, untrained=missing)


def in_file(model: str) -> bool:
    """Whether this names a function in a Python file."""
    return ".py" in model


@torch.no_grad()
def forget(module: nn.Module) -> None:
    """Draw all weights anew, whoever trained them; those of a kind that torch cannot reset are shuffled."""
    for part in module.modules():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
        else:
            for value in part.parameters(recurse=False):
                value.copy_(value.flatten()[torch.randperm(value.numel())].view_as(value))


def _from_file(model: str, classes: int, size: int) -> Network:
    path, _, name = model.partition(":")
    file = load_module(Path(path).expanduser(), "model file")
    function = getattr(file, name, None) if name else None
    if not callable(function):
        held = ", ".join(_defined_in(file)) or "none"
        raise InvalidInputError(
            f"model = '{model}': name a function that returns the network, as in {path}:make_model; "
            f"functions of this file: {held}"
        )
    made = function(**_arguments(function, model, {"classes": classes, "size": size}))
    network = Network(made) if isinstance(made, nn.Module) else made
    if not isinstance(network, Network):
        raise InvalidInputError(
            f"{model} returned {type(made).__name__}: it should return a torch.nn.Module or a victims.models.Network"
        )
    return Network(network.module.cpu().eval(), network.mean, network.std)


def _defined_in(file: ModuleType) -> list[str]:
    """Names of the functions, and of the networks' classes, that a file does not import."""
    return [
        name
        for name, member in vars(file).items()
        if getattr(member, "__module__", None) == file.__name__
        and (inspect.isfunction(member) or (inspect.isclass(member) and issubclass(member, nn.Module)))
    ]


def _arguments(function: Callable[..., object], model: str, offered: Mapping[str, int]) -> dict[str, int]:
    """Those of the offered arguments that a function takes."""
    parameters = inspect.signature(function).parameters
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for name, parameter in parameters.items():
        if name not in offered and parameter.default is parameter.empty and parameter.kind not in optional:
            raise InvalidInputError(f"{model} needs '{name}', but is given {' and '.join(offered)} only")
    return {name: value for name, value in offered.items() if name in parameters}


def _from_torchvision(model: str, classes: int, size: int) -> Network:
    if model not in names():
        raise unknown("network", model, names())
    options: dict[str, Any] = {"num_classes": classes}
    if model.startswith("vit_"):
        options["image_size"] = size
    elif model == "maxvit_t":
        options["input_size"] = (size, size)
    elif model in ("googlenet", "inception_v3"):
        # Auxiliary heads exist in training only, so no cut could run through them.
        options |= {"aux_logits": False, "init_weights": True}
    try:
        return Network(torchvision.models.get_model(model, weights=None, **options).eval())
    except (ValueError, AssertionError) as error:
        raise InvalidInputError(f"{model} cannot take {size} px images: {str(error).splitlines()[0]}") from None


def _from_timm(model: str, classes: int, size: int) -> Network:
    try:
        import timm
    except ImportError:
        raise InvalidInputError(f"{model} needs timm: pip install 'splitleak[timm]'") from None
    name = model.removeprefix(TIMM)
    if not timm.is_model(name):
        raise unknown("timm network", name, timm.list_models())
    try:
        module = timm.create_model(name, num_classes=classes, img_size=size)
    except TypeError:  # convolutional networks take any size and have no such argument
        module = timm.create_model(name, num_classes=classes)
    settings: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    return Network(module.eval(), tuple(settings["mean"]), tuple(settings["std"]))


def _torchvision_state(model: str, weights: str) -> Mapping[str, Tensor]:
    if model.startswith(TIMM) or in_file(model):
        raise InvalidInputError(f"weights = '{weights}' of {model}: give 'scratch' or the path of a weights file")
    offered = torchvision.models.get_model_weights(model)
    if weights != "DEFAULT" and weights not in offered.__members__:
        raise unknown(f"weights of {model}:", weights, [*offered.__members__, SCRATCH, "a .safetensors or .pth file"])
    chosen = offered[weights]
    try:
        # torchvision's own builder: it renames the keys of its older files
        trained = torchvision.models.get_model(model, weights=chosen, progress=False)
    except (URLError, OSError) as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(chosen.url).path).name
        raise InvalidInputError(
            f"weights {weights} of {model} are neither at {file} nor could they be downloaded ({error}); "
            f"fetch {chosen.url} and put it there"
        ) from None
    return {key: value for key, value in trained.state_dict().items() if not key.startswith(AUXILIARY_HEADS)}


def file_state(weights: str, wanted: str = "weights file") -> Mapping[str, Tensor]:
    """The tensors of a .safetensors or .pth file, also looked for in $SPLITLEAK_WEIGHTS; nothing else is unpickled.

    Raises:
        InvalidInputError: no file (``wanted`` says of what), not readable, or more than tensors.
    """
    path = find_file(weights, wanted, WEIGHTS_VARIABLE)
    try:
        if path.suffix == ".safetensors":
            return _finite(load_file(path), path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InvalidInputError(f"{path} is no readable weights file: {reason}") from None
    except Exception as error:
        # weights_only refuses anything but tensors with pickle's own error, which has no better type
        if type(error).__name__ != "UnpicklingError":
            raise
        raise InvalidInputError(f"{path} holds more than tensors and is not loaded: save a state_dict") from None
    nested = [state[key] for key in NESTED if isinstance(state, Mapping) and key in state]
    for candidate in (state, *nested):
        if isinstance(candidate, Mapping) and candidate and all(_is_named_tensor(*one) for one in candidate.items()):
            return _finite(candidate, path)
    held = f"; it holds {_some([str(key) for key in state])}" if isinstance(state, Mapping) and state else ""
    raise InvalidInputError(f"{path} holds no state_dict (a mapping of names to tensors){held}")


def _is_named_tensor(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def _finite(state: Mapping[str, Tensor], path: Path) -> Mapping[str, Tensor]:
    for key, value in state.items():
        if not value.isfinite().all():
            raise InvalidInputError(
                f"{path} holds numbers that are not finite, first in '{key}': a training diverged"
            )
    return state


def load_weights(module: nn.Module, state: Mapping[str, Tensor], origin: str) -> tuple[str, ...]:
    """Copy ``state`` into ``module``; only the classifier may be missing or have another number of classes.

    Returns:
        The classifier's keys that keep their initial values.

    Raises:
        InvalidInputError: any other key is missing, unknown or of another shape; the keys are listed.
    """
    own = module.state_dict()
    state = _named_as(own, state)
    head = _classifier(module)
    in_head = {key for key in own.keys() | state.keys() if key == head or key.startswith(f"{head}.")}
    counted = {key for key in own if not key.endswith("num_batches_tracked")}  # older files lack these
    wrong = {
        "missing": sorted(counted - state.keys() - in_head),
        "unknown": sorted(state.keys() - own.keys() - in_head),
        "of another shape": sorted(
            key for key in own.keys() & state.keys() - in_head if own[key].shape != state[key].shape
        ),
    }
    if any(wrong.values()):
        listed = "; ".join(f"{len(keys)} keys {what} ({_some(keys)})" for what, keys in wrong.items() if keys)
        size = any("pos" in key for key in wrong["of another shape"])
        hint = "; position embeddings of another shape belong to another image size" if size else ""
        raise InvalidInputError(f"{origin} are weights of another network: {listed}{hint}")
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    module.load_state_dict(fitting, strict=False)
    return tuple(sorted(own.keys() - fitting.keys()))


def _named_as(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A file's tensors by the network's own names: without the names of wrappers, and without auxiliary heads.

    Of the ways to name them the one that most of the network's names agree with; as they are, where several do.
    """
    unwrapped = {".".join(part for part in key.split(".") if part not in WRAPPERS): key for key in state}
    first = next(iter(unwrapped), "").split(".")
    prefixes = ["".join(f"{part}." for part in first[:depth]) for depth in range(len(first))]
    named = [dict(state)]
    named += [{key.removeprefix(prefix): state[old] for key, old in unwrapped.items()} for prefix in prefixes]
    best = max(named, key=lambda tensors: len(tensors.keys() & own.keys()))
    return {key: value for key, value in best.items() if key in own or not key.startswith(AUXILIARY_HEADS)}


def _classifier(module: nn.Module) -> str:
    """The last child with parameters: what a change of the number of classes replaces; empty where there is none.

    Of a network in a wrapper, that of the network.
    """
    children = [
        (name, child) for name, child in module.named_children() if next(child.parameters(), None) is not None
    ]
    if not children:
        return ""
    name, child = children[-1]
    own = next(module.parameters(recurse=False), None) is not None
    inner = _classifier(child) if len(children) == 1 and not own else ""
    return f"{name}.{inner}" if inner else name


def _some(keys: list[str], most: int = 4) -> str:
    return ", ".join(keys[:most]) + (", ..." if len(keys) > most else "")
