"""A victim with a known optimum: Gaussian images, a linear encoder, Gaussian noise on what it sends.

For it the best reconstruction under squared error is the posterior mean, and its error has a closed form: every
attack must come near it, and none may beat it.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from splitleak.victims.seeding import seeded

PATCH, GRID, CHANNELS = 8, 2, 24
MEAN, DEVIATION = 0.5, 0.08
"""Of a pixel: six standard deviations fit into [0, 1], so that clipping hardly ever happens."""
SMOOTHNESS, COLOUR = 2.5, 0.7
"""Correlation length in pixels, and the correlation between the colours of one pixel."""


@dataclass(frozen=True)
class GaussianVictim:
    """Images of independent patches, each drawn from one Gaussian; a strided convolution sees one patch a cell.

    ``sigma``: standard deviation of the noise, in units of the features' own.
    """

    sigma: float = 0.3

    @cached_property
    def covariance(self) -> Tensor:
        """Of one patch's pixels (channel, row, column), float64 (d, d)."""
        places = torch.cartesian_prod(torch.arange(PATCH), torch.arange(PATCH)).double()
        space = torch.exp(-torch.cdist(places, places).square() / (2 * SMOOTHNESS**2))
        colour = torch.full((3, 3), COLOUR, dtype=torch.float64) + (1 - COLOUR) * torch.eye(3, dtype=torch.float64)
        return DEVIATION**2 * torch.kron(colour, space)

    @cached_property
    def encoder(self) -> nn.Module:
        """Images (n, 3, 16, 16) -> features (n, 24, 2, 2) of mean 0 and variance 1."""
        with seeded("gaussian encoder"):
            convolution = nn.Conv2d(3, CHANNELS, PATCH, stride=PATCH)
        with torch.no_grad():
            weight = convolution.weight.flatten(1).double()
            deviation = (weight @ self.covariance @ weight.T).diagonal().sqrt()
            convolution.weight /= deviation.float()[:, None, None, None]
            convolution.bias = nn.Parameter(-MEAN * convolution.weight.sum((1, 2, 3)))
        return convolution.requires_grad_(False).eval()

    @property
    def edge(self) -> nn.Sequential:
        """The encoder, then noise drawn afresh on each call."""
        return nn.Sequential(self.encoder, _Noise(self.sigma)).eval()

    def images(self, count: int, seed: int) -> Tensor:
        """Drawn from the prior, (count, 3, 16, 16) in [0, 1]."""
        values, vectors = torch.linalg.eigh(self.covariance)
        root = vectors * values.clamp_min(0).sqrt()
        with seeded("gaussian images", seed):
            drawn = torch.randn(count, GRID * GRID, len(root), dtype=torch.float64)
        patches = (MEAN + drawn @ root.T).float().transpose(1, 2)
        size = GRID * PATCH
        return nn.functional.fold(patches, size, PATCH, stride=PATCH).clamp(0, 1)

    @cached_property
    def _gain(self) -> tuple[Tensor, Tensor]:
        """Covariance of pixels and features (d, channels), and the inverse covariance of what is sent."""
        weight = self.encoder.weight.flatten(1).double()  # type: ignore[operator]
        cross = self.covariance @ weight.T
        sent = weight @ cross + self.sigma**2 * torch.eye(CHANNELS, dtype=torch.float64)
        return cross, torch.linalg.inv(sent)

    @property
    def least_error(self) -> float:
        """Mean squared error per pixel of the posterior mean, in closed form."""
        cross, precision = self._gain
        return float((self.covariance - cross @ precision @ cross.T).diagonal().mean())

    def posterior_mean(self, release: Tensor) -> Tensor:
        """The best reconstruction: release (n, 24, 2, 2) -> images (n, 3, 16, 16)."""
        cross, precision = self._gain
        patches = MEAN + (cross @ precision) @ release.double().flatten(2)
        return nn.functional.fold(patches.float(), GRID * PATCH, PATCH, stride=PATCH).clamp(0, 1)


class _Noise(nn.Module):
    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, features: Tensor) -> Tensor:
        return features + self.sigma * torch.randn_like(features)
