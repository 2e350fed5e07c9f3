"""Networks by name and their weights."""

import inspect
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
import torchvision
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torchvision.models.vision_transformer import interpolate_embeddings

from splitleak.victims.dense import DETECTORS, SEGMENTERS, dense_network
from splitleak.victims.errors import InvalidInputError, unknown
from splitleak.victims.files import load_module
from splitleak.victims.networks import architectures
from splitleak.victims.weights import AUXILIARY_HEADS, State, in_weights_file, load_weights, read_weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH_NORM_MOMENTUM = 0.1
TIMM = "timm:"
"""How the names of timm's networks begin."""
CLASSES_WITHOUT_TASK = 1000
"""What torchvision's weights have."""
SCRATCH = "scratch"
TRAINED_ON_HALVES = ("googlenet", "inception_v3", *DETECTORS)
"""Networks whose torchvision weights expect mean and standard deviation 0.5."""


@dataclass(frozen=True)
class Network:
    """A network with the statistics that its input is normalised with.

    ``untrained``: names of the tensors that weights left as they were made; ``notes``: what was done to load them.
    """

    module: nn.Module
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    untrained: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def names() -> list[str]:
    """Of ``victims/networks``, and torchvision's that classify, segment or detect (``timm:NAME`` adds timm's)."""
    return [
        *architectures(),
        *sorted([*torchvision.models.list_models(module=torchvision.models), *SEGMENTERS, *DETECTORS]),
    ]


def make_network(model: str, classes: int, size: int, weights: str = SCRATCH) -> Network:
    """Build a network in eval mode.

    Args:
        model: a name of ``victims/networks`` or of torchvision, ``timm:NAME`` (needs the extra ``timm``), or
            ``path/to/file.py:function``, where the function returns the network: a module that takes photos
            normalised with ImageNet's statistics, or a ``Network`` that says otherwise. It is given ``classes`` and
            ``size`` if it takes these parameters.
        classes: number of outputs; of a network that segments or detects (see ``dense``), of what it tells apart.
        size: side of the square input, in pixels; transformers fix their positions to it.
        weights: ``scratch`` (of a network in a file: as its function made them), a torchvision weights name such as
            ``IMAGENET1K_V2``, or the path of a file that safetensors or torch saved; relative paths are also looked
            for in $SPLITLEAK_WEIGHTS, and ``FILE#PART`` takes a part of a checkpoint.

    Raises:
        InvalidInputError: unknown network, missing file, weights of another network, or a function that returns no
            network with numbers in it.
    """
    if in_file(model):
        network = _from_file(model, classes, size)
    elif model.startswith(TIMM):
        network = _from_timm(model, classes, size)
    elif model in architectures():
        network = _from_paper(model, classes, size)
    else:
        network = _from_torchvision(model, classes, size)
    for module in network.module.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            # Some networks average statistics over hundreds of steps, more than a small training has.
            module.momentum = max(module.momentum, BATCH_NORM_MOMENTUM)
    if weights == SCRATCH:
        return network
    own = in_weights_file(weights)
    tensors = read_weights(weights) if own else _torchvision_state(model, weights)
    loaded = load_weights(network.module, tensors, weights, _resizing(model, network.module, size))
    notes = (*network.notes, *loaded.notes)
    if model not in TRAINED_ON_HALVES:
        return Network(network.module, network.mean, network.std, loaded.untrained, notes)
    if own:
        named = f"torchvision's own weights of {model} expect mean and deviation 0.5: name them, not their file"
        return Network(network.module, network.mean, network.std, loaded.untrained, (*notes, named))
    return Network(network.module, (0.5,) * 3, (0.5,) * 3, loaded.untrained, notes)


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
    module, notes = _bare(network.module, model)
    return Network(module, network.mean, network.std, notes=notes)


def _bare(module: nn.Module, model: str) -> tuple[nn.Module, tuple[str, ...]]:
    """A network without what runs it on several devices or compiled, in float32, and what was done to get there."""
    notes = []
    while inner := _inside(module):
        notes.append(f"taken out of its {type(module).__name__}")
        module = inner
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(value, UninitializedParameter | UninitializedBuffer) or value.is_meta:
            raise InvalidInputError(f"{model}: '{name}' has no numbers yet; return a network that has seen a photo")
        if not value.isfinite().all():
            raise InvalidInputError(f"{model}: '{name}' holds numbers that are not finite: a training diverged")
        if value.is_floating_point() and value.dtype != torch.float32:
            notes.append(f"computed in float32, returned in {str(value.dtype).removeprefix('torch.')}")
    return module.cpu().float().eval(), tuple(dict.fromkeys(notes))


def _inside(module: nn.Module) -> nn.Module | None:
    """What is run on several devices or compiled by this module, None where it is a network itself."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        wrapped: nn.Module = module.module
        return wrapped
    return getattr(module, "_orig_mod", None)  # torch.compile's wrapper; its class takes a second to import


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


def _from_paper(model: str, classes: int, size: int) -> Network:
    architecture = architectures()[model]
    if size < architecture.least:
        raise InvalidInputError(f"{model} cannot take {size} px images: at least {architecture.least}")
    return Network(architecture.make(classes, size).eval(), architecture.mean, architecture.std)


def _from_torchvision(model: str, classes: int, size: int) -> Network:
    if model not in names():
        raise unknown("network", model, names())
    if model in (*SEGMENTERS, *DETECTORS):
        return Network(dense_network(model, classes, size))
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


def _resizing(model: str, module: nn.Module, size: int) -> Callable[[State], State] | None:
    """What gives another image size's weights the network's shapes, by the library that the network comes from."""
    if isinstance(module, torchvision.models.VisionTransformer):
        return lambda state: interpolate_embeddings(size, module.patch_size, OrderedDict(state))
    own = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    return (lambda state: dict(own(dict(state), module))) if own and model.startswith(TIMM) else None


def _torchvision_state(model: str, weights: str) -> State:
    if model.startswith(TIMM) or in_file(model) or model in architectures():
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
