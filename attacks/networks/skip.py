"""The network of the deep image prior: a small U-Net whose untrained weights already prefer pictures."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS, DEEPEST = 6, 8
"""Halvings at most, and how much wider the deepest is than the first: published 16, 32, 64, 128, 128, 128."""
SKIP = 4
"""Channels that go around each halving, as published."""
SMALLEST_GRID = 4
"""Cells along the shorter side where halving ends."""


class SkipNetwork(nn.Module):
    """Noise (n, channels, h, w) -> images (n, 3, h, w) in [0, 1], of any size from 8 px.

    An hourglass with thin skip connections (Ulyanov, Vedaldi, Lempitsky, Deep Image Prior, CVPR 2018).
    Normalisation takes its statistics from each image alone, as batch normalisation does where a network sees a
    single image.
    """

    def __init__(self, height: int, width: int, channels: int) -> None:
        super().__init__()
        halvings = min(LEVELS, max(1, round(math.log2(min(height, width) / SMALLEST_GRID))))
        self.hourglass = _Level(channels, [channels * min(2**level, DEEPEST) for level in range(halvings)])
        self.colours = nn.Conv2d(channels, 3, 1)

    def forward(self, noise: Tensor) -> Tensor:
        """Paint."""
        return torch.sigmoid(self.colours(self.hourglass(noise)))


class _Level(nn.Module):
    """One halving and what lies below it; the output has the input's channels and grid."""

    def __init__(self, source: int, widths: list[int]) -> None:
        super().__init__()
        width, *deeper = widths
        self.skip = _convolution(source, SKIP, kernel=1)
        below = [_Level(width, deeper)] if deeper else []
        # down to the source's channels before the grid doubles: the convolution up there is the dearest
        self.below = nn.Sequential(
            _convolution(source, width, stride=2), _convolution(width, width), *below, _convolution(width, source, 1)
        )
        self.join = _convolution(source + SKIP, source)

    def forward(self, x: Tensor) -> Tensor:
        below = F.interpolate(self.below(x), x.shape[2:])
        joined: Tensor = self.join(torch.cat([self.skip(x), below], 1))
        return joined


def _convolution(source: int, target: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(source, target, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.InstanceNorm2d(target, affine=True),
        nn.LeakyReLU(0.2),
    )
