"""A variational autoencoder of photos: its decoder is a generator that is small enough to train on one's own."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.attacks.grid import as_grid, grid_shape
from splitleak.attacks.networks.residual import NARROWEST, ResidualDecoder

FIRST_GRID = 4
"""Cells along the shorter side of the generator's first grid, and at most so many of an encoder's last."""
WIDEST = 128
"""Channels of a latent encoder, at most."""
LOGARITHMS = (-10.0, 4.0)
"""Between which the logarithm of a posterior's variance is kept, so that its exponential stays finite."""


class Generator(nn.Module):
    """Latent (n, latent) -> images (n, 3, height, width) in [0, 1], of any size from 16 px.

    A linear layer makes ``channels`` feature maps on a small grid, the activations; a residual decoder enlarges
    them.
    """

    def __init__(self, latent: int, height: int, width: int, channels: int) -> None:
        super().__init__()
        doublings = max(0, round(math.log2(min(height, width) / FIRST_GRID)))
        self.grid = (channels, -(-height >> doublings), -(-width >> doublings))
        self.first = nn.Linear(latent, math.prod(self.grid))
        self.rest = ResidualDecoder(self.grid, height, width, channels)

    def activations(self, latent: Tensor) -> Tensor:
        """Latent (n, latent) -> feature maps (n, channels, rows, columns)."""
        activations: Tensor = self.first(latent).unflatten(1, self.grid)
        return activations

    @property
    def depth(self) -> int:
        """How many inner layers there are: the activations, number 0, and one after each doubling but the last."""
        return len(self.rest.stages)

    def deeper(self, maps: Tensor, layer: int) -> Tensor:
        """Feature maps of an inner layer -> of the next."""
        next_maps: Tensor = self.rest.stages[layer](maps if layer else self.rest.standard(maps))
        return next_maps

    def paint(self, maps: Tensor, layer: int = 0) -> Tensor:
        """Feature maps (n, channels, rows, columns) of an inner layer -> images."""
        for passed in range(layer, self.depth):
            maps = self.deeper(maps, passed)
        return self.rest.painted(maps)

    def forward(self, latent: Tensor) -> Tensor:
        """Latent -> images."""
        return self.paint(self.activations(latent))


class LatentEncoder(nn.Module):
    """Images, or releases of any shape (n, ...) -> (n, outputs)."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        channels, rows, columns = grid_shape(shape)
        layers: list[nn.Module] = []
        while max(rows, columns) > FIRST_GRID:
            wider = min(WIDEST, max(NARROWEST, 2 * channels))
            layers += _convolution(channels, wider, stride=2)
            channels, rows, columns = wider, -(-rows // 2), -(-columns // 2)
        layers += _convolution(channels, WIDEST)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDEST * rows * columns, outputs))

    def forward(self, shown: Tensor) -> Tensor:
        """Images or releases -> numbers."""
        encoded: Tensor = self.layers(as_grid(shown))
        return encoded


class Autoencoder(nn.Module):
    """Images (n, 3, height, width) in [0, 1] and noise (n, latent) from N(0, 1) -> the bound that training lowers, a
    scalar.

    Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014, with the pixels' noise at its optimum instead of
    a weight between picture and prior (Rybkin et al., Simple and Effective VAE Training with Calibrated Decoders,
    ICML 2021): log of the squared error per pixel / 2 + divergence of the posterior from N(0, 1) per pixel.
    """

    def __init__(self, latent: int, height: int, width: int, channels: int) -> None:
        super().__init__()
        self.encoder = LatentEncoder((3, height, width), 2 * latent)
        self.generator = Generator(latent, height, width, channels)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """Bound, with one latent for each image."""
        mean, logarithm = self.encoder(images).chunk(2, 1)
        logarithm = logarithm.clamp(*LOGARITHMS)
        rebuilt = self.generator(mean + (logarithm / 2).exp() * noise)
        divergence = (mean.square() + logarithm.exp() - 1 - logarithm).sum(1).mean() / 2
        bound: Tensor = F.mse_loss(rebuilt, images).log() / 2 + divergence / images[0].numel()
        return bound

    def latent_of(self, images: Tensor) -> Tensor:
        """The posterior's mean, (n, latent)."""
        mean: Tensor = self.encoder(images).chunk(2, 1)[0]
        return mean


def _convolution(source: int, target: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(source, target, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(target),
        nn.LeakyReLU(0.2),
    ]
