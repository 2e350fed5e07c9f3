"""What a reader sees of the inside of an attack: the maps that were sent, and the picture after each stage."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.utils import make_grid

from splitleak.attacks.grid import as_grid
from splitleak.victims.tensors import to_bytes

MAPS, MAPS_PER_ROW = 48, 8
"""The most active ones are shown."""
REACH = 3.0
"""Standard deviations of the first component between mid-grey and the brightest."""


@dataclass(frozen=True)
class Opened:
    """A decoder while it answers: shapes without the batch, of the release and of each stage, and pictures, uint8.

    ``maps``: (k, rows, columns); ``stages``: (k, 3, h, w), the answer last.
    """

    release: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    maps: Tensor
    stages: Tensor

    @classmethod
    def of(cls, release: Tensor, stages: Sequence[Tensor]) -> "Opened | None":
        """Of one release (1, ...) and what the stages make of it; None of an attack without stages."""
        if not stages:
            return None
        shapes = tuple(tuple(maps.shape[1:]) for maps in stages)
        return cls(tuple(release.shape[1:]), shapes, active_maps(release), stage_pictures(stages))


def mosaic(maps: Tensor) -> Tensor:
    """Maps (k, rows, columns) on one picture (3, h, w), uint8."""
    picture: Tensor = make_grid(maps[:, None], MAPS_PER_ROW, padding=1, pad_value=255)
    return picture


def active_maps(release: Tensor) -> Tensor:
    """The maps of one release (1, ...) that vary most, uint8 (k, rows, columns), each from its least to its most.

    They stand in the order of the release: in that of how much they vary, rounding would swap two that vary alike.
    """
    maps = as_grid(release)[0].float().cpu()
    most = maps.flatten(1).std(1, correction=0).argsort(descending=True, stable=True)[:MAPS].sort().values
    shown = maps[most] - maps[most].amin((1, 2), keepdim=True)
    return to_bytes(shown / shown.amax((1, 2), keepdim=True).clamp_min(torch.finfo(shown.dtype).tiny))


def stage_pictures(stages: Sequence[Tensor]) -> Tensor:
    """Of the stages of one image, uint8 (k, 3, h, w): the images that the last holds, of others their components."""
    size = stages[-1].shape[2:]
    pictures = [*map(components, stages[:-1]), stages[-1].cpu()]
    return to_bytes(torch.cat([F.interpolate(picture, size) for picture in pictures]))


def components(maps: Tensor) -> Tensor:
    """The first three principal components over the places of maps (1, channels, rows, columns) as red, green, blue.

    In [0, 1], (1, 3, rows, columns), all on the scale of the first: a lesser component gives less colour. Of either
    sign of a component the one whose greatest weight is positive.
    """
    grid = maps.shape[2:]
    values = maps[0].double().cpu().flatten(1)
    values = values - values.mean(1, keepdim=True)
    _, weights = torch.linalg.eigh(values @ values.T)
    first = weights.flip(1)[:, :3]
    first = first * first.gather(0, first.abs().argmax(0, keepdim=True)).sign()
    found = torch.zeros(3, *grid, dtype=torch.float64)
    found[: first.shape[1]] = (first.T @ values).unflatten(1, grid)
    spread = found[0].std(correction=0).clamp_min(torch.finfo(torch.float64).tiny)
    return (0.5 + found / spread / REACH / 2).clamp(0, 1).float()[None]
