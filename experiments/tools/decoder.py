"""How profiles and audits set the decoder, which is to be as good as little time allows."""

import math

from splitleak.attacks.grid import channels_and_doublings
from splitleak.attacks.networks.residual import NARROWEST

DECODER_BATCH, LEAST_EPOCHS = 8, 2
"""Photos per step of the training, passes over many photos. In the same time, 8 photos per step rebuilt a middle cut
0.6 dB better than 16, and 1.7 dB better than 32."""
WIDEST = 128
"""Channels of the decoder at its first grid, at most."""


def decoder_width(shape: tuple[int, ...], size: int) -> int:
    """Channels of the residual decoder at its first grid.

    They halve with each doubling of the grid down to the narrowest, so a deeper cut meets a larger decoder: that
    it leaks less is not for want of one.
    """
    _, doublings = channels_and_doublings(shape, size, size)
    width: int = NARROWEST * 2 ** max(0, doublings - 1)
    return min(WIDEST, width)


def decoder_epochs(steps: int, photos: int) -> int:
    """Passes over this many photos that make about as many steps."""
    return max(LEAST_EPOCHS, math.ceil(steps * DECODER_BATCH / photos))
