"""What networks that paint pictures are trained on."""

import torch.nn.functional as F
from torch import Tensor

from splitleak.victims.structure import structural_similarity

STRUCTURE_WEIGHT = 0.02
STRUCTURE_AIM = 0.1
"""The weight of who is after SSIM: it costs 0.4 dB, and another decoder's pixels are better."""


def squared_and_structural_error(rebuilt: Tensor, images: Tensor, structure: float = STRUCTURE_WEIGHT) -> Tensor:
    """Mean squared error plus ``structure`` times 1 - SSIM, so that blurring an edge costs more than its pixels.

    Without it the best answer is the posterior mean.
    """
    if not structure:
        return F.mse_loss(rebuilt, images)
    return F.mse_loss(rebuilt, images) + structure * (1 - structural_similarity(rebuilt, images).mean())
