"""Releases on one scale: the first layer of our networks."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

LEAST_SHARE = 0.01
"""Of the features' mean variance: one that hardly varies must not become the loudest."""


class Standardised(nn.Module):
    """Release (n, ...) -> each feature less its mean, in standard deviations; as it is until ``begin_from``."""

    centre: Tensor
    spread: Tensor

    def __init__(self, release_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(release_shape))
        self.register_buffer("spread", torch.ones(release_shape))

    @torch.no_grad()
    def begin_from(self, batches: Iterable[Tensor]) -> None:
        """Take mean and standard deviation over these releases (n, ...)."""
        total, count = torch.zeros_like(self.centre, dtype=torch.float64), 0
        squares = torch.zeros_like(total)
        for release in batches:
            values = release.to(total.device).double()
            total, squares, count = total + values.sum(0), squares + values.square().sum(0), count + len(values)
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        self.centre.copy_(mean)
        self.spread.copy_((variance + LEAST_SHARE * variance.mean()).sqrt())
        self.spread[self.spread == 0] = 1

    def forward(self, release: Tensor) -> Tensor:
        """Standardise."""
        return (release - self.centre) / self.spread
