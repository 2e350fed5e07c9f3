"""Releases on one scale: the first layer of our networks."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from splitleak.attacks.grid import as_grid, grid_shape

LEAST_SHARE = 0.01
"""Of the features' mean variance: one that hardly varies must not become the loudest."""

Arrived = Callable[[Tensor], Tensor]
"""Release (n, ...) -> bool of its shape, false where the defence left the place of a feature empty."""


class Standardised(nn.Module):
    """Release (n, ...) -> grid (n, channels, rows, columns): each feature less its mean, in standard deviations.

    Until ``begin_from`` features are as they are. With ``arrived`` a blank is no value: mean and deviation are of
    what arrived, and the mean stands where nothing did.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, release_shape: tuple[int, ...], arrived: Arrived | None = None) -> None:
        super().__init__()
        self.arrived = arrived
        self.channels = grid_shape(release_shape)[0]
        self.register_buffer("centre", torch.zeros(release_shape))
        self.register_buffer("spread", torch.ones(release_shape))

    @torch.no_grad()
    def begin_from(self, batches: Iterable[Tensor]) -> None:
        """Take mean and standard deviation over these releases (n, ...)."""
        total, squares, counts = (torch.zeros_like(self.centre, dtype=torch.float64) for _ in range(3))
        for release in batches:
            values = release.to(total.device).double()
            there = torch.ones_like(values) if self.arrived is None else self.arrived(release).to(values)
            total, squares = total + (values * there).sum(0), squares + (values.square() * there).sum(0)
            counts = counts + there.sum(0)
        mean = total / counts.clamp_min(1)
        variance = (squares / counts.clamp_min(1) - mean.square()).clamp_min(0)
        self.centre.copy_(mean)
        self.spread.copy_((variance + LEAST_SHARE * variance.mean()).sqrt())
        self.spread[self.spread == 0] = 1

    def forward(self, release: Tensor) -> Tensor:
        """Standardise."""
        values = (release - self.centre) / self.spread
        return as_grid(values if self.arrived is None else values * self.arrived(release))
