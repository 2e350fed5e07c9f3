"""Training step of the seed's upsampling decoder: our order of operations against the published one."""

import copy
import statistics
import time
from itertools import pairwise

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn
from torchvision.io import decode_image, encode_jpeg

from splitleak.attacks.networks.seed import EPSILON, MOMENTUM, STRIDE, UPSAMPLE_WIDTHS, upsample_decoder
from splitleak.victims.cuts import split
from splitleak.victims.data.sources.faces import Faces
from splitleak.victims.models import make_network
from splitleak.victims.tensors import to_float

MODEL, CUT, CHANNELS = "mobilenet_v3_large", "C4", 672
BATCH, REPEATS = 64, 3  # half of the study's batch: memory for the published order
EPOCHS = 25
"""Of the seed study."""


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


@torch.no_grad()
def recipe(size: int) -> Table:
    """Seconds for each photo of an epoch of the whole recipe: encode and train.

    As published, each epoch reads every photo's JPEG, encodes it and trains the published decoder. Here the photo is
    decoded and encoded once for all epochs, kept in half precision, and read from there.
    """
    encoder = split(make_network(MODEL, 1000, size), MODEL, CUT, size).encoder.eval()
    faster = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
    files = [encode_jpeg(photo) for photo in Faces(photos=BATCH).read(range(BATCH), size).images]
    published, ours = _interleaved_steps(size)
    slow, fast = [], []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        encoder(_decoded(files))
        slow.append(time.perf_counter() - start)
        start = time.perf_counter()
        stored = faster(_decoded(files).to(memory_format=torch.channels_last)).half()
        once = time.perf_counter() - start
        start = time.perf_counter()
        stored.float()
        fast.append(once / EPOCHS + time.perf_counter() - start)
    there = [encode + step for encode, step in zip(slow[1:], published, strict=True)]
    here = [encode + step for encode, step in zip(fast[1:], ours, strict=True)]
    ratio = statistics.median(a / b for a, b in zip(there, here, strict=True))
    table = Table("an epoch of the recipe", "published, s/photo", "ours, s/photo", "times as fast", box=None)
    milliseconds = (f"{statistics.median(seconds) / BATCH:.3f}" for seconds in (there, here))
    table.add_row(f"{size} px, {EPOCHS} epochs", *milliseconds, f"{ratio:.1f}")
    return table


def _decoded(files: list[Tensor]) -> Tensor:
    return torch.stack([to_float(decode_image(file)) for file in files])


@torch.enable_grad()
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
