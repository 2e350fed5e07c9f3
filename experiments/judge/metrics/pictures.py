"""Image metrics: true image against reconstruction, per image, on [0, 1]."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from splitleak.victims.models import IMAGENET_STD
from splitleak.victims.tensors import BATCH, check_images, to_float

Metric = Callable[[Tensor, Tensor], Tensor]

KERNEL, WINDOW_STD = 11, 1.5
"""Side and standard deviation of the Gaussian window of SSIM; an image must be at least as large at every scale."""
STABILISERS = (0.01**2, 0.03**2)
"""Of SSIM's two ratios, for values in [0, 1]."""
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of MS-SSIM (Wang, Simoncelli, Bovik, Asilomar 2003), from the finest scale to the coarsest."""
BEST_PSNR = 100.0
"""What an exact reconstruction scores instead of infinity, so that means and intervals exist."""
SEED_PEAK = 255.0


def metrics_for(size: int, seed_convention: bool = False) -> dict[str, Metric]:
    """The metrics of square images of ``size`` pixels by name: (images, reconstructions) -> (n,).

    Args:
        size: side in pixels; below 176 MS-SSIM has fewer than its five scales and carries their number in its
            name (``ms_ssim_3``).
        seed_convention: add ``psnr_seed_convention``, comparable with the seed study's table and nothing else.
    """
    scales = ms_ssim_scales(size)
    chosen: dict[str, Metric] = {"mse": mse, "psnr": psnr}
    if size >= KERNEL:
        chosen["ssim"] = ssim
        name = "ms_ssim" if scales == len(SCALE_WEIGHTS) else f"ms_ssim_{scales}"
        chosen[name] = lambda images, rebuilt: ms_ssim(images, rebuilt, scales)
    if seed_convention:
        chosen["psnr_seed_convention"] = psnr_seed_convention
    return chosen


def score(metrics: Mapping[str, Metric], images: Tensor, rebuilt: Tensor) -> dict[str, list[float]]:
    """Every metric of every image; ``images`` and ``rebuilt``: (n, 3, h, w), floats in [0, 1] or bytes.

    Some images are taken at a time, so that mapped files need not fit the memory.

    Raises:
        ValueError: the two differ in shape or are no images in [0, 1].
    """
    if images.shape != rebuilt.shape:
        raise ValueError(f"{tuple(rebuilt.shape)} reconstructions of {tuple(images.shape)} images")
    values: dict[str, list[Tensor]] = {name: [] for name in metrics}
    for some, made in zip(images.split(BATCH), rebuilt.split(BATCH), strict=True):
        pair = _checked(some, "true images"), _checked(made, "reconstructions")
        for name, metric in metrics.items():
            values[name].append(metric(*pair))
    return {name: torch.cat(found).tolist() for name, found in values.items()}


def _checked(images: Tensor, what: str) -> Tensor:
    return check_images(to_float(images) if images.dtype == torch.uint8 else images, what)


def mse(images: Tensor, rebuilt: Tensor) -> Tensor:
    """Mean squared error per image, (n,)."""
    return (images - rebuilt).square().mean((1, 2, 3))


def psnr(images: Tensor, rebuilt: Tensor) -> Tensor:
    """Peak signal-to-noise ratio per image in dB, peak 1, at most 100; (n,)."""
    # with dim given, torchmetrics reduces over it and keeps the batch
    values: Tensor = peak_signal_noise_ratio(rebuilt, images, data_range=1.0, dim=(1, 2, 3), reduction="none")
    return values.clamp(max=BEST_PSNR)


def ssim(images: Tensor, rebuilt: Tensor) -> Tensor:
    """Structural similarity per image (Wang et al., IEEE TIP 2004), Gaussian window of 11 pixels; (n,).

    The windows of pixels near the border see the image mirrored there, as in torchmetrics.
    """
    return _similarity(images, rebuilt).whole.mean((1, 2, 3))


class _Similarity(NamedTuple):
    """Of the windows around all pixels, (n, 3, h, w): of everything, and of contrast and structure alone."""

    whole: Tensor
    structure: Tensor


@lru_cache(maxsize=1)
def _similarity(images: Tensor, rebuilt: Tensor) -> _Similarity:
    """Kept for the next who asks: SSIM is MS-SSIM's finest scale."""
    down, across = (_windows(side, images.device) for side in images.shape[2:])

    def mean(maps: Tensor) -> Tensor:
        # the window is a product of two: a matrix on either side is several times as fast as a convolution on a CPU
        return down @ maps @ across.T

    first, second = mean(images), mean(rebuilt)
    squares, product = first.square() + second.square(), first * second
    variances = (mean(images.square() + rebuilt.square()) - squares).clamp_min(0)
    light, contrast = STABILISERS
    structure = (2 * (mean(images * rebuilt) - product) + contrast) / (variances + contrast)
    return _Similarity((2 * product + light) / (squares + light) * structure, structure)


@lru_cache
def _windows(side: int, device: torch.device) -> Tensor:
    """Weights of the pixels of a line in the windows around each of them, (side, side)."""
    reach = KERNEL // 2
    weights = torch.exp(-((torch.arange(KERNEL) - reach) / WINDOW_STD).square() / 2)
    mirrored = F.pad(torch.eye(side)[None], (reach, reach), mode="reflect")[0]
    return (mirrored.unfold(1, KERNEL, 1) @ (weights / weights.sum())).T.contiguous().to(device)


def ms_ssim_scales(size: int) -> int:
    """How many scales an image of this side has: the coarsest must still hold the window."""
    # scale**2 is the stricter condition of torchmetrics, whose numbers these are, on four scales
    return sum(size // max(2**scale, scale**2) >= KERNEL for scale in range(len(SCALE_WEIGHTS)))


def ms_ssim(images: Tensor, rebuilt: Tensor, scales: int) -> Tensor:
    """Multi-scale structural similarity per image with the first ``scales`` weights, renormalised; (n,)."""
    weights, border = SCALE_WEIGHTS[:scales], KERNEL // 2
    product = torch.ones(len(images), device=images.device)
    for scale, weight in enumerate(weights, 1):
        found = _similarity(images, rebuilt)
        maps = found.whole if scale == scales else found.structure[..., border:-border, border:-border]
        product = product * maps.mean((1, 2, 3)).relu() ** (weight / sum(weights))
        images, rebuilt = F.avg_pool2d(images, 2), F.avg_pool2d(rebuilt, 2)
    return product


def psnr_seed_convention(images: Tensor, rebuilt: Tensor) -> Tensor:
    """The seed study's PSNR: peak 255 on ImageNet-normalised floats, per image; (n,).

    Its peak belongs to bytes, its values are floats of about unit variance: 48.13 dB too much.
    """
    std = torch.tensor(IMAGENET_STD, device=images.device)[:, None, None]
    error = ((images - rebuilt) / std).square().mean((1, 2, 3)).clamp_min(1e-10)  # the mean cancels
    return 20 * torch.log10(SEED_PEAK / error.sqrt())
