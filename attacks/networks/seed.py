"""The seed study's decoders, exactly as published: they end in ReLU and answer in ImageNet-normalised space.

Source: P. Nagasubramaniam, Image Reconstruction Attacks in Distributed DL Systems using Autoencoders, 2023.
A decoder that ends in ReLU on normalised targets cannot rebuild any pixel darker than the ImageNet mean. It is
kept as the reference that stronger attacks are measured against.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from victims.models import IMAGENET_MEAN, IMAGENET_STD

EPSILON, MOMENTUM = 1e-3, 0.01  # of batch normalisation, as published
STRIDE = 16
"""The decoders enlarge 16 times, whatever the release: they were made for the C4 cut of MobileNetV3-Large."""

UPSAMPLE_WIDTHS = (112, 480, 80, 16, 3)
TRANSPOSE_LAYERS = {
    "light": ((16, 4), (3, 4)),
    "medium": ((112, 1), (80, 2), (80, 2), (16, 1), (16, 4), (3, 1)),
    "deep": ((112, 1), (112, 2), (480, 1), (480, 2), (80, 1), (80, 2), (16, 1), (16, 2), (3, 1)),
}
"""(output channels, kernel = stride) of each transposed convolution."""


def normalise(images: Tensor) -> Tensor:
    """Images in [0, 1] to the space in which the seed's decoders are trained."""
    return (images - _channel(IMAGENET_MEAN, images)) / _channel(IMAGENET_STD, images)


def unnormalise(output: Tensor) -> Tensor:
    """A decoder's output back to images, clipped to [0, 1]."""
    return (output * _channel(IMAGENET_STD, output) + _channel(IMAGENET_MEAN, output)).clamp(0, 1)


def _channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]


def upsample_decoder(channels: int) -> nn.Sequential:
    """1x1 convolutions, each but the last followed by bicubic upsampling by two.

    Release (n, channels, h, w) -> normalised images (n, 3, 16 h, 16 w), never negative.
    """
    layers: list[nn.Module] = []
    for source, width in pairwise((channels, *UPSAMPLE_WIDTHS)):
        layers += [*_block(nn.Conv2d(source, width, 1), last=width == 3)]
        if width != 3:
            layers.append(nn.Upsample(scale_factor=2, mode="bicubic"))
    return nn.Sequential(*layers)


def transpose_decoder(channels: int, depth: str) -> nn.Sequential:
    """Transposed convolutions whose kernel equals their stride; ``depth``: light, medium or deep.

    Release (n, channels, h, w) -> normalised images (n, 3, 16 h, 16 w), never negative.
    """
    layers: list[nn.Module] = []
    for width, kernel in TRANSPOSE_LAYERS[depth]:
        layers += _block(nn.ConvTranspose2d(channels, width, kernel, stride=kernel), last=width == 3)
        channels = width
    return nn.Sequential(*layers)


def _block(convolution: nn.Conv2d | nn.ConvTranspose2d, last: bool) -> list[nn.Module]:
    normalisation = nn.BatchNorm2d(convolution.out_channels, eps=EPSILON, momentum=MOMENTUM)
    return [convolution, normalisation, nn.ReLU() if last else nn.Hardswish()]
