"""The inverse network of He, Zhang and Lee: transposed convolutions that answer in ImageNet-normalised space."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.attacks.grid import as_grid, channels_and_doublings

Variant = Literal["published", "batch_norm"]

WIDEST = 256
LEAST_START = 64
"""A release of few channels must not make for a small network: a defence would look strong for that alone."""
NARROWEST = 16
LEAK = 0.2
"""Slope of the later variant's LeakyReLU below zero."""


class InverseNet(nn.Module):
    """Release (n, ...) -> normalised images (n, 3, height, width), any sign.

    One block per doubling of the grid, a transposed convolution and a ReLU, then a transposed convolution to
    three channels that keeps the size and ends without activation. ``variant`` "published": kernel 3 as in
    He, Zhang, Lee, Model Inversion Attacks Against Collaborative Inference, ACSAC 2019. "batch_norm": kernel 4,
    batch normalisation and LeakyReLU, as later studies have it.
    """

    def __init__(self, release_shape: tuple[int, ...], height: int, width: int, variant: Variant) -> None:
        super().__init__()
        channels, doublings = channels_and_doublings(release_shape, height, width)
        self.size = (height, width)
        layers: list[nn.Module] = []
        for target in block_widths(channels, doublings):
            layers += _doubling(channels, target, variant)
            channels = target
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(channels, 3, 3, padding=1))

    def forward(self, release: Tensor) -> Tensor:
        """Decode; a grid that no power of two brings to the image's size is resized at the end."""
        images: Tensor = self.layers(as_grid(release))
        if images.shape[2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear")
        return images


def block_widths(channels: int, doublings: int) -> list[int]:
    """Channels after each doubling: the first of several keeps those of the release, each other one halves them.

    So every block costs about the same. They start between 64 and 256 and never fall below 16. This gives the
    published widths in the published cases: 128, 64 for 128 channels that double twice, 64 for 128 channels that
    double once, and none where the grid has the image's size.
    """
    start = min(max(channels, LEAST_START), WIDEST)
    halvings = [1] if doublings == 1 else range(doublings)
    return [max(start >> halving, NARROWEST) for halving in halvings]


def _doubling(channels: int, width: int, variant: Variant) -> list[nn.Module]:
    if variant == "published":
        return [nn.ConvTranspose2d(channels, width, 3, stride=2, padding=1, output_padding=1), nn.ReLU(inplace=True)]
    return [
        nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.LeakyReLU(LEAK, inplace=True),
    ]
