"""LPIPS: how different two images look to a network trained on photos (Zhang et al., CVPR 2018)."""

import re
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor, nn

# the public class downloads the backbone when it is made; this is what it wraps
from torchmetrics.functional.image.lpips import _LPIPS

from splitleak.experiments.judge.metrics.pictures import Metric
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.weights import read_weights

LPIPS = "lpips"
"""The metric's name in records."""
BACKBONES = {"alex": "AlexNet", "vgg": "VGG-16", "squeeze": "SqueezeNet 1.1"}
"""Those whose linear heads torchmetrics ships."""


@lru_cache(maxsize=2)
def lpips(weights: str) -> Metric:
    """The metric: (images, reconstructions), (n, 3, h, w) in [0, 1] each -> (n,), 0 for equal, higher for less alike.

    Args:
        weights: file of torchvision's ImageNet weights of AlexNet, VGG-16 or SqueezeNet 1.1, whose features LPIPS
            compares; also looked for in $SPLITLEAK_WEIGHTS.

    Raises:
        InvalidInputError: there is no such file, or it is of another network.
    """
    network = _network(weights, read_weights(weights, "backbone of LPIPS"))

    def metric(images: Tensor, rebuilt: Tensor) -> Tensor:
        with torch.no_grad():
            values: Tensor = network.to(images.device)(
                rebuilt, images, normalize=True
            )  # [0, 1] in, by its one option
        return values.reshape(len(images))

    return metric


def check_lpips(weights: str, size: int) -> None:
    """Find out before anything is computed what would fail later.

    Raises:
        InvalidInputError: no such file, a file of another network, or images too small for it.
    """
    metric, images = lpips(weights), torch.zeros(1, 3, size, size)
    try:
        metric(images, images)
    except RuntimeError:
        raise InvalidInputError(
            f"judge.lpips = '{weights}': images of {size} px are too small for its backbone; 64 px are enough"
        ) from None


def _network(weights: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Heads as published, the backbone from ``state``: told by its keys and shapes."""
    for name in BACKBONES:
        network: nn.Module = _LPIPS(net=name, pnet_rand=True).requires_grad_(False).eval()  # type: ignore[arg-type]
        own: Mapping[str, Tensor] = network.net.state_dict()  # type: ignore[union-attr]
        # slice2.3.weight, in one of them slices.1.3.weight, is features.3.weight in torchvision
        places = {key: re.sub(r"^(slice\d+|slices\.\d+)", "features", key) for key in own}
        if all(place in state and state[place].shape == own[key].shape for key, place in places.items()):
            network.net.load_state_dict({key: state[place] for key, place in places.items()})  # type: ignore[union-attr]
            return network
    raise InvalidInputError(
        f"judge.lpips = '{weights}': holds none of torchvision's {', '.join(BACKBONES.values())}; "
        "give the weights file of one of them"
    )
