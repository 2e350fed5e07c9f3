"""ImageNet-normalised space, in which decoders from the literature answer."""

import torch
from torch import Tensor

from splitleak.victims.models import IMAGENET_MEAN, IMAGENET_STD


def normalise(images: Tensor) -> Tensor:
    """Images (n, 3, h, w) in [0, 1] to the space in which such decoders are trained."""
    return (images - _channel(IMAGENET_MEAN, images)) / _channel(IMAGENET_STD, images)


def unnormalise(output: Tensor) -> Tensor:
    """A decoder's output (n, 3, h, w) back to images, clipped to [0, 1]."""
    return (output * _channel(IMAGENET_STD, output) + _channel(IMAGENET_MEAN, output)).clamp(0, 1)


def _channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]
