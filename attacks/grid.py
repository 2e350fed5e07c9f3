"""Releases of any network as a grid of feature cells."""

import math

import torch
from torch import Tensor


def as_grid(release: Tensor) -> Tensor:
    """Release (n, ...) as (n, channels, rows, columns).

    Feature maps stay as they are; tokens (n, t, d) become a square grid (a class token in front is left out);
    anything else is a single cell.
    """
    if release.ndim == 4:
        return release
    if release.ndim == 3:
        side = math.isqrt(release.shape[1])
        surplus = release.shape[1] - side**2
        if surplus in (0, 1) and side > 1:
            grid: Tensor = release[:, surplus:].transpose(1, 2).unflatten(2, (side, side))
            return grid
    return release.flatten(1)[:, :, None, None]


def grid_shape(release_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, rows, columns) of a release of this shape."""
    channels, rows, columns = as_grid(torch.empty(1, *release_shape, device="meta")).shape[1:]
    return channels, rows, columns


def of_tokens(release_shape: tuple[int, ...]) -> bool:
    """Whether the places of the grid are a transformer's tokens."""
    return len(release_shape) == 2 and grid_shape(release_shape)[1] > 1


def channels_and_doublings(release_shape: tuple[int, ...], height: int, width: int) -> tuple[int, int]:
    """Channels of a release's grid, and how often its sides must double to come nearest to the image's."""
    channels, rows, columns = grid_shape(release_shape)
    return channels, max(0, round(math.log2(max(height / rows, width / columns))))
