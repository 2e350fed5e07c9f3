"""Copies of photos, each moved a little: what an attacker who may query the device shows it beside its own photos."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE, TURN, SHIFT = 0.05, math.radians(3.4), 0.02
"""Largest change of size, largest angle, and largest shift as a share of the side, each to either side."""
GAIN, OFFSET = 0.10, 0.05
"""Largest change of contrast and of brightness, to either side."""


def moved(images: Tensor) -> Tensor:
    """Images (n, 3, h, w) in [0, 1], each turned, scaled, shifted and lit a little otherwise, half of them mirrored.

    Drawn from torch's global state. What comes into the picture is what lay at its border, reflected.
    """
    count = len(images)
    size = 1 + _either(count, SCALE)
    angle = _either(count, TURN)
    flip = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    across, down = _either(count, 2 * SHIFT), _either(count, 2 * SHIFT)  # a side is 2 in a grid's units
    rows = torch.stack(
        [
            torch.stack([flip * size * angle.cos(), -size * angle.sin(), across], 1),
            torch.stack([flip * size * angle.sin(), size * angle.cos(), down], 1),
        ],
        1,
    )
    grid = F.affine_grid(rows.to(images), list(images.shape), align_corners=False)
    seen = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    gain, offset = (1 + _either(count, GAIN)).to(images), _either(count, OFFSET).to(images)
    return (seen * gain[:, None, None, None] + offset[:, None, None, None]).clamp(0, 1)


def _either(count: int, most: float) -> Tensor:
    return most * (2 * torch.rand(count) - 1)
