"""The seed study's decoders, exactly as published: they end in ReLU and answer in ImageNet-normalised space.

Source: P. Nagasubramaniam, Image Reconstruction Attacks in Distributed DL Systems using Autoencoders, 2023.
A decoder that ends in ReLU on normalised targets cannot rebuild any pixel darker than the ImageNet mean. It is
kept as the reference that stronger attacks are measured against.
"""

from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def upsample_decoder(channels: int) -> nn.Sequential:
    """1x1 convolutions, each but the last followed by normalisation, h-swish and bicubic upsampling by two.

    Release (n, channels, h, w) -> normalised images (n, 3, 16 h, 16 w), never negative.

    A 1x1 convolution mixes channels, upsampling mixes places, and the bicubic weights sum to one, so the two
    commute, bias included. Here each convolution runs before the upsampling that precedes it in the published
    order: the same function at a fraction of the cost.
    """
    layers: list[nn.Module] = []
    for source, width in pairwise((channels, *UPSAMPLE_WIDTHS)):
        layers.append(nn.Conv2d(source, width, 1))
        if source != channels:
            layers.append(BicubicDouble())
        layers += _normalise_and_activate(width, last=width == 3)
    return nn.Sequential(*layers)


class BicubicDouble(nn.Module):
    """(n, c, h, w) -> (n, c, 2h, 2w): torch's bicubic upsampling as one matrix product per axis."""

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge by two."""
        count, channels, height, width = x.shape
        vertical, horizontal = (_bicubic_matrix(side, x.device, x.dtype) for side in (height, width))
        # one large product along the rows; one for each map along the columns
        rows = x.reshape(-1, width) @ horizontal.T
        maps = vertical.expand(count * channels, -1, -1) @ rows.view(count * channels, height, 2 * width)
        return maps.view(count, channels, 2 * height, 2 * width)


@lru_cache(maxsize=64)
@torch.no_grad()
def _bicubic_matrix(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(2 side, side): what bicubic upsampling does to each unit vector."""
    units = torch.eye(side, device=device)[None, None]
    # along one axis only; align_corners is False, as in the published layers
    return F.interpolate(units, (2 * side, side), mode="bicubic")[0, 0].to(dtype)


def transpose_decoder(channels: int, depth: str) -> nn.Sequential:
    """Transposed convolutions whose kernel equals their stride; ``depth``: light, medium or deep.

    Release (n, channels, h, w) -> normalised images (n, 3, 16 h, 16 w), never negative.
    """
    layers: list[nn.Module] = []
    for width, kernel in TRANSPOSE_LAYERS[depth]:
        layers.append(nn.ConvTranspose2d(channels, width, kernel, stride=kernel))
        layers += _normalise_and_activate(width, last=width == 3)
        channels = width
    return nn.Sequential(*layers)


def _normalise_and_activate(width: int, last: bool) -> list[nn.Module]:
    normalisation = nn.BatchNorm2d(width, eps=EPSILON, momentum=MOMENTUM)
    return [normalisation, nn.ReLU() if last else nn.Hardswish()]
