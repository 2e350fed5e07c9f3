"""Images as floats in [0, 1] at every boundary, bytes in storage."""

import torch
from torch import Tensor

BATCH = 64
"""Photos, or their releases, that go through a network at a time where nothing is trained."""


def check_images(images: Tensor, where: str) -> Tensor:
    """Return ``images`` unchanged after asserting the project's one image format.

    Args:
        images: (n, 3, h, w), floating, finite, in [0, 1].
        where: who made them, for the message.

    Raises:
        ValueError: another shape, type or range; normalised pixels are the usual cause.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"{where}: images must be floats (n, 3, h, w), not {images.dtype} {tuple(images.shape)}")
    if images.numel():
        low, high = images.aminmax()
        if not (low >= 0 and high <= 1):  # also catches NaN
            raise ValueError(f"{where}: images must lie in [0, 1], not [{low:.3g}, {high:.3g}]")
    return images


def to_float(images: Tensor) -> Tensor:
    """Stored bytes (uint8) to images in [0, 1]."""
    return images.to(torch.float32).div_(255)


def to_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] to bytes (uint8), rounded."""
    return images.mul(255).round_().to(torch.uint8)
