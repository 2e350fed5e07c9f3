"""Training step of the seed's upsampling decoder: our order of operations against the published one."""

import statistics
import time
from itertools import pairwise

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import nn

from attacks.networks.seed import EPSILON, MOMENTUM, STRIDE, UPSAMPLE_WIDTHS, upsample_decoder

CHANNELS, BATCH, REPEATS = 672, 4, 5


def published_upsample_decoder(channels: int) -> nn.Sequential:
    """The decoder as its authors order it: every block but the last is followed by bicubic upsampling."""
    layers: list[nn.Module] = []
    for source, width in pairwise((channels, *UPSAMPLE_WIDTHS)):
        last = width == UPSAMPLE_WIDTHS[-1]
        layers += [nn.Conv2d(source, width, 1), nn.BatchNorm2d(width, EPSILON, MOMENTUM)]
        layers += [nn.ReLU()] if last else [nn.Hardswish(), nn.Upsample(scale_factor=2, mode="bicubic")]
    return nn.Sequential(*layers)


def compare(sizes: tuple[int, ...]) -> Table:
    """Images per second of both at each image size, and the median ratio of interleaved steps."""
    table = Table("image side", "published, images/s", "ours, images/s", "times as fast", box=None)
    for size in sizes:
        published, ours = _interleaved_steps(size)
        ratio = statistics.median(slow / fast for slow, fast in zip(published, ours, strict=True))
        rates = (f"{BATCH / statistics.median(seconds):.0f}" for seconds in (published, ours))
        table.add_row(f"{size} px", *rates, f"{ratio:.1f}")
    return table


def _interleaved_steps(size: int) -> tuple[list[float], list[float]]:
    grid = size // STRIDE
    release, target = torch.randn(BATCH, CHANNELS, grid, grid), torch.rand(BATCH, 3, size, size)
    networks = [published_upsample_decoder(CHANNELS), upsample_decoder(CHANNELS)]
    optimizers = [torch.optim.Adam(network.parameters(), lr=2.5e-4) for network in networks]
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(REPEATS + 1):
        for taken, network, optimizer in zip(seconds, networks, optimizers, strict=True):
            start = time.perf_counter()
            optimizer.zero_grad()
            F.mse_loss(network(release), target).backward()
            optimizer.step()
            if repeat:  # the first step warms up
                taken.append(time.perf_counter() - start)
    return seconds
