"""Photos, each moved a little: what a network learns from, and what an attacker shows the device beside its own."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE, TURN, SHIFT = 0.05, math.radians(3.4), 0.02
"""Largest change of size, largest angle, and largest shift as a share of the side, each to either side."""
GAIN, OFFSET = 0.10, 0.05
"""Largest change of contrast and of brightness, to either side."""


def moved(images: Tensor) -> Tensor:
    """Images (n, 3, h, w) in [0, 1], each turned, scaled, shifted and lit a little otherwise, half of them mirrored.

    Drawn from torch's global state.
    """
    count = len(images)
    seen = _resampled(images, SCALE, TURN, SHIFT)
    gain, offset = (1 + _either(count, GAIN)).to(images), _either(count, OFFSET).to(images)
    return (seen * gain[:, None, None, None] + offset[:, None, None, None]).clamp(0, 1)


def flipped(images: Tensor) -> Tensor:
    """Images (n, 3, h, w), half of them mirrored; drawn from torch's global state."""
    mirrored = torch.rand(len(images), device="cpu").to(images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def cropped(images: Tensor) -> Tensor:
    """Images (n, 3, h, w), each shifted by whole pixels, an eighth of its side at most, half of them mirrored.

    What comes into the picture is black, as in the usual recipe for CIFAR-10 (He et al., CVPR 2016: 4 of 32 pixels).
    """
    count, _, height, width = images.shape
    most = height // 8
    padded = F.pad(flipped(images), (most, most, most, most))
    down, across = (torch.randint(2 * most + 1, (count, 1)) for _ in range(2))
    rows, columns = (
        (start + torch.arange(side)).to(images.device) for start, side in ((down, height), (across, width))
    )
    photos = torch.arange(count, device=images.device)
    return padded[photos[:, None, None], :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def turned(images: Tensor) -> Tensor:
    """Images (n, 3, h, w), each turned by 10 degrees, scaled and shifted by a tenth at most, half mirrored."""
    return _resampled(images, scale=0.1, turn=math.radians(10), shift=0.1)


Augmentation = Literal["none", "flip", "crop_flip", "turn_flip"]
AUGMENTATIONS: Mapping[Augmentation, Callable[[Tensor], Tensor]] = {
    "none": lambda images: images,
    "flip": flipped,
    "crop_flip": cropped,
    "turn_flip": turned,
}
"""What may be done to photos (n, 3, h, w) in [0, 1] each time that a network learns from them."""


def _resampled(images: Tensor, scale: float, turn: float, shift: float) -> Tensor:
    """Each scaled, turned and shifted by a share of its side, all at most by so much, half of them mirrored.

    What comes into the picture is what lay at its border, reflected.
    """
    count = len(images)
    size = 1 + _either(count, scale)
    angle = _either(count, turn)
    flip = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    across, down = _either(count, 2 * shift), _either(count, 2 * shift)  # a side is 2 in a grid's units
    rows = torch.stack(
        [
            torch.stack([flip * size * angle.cos(), -size * angle.sin(), across], 1),
            torch.stack([flip * size * angle.sin(), size * angle.cos(), down], 1),
        ],
        1,
    )
    grid = F.affine_grid(rows.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _either(count: int, most: float) -> Tensor:
    return most * (2 * torch.rand(count) - 1)
