"""What networks that paint pictures are trained on."""

import torch.nn.functional as F
from torch import Tensor

STRUCTURE_WEIGHT, STRUCTURE_WINDOW = 0.02, 8
STRUCTURE_AIM = 0.1
"""The weight of who is after SSIM: it costs 0.4 dB, and another decoder's pixels are better."""


def squared_and_structural_error(rebuilt: Tensor, images: Tensor, structure: float = STRUCTURE_WEIGHT) -> Tensor:
    """Mean squared error plus ``structure`` times 1 - SSIM, so that blurring an edge costs more than its pixels.

    SSIM (Wang et al., IEEE TIP 2004) with flat, half-overlapping windows: nearly free, and close enough to train on.
    Without it the best answer is the posterior mean.
    """
    if not structure:
        return F.mse_loss(rebuilt, images)
    window = min(STRUCTURE_WINDOW, *images.shape[2:])

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, stride=max(1, window // 2))

    mean_a, mean_b = mean(rebuilt), mean(images)
    variances = mean(rebuilt.square()) - mean_a.square() + mean(images.square()) - mean_b.square()
    covariance = mean(rebuilt * images) - mean_a * mean_b
    brightness = (2 * mean_a * mean_b + 0.01**2) / (mean_a.square() + mean_b.square() + 0.01**2)
    structural = (2 * covariance + 0.03**2) / (variances + 0.03**2)
    return F.mse_loss(rebuilt, images) + structure * (1 - (brightness * structural).mean())
