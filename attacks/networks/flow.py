"""A small flow of pictures: the velocity that carries noise to the adversary's photos."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS, WIDER = 3, 2
"""Halvings of the grid at most, and how many times wider the deeper ones are than the first."""
SMALLEST_GRID = 4
"""Cells along the shorter side where halving ends."""
PATCH = 2
"""Pixels along the side of a cell of the first grid."""
FREQUENCIES = 16
"""Pairs of sine and cosine that tell the time."""
LEAST_SPREAD = 0.02
"""Of a pixel over photos: where they hardly vary a small error must not count for much."""


class Velocity(nn.Module):
    """Points between noise and pictures (n, 3, height, width), times (n,) in [0, 1] -> velocity of the same shape.

    At time t stands t x + (1 - t) e, for a picture x in [-1, 1] and noise e of N(0, 1); the velocity is the mean of
    x - e over all pairs that pass there (Lipman et al., Flow Matching for Generative Modeling, ICLR 2023). A U-Net
    adds to what would be right if each pixel were Gaussian by itself, see ``begin_from``: so it needs to learn only
    how pixels hang together.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, height: int, width_px: int, width: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(3, height, width_px))
        self.register_buffer("spread", torch.ones(3, height, width_px))
        rows, columns = -(-height // PATCH), -(-width_px // PATCH)
        halvings = max(0, min(LEVELS, round(math.log2(min(rows, columns) / SMALLEST_GRID))))
        widths = [width, *[WIDER * width] * halvings]
        self.padding = (0, columns * PATCH - width_px, 0, rows * PATCH - height)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        self.first = nn.Conv2d(3 * PATCH**2, width, 3, padding=1)
        # convolutions look the same everywhere: this tells them where they are
        self.place = nn.Parameter(torch.zeros(width, rows, columns))
        self.levels = _Level(widths, 4 * width)
        self.last = nn.Conv2d(width, 3 * PATCH**2, 3, padding=1)
        for begins_at_nothing in self.last.parameters():
            nn.init.zeros_(begins_at_nothing)

    @torch.no_grad()
    def begin_from(self, batches: Iterable[Tensor]) -> None:
        """Begin with the mean and the spread of each pixel over these images, (n, 3, height, width) in [0, 1]."""
        total, count = torch.zeros_like(self.centre, dtype=torch.float64), 0
        squares = torch.zeros_like(total)
        for images in batches:
            values = to_signed(images.to(total.device)).double()
            total, squares, count = total + values.sum(0), squares + values.square().sum(0), count + len(values)
        mean = total / count
        self.centre.copy_(mean)
        self.spread.copy_((squares / count - mean.square()).clamp_min(LEAST_SPREAD**2).sqrt())

    def forward(self, points: Tensor, times: Tensor) -> Tensor:
        """Velocity."""
        time = times[:, None, None, None]
        variance = self.spread.square()
        passing = (time * variance - (1 - time)) / (time.square() * variance + (1 - time).square())
        alone = self.centre + passing * (points - time * self.centre)
        cells = F.pixel_unshuffle(F.pad(points, self.padding), PATCH)
        maps = self.levels(self.first(cells) + self.place, self.time(_told(times)))
        together = F.pixel_shuffle(self.last(F.silu(maps)), PATCH)
        height, width = points.shape[2:]
        velocity: Tensor = alone + together[:, :, :height, :width]
        return velocity

    def picture(self, points: Tensor, times: Tensor) -> Tensor:
        """The mean of the pictures, in [-1, 1] but for errors, on whose way from noise these points lie."""
        pictures: Tensor = points + (1 - times)[:, None, None, None] * self(points, times)
        return pictures


def to_signed(images: Tensor) -> Tensor:
    """Images in [0, 1] to [-1, 1], where a flow has them."""
    return 2 * images - 1


def _told(times: Tensor) -> Tensor:
    """Times (n,) as sines and cosines, (n, 2 FREQUENCIES)."""
    angles = times[:, None] * torch.exp(torch.linspace(0, math.log(200.0), FREQUENCIES, device=times.device))
    return torch.cat([angles.sin(), angles.cos()], 1)


class _Level(nn.Module):
    """A grid of a U-Net (Ronneberger, Fischer, Brox, MICCAI 2015), and those below it."""

    def __init__(self, widths: list[int], told: int) -> None:
        super().__init__()
        width, *deeper = widths
        self.before, self.after = _Block(width, told), _Block(width, told)
        self.down = nn.Conv2d(width, deeper[0], 3, stride=2, padding=1) if deeper else None
        self.below = _Level(deeper, told) if deeper else None
        self.up = nn.Conv2d(deeper[0], width, 1) if deeper else None

    def forward(self, maps: Tensor, told: Tensor) -> Tensor:
        maps = self.before(maps, told)
        if self.down and self.below and self.up:
            below = self.up(self.below(self.down(maps), told))
            maps = maps + F.interpolate(below, maps.shape[2:])
        enriched: Tensor = self.after(maps, told)
        return enriched


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; the time scales and shifts what lies between them."""

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(8, width), nn.GroupNorm(8, width)])
        self.layers = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(2)])
        self.time = nn.Linear(told, 2 * width)
        nn.init.zeros_(self.layers[1].weight)  # type: ignore[arg-type]

    def forward(self, maps: Tensor, told: Tensor) -> Tensor:
        between = self.layers[0](F.silu(self.norms[0](maps)))
        scale, shift = self.time(told)[:, :, None, None].chunk(2, 1)
        between = self.norms[1](between) * (1 + scale) + shift
        maps = maps + self.layers[1](F.silu(between))
        return maps
