"""The network of the deep image prior: a small U-Net whose untrained weights already prefer pictures."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (16, 32, 64, 128, 128, 128)
"""At each halving of the grid, as published."""
SKIP = 4
INPUT = 16
"""Channels of noise."""
SMALLEST_GRID = 4


class SkipNetwork(nn.Module):
    """Noise (n, 16, h, w) -> images (n, 3, h, w) in [0, 1], of any size from 8 px.

    An hourglass with thin skip connections (Ulyanov, Vedaldi, Lempitsky, Deep Image Prior, CVPR 2018): the grid is
    halved until its shorter side is about 4. Normalisation takes its statistics from each image alone, as batch
    normalisation does where a network sees a single image.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        halvings = max(1, round(math.log2(min(height, width) / SMALLEST_GRID)))
        channels = [CHANNELS[min(level, len(CHANNELS) - 1)] for level in range(halvings)]
        self.hourglass = _Level(INPUT, channels)
        self.colours = nn.Conv2d(channels[0], 3, 1)

    def forward(self, noise: Tensor) -> Tensor:
        """Paint."""
        return torch.sigmoid(self.colours(self.hourglass(noise)))


class _Level(nn.Module):
    """One halving and what lies below it; the output has the input's grid."""

    def __init__(self, source: int, channels: list[int]) -> None:
        super().__init__()
        width, *deeper = channels
        self.skip = _convolution(source, SKIP, kernel=1)
        self.down = nn.Sequential(
            _convolution(source, width, stride=2),
            _convolution(width, width),
            *([_Level(width, deeper)] if deeper else []),
        )
        below = deeper[0] if deeper else width
        self.joined = nn.InstanceNorm2d(SKIP + below, affine=True)
        self.up = nn.Sequential(_convolution(SKIP + below, width), _convolution(width, width, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        below = F.interpolate(self.down(x), x.shape[2:])
        return self.up(self.joined(torch.cat([self.skip(x), below], 1)))


def _convolution(source: int, target: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(source, target, kernel, stride=stride, padding=kernel // 2),
        nn.InstanceNorm2d(target, affine=True),
        nn.LeakyReLU(0.2),
    )
