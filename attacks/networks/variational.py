"""A variational autoencoder of photos: its decoder is a generator that is small enough to train on one's own."""

import math

import torch
from torch import Tensor, nn

from attacks.grid import as_grid
from attacks.networks.residual import ResidualDecoder

FIRST_GRID = 4
"""Cells along the shorter side of the generator's first grid, and at most so many of the encoder's last."""


class Generator(nn.Module):
    """Latent (n, latent) -> images (n, 3, height, width) in [0, 1], of any size from 16 px.

    A linear layer paints feature maps on a small grid, the intermediate activations; a residual decoder enlarges
    them. ``width``: channels of that grid.
    """

    def __init__(self, latent: int, height: int, width_px: int, width: int) -> None:
        super().__init__()
        doublings = max(0, round(math.log2(min(height, width_px) / FIRST_GRID)))
        self.grid = (width, -(-height >> doublings), -(-width_px >> doublings))
        self.first = nn.Linear(latent, math.prod(self.grid))
        self.rest = ResidualDecoder(self.grid, height, width_px, width)

    def activations(self, latent: Tensor) -> Tensor:
        """Latent (n, latent) -> feature maps (n, width, rows, columns)."""
        return self.first(latent).unflatten(1, self.grid)

    def paint(self, activations: Tensor) -> Tensor:
        """Feature maps -> images."""
        images: Tensor = self.rest(activations)
        return images

    def forward(self, latent: Tensor) -> Tensor:
        """Generate."""
        return self.paint(self.activations(latent))


class GridEncoder(nn.Module):
    """Images or releases of any shape (n, ...) -> (n, outputs)."""

    def __init__(self, shape: tuple[int, ...], width: int, outputs: int) -> None:
        super().__init__()
        channels, rows, columns = as_grid(torch.empty(1, *shape, device="meta")).shape[1:]
        halvings = max(0, math.ceil(math.log2(min(rows, columns) / FIRST_GRID)))
        narrow = max(16, width >> halvings)
        layers: list[nn.Module] = [*_convolution(channels, narrow)]
        for _ in range(halvings):
            wider = min(width, 2*narrow)
            layers += _convolution(narrow, wider, stride=2)
            narrow = wider
        layers += _convolution(narrow, narrow)
        cells = -(-rows >> halvings) * -(-columns >> halvings)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(narrow * cells, outputs))

    def forward(self, release: Tensor) -> Tensor:
        """Encode."""
        encoded: Tensor = self.layers(as_grid(release))
        return encoded


def _convolution(source: int, target: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(source, target, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(target),
        nn.LeakyReLU(0.2),
    ]
