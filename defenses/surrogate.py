"""A decoder that stands for the attacker while a defence is made."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, CalibrationBatch, Channel
from splitleak.victims.structure import structural_similarity

Distance = Callable[[Tensor, Tensor], Tensor]
LEARNING_RATE = 1e-3
WIDEST, NARROWEST = 128, 16
GROUPS = 8
BATCH = 32
"""Photos of a step of what is trained before the network is."""
HEAD_START = 100
"""Steps that a decoder learns before the network that it attacks moves."""


class SurrogateDecoder(nn.Module):
    """Release (n, *shape) -> images (n, 3, height, width) in [0, 1].

    Upsampling and convolutions, in group normalisation so that it is the same function while it trains and when it
    is asked. Releases that are no maps (tokens, vectors) start as a single cell.
    """

    def __init__(self, shape: tuple[int, ...], height: int, width: int) -> None:
        super().__init__()
        self.maps, self.size = len(shape) == 3, (height, width)
        channels, rows, columns = shape if self.maps else (math.prod(shape), 1, 1)
        doublings = max(0, round(math.log2(max(height / rows, width / columns))))
        wide = WIDEST
        layers: list[nn.Module] = [nn.GroupNorm(1, channels, affine=False), *_convolution(channels, wide)]
        for _ in range(doublings):
            narrow = max(wide // 2, NARROWEST)
            layers += [nn.Upsample(scale_factor=2), *_convolution(wide, narrow)]
            wide = narrow
        self.layers = nn.Sequential(*layers, nn.Conv2d(wide, 3, 3, padding=1))
        self.picture = nn.Parameter(torch.zeros(3, height, width))

    def forward(self, release: Tensor) -> Tensor:
        """Decode."""
        grid = release if self.maps else release.flatten(1)[:, :, None, None]
        images: Tensor = self.layers(grid)
        if images.shape[2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear")
        return torch.sigmoid(images + self.picture)


def _convolution(source: int, target: int) -> list[nn.Module]:
    return [nn.Conv2d(source, target, 3, padding=1), nn.GroupNorm(GROUPS, target), nn.LeakyReLU(0.2)]


@dataclass(frozen=True)
class Likeness:
    """How far pictures are from photos, in units of the mean image's distance: 1 tells nothing, 0 all.

    ``structure``: the share of 1 - SSIM in it, the rest is the squared error. ``pixels`` and ``shapes``: the mean
    image's squared error and its 1 - SSIM.
    """

    structure: float
    pixels: float
    shapes: float

    @classmethod
    def of(cls, calibration: Calibration, structure: float) -> "Likeness":
        """With the units of the train part."""
        total, count = torch.zeros((), dtype=torch.float64, device=calibration.device), 0
        for batch in calibration.batches():
            total, count = total + batch.images.double().sum(0), count + len(batch.images)
        mean = (total / count).float()
        pixels = shapes = 0.0
        for batch in calibration.batches():
            pixels += float(squared_error(mean, batch.images).sum())
            shapes += float((1 - structural_similarity(mean.expand_as(batch.images), batch.images)).sum())
        return cls(structure, pixels / count, shapes / count)

    def __call__(self, rebuilt: Tensor, images: Tensor) -> Tensor:
        """Of each image, (n,)."""
        distance = (1 - self.structure) * squared_error(rebuilt, images) / self.pixels
        if self.structure:
            distance = distance + self.structure * (1 - structural_similarity(rebuilt, images)) / self.shapes
        return distance


class Surrogate(nn.Module):
    """A decoder with its optimizer, which learns step by step beside what it is to be defended against.

    Args:
        distance: (rebuilt, images) -> how far they are from each other, (n,); the squared error where none is given.
    """

    def __init__(self, decoder: SurrogateDecoder, distance: Distance | None = None) -> None:
        super().__init__()
        self.decoder = decoder
        self.distance = distance or squared_error
        self.optimizer = torch.optim.Adam(self.decoder.parameters(), LEARNING_RATE)

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizer's, for checkpoints."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.optimizer.load_state_dict(state)

    def learn(self, release: Tensor, images: Tensor) -> float:
        """One step; no gradient reaches the release."""
        self.decoder.requires_grad_(True)
        with torch.enable_grad():
            loss = self.distance(self.decoder(release.detach()), images).mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        return float(loss.detach())

    def error(self, release: Tensor, images: Tensor) -> Tensor:
        """Distance of each image, (n,): gradients reach the release and not the decoder."""
        self.decoder.requires_grad_(False)
        return self.distance(self.decoder(release), images)


class AdversarialTerm(nn.Module):
    """A term of the training loss: minus how far a decoder is from the photo, while the decoder gets nearer.

    The decoder may have a head start on the network as it is: from one that knows nothing yet, there is nothing to
    hide. It counts in units of the mean image's distance and at most as one: who decodes worse than that knows
    nothing, and to fool today's decoder further teaches nothing about tomorrow's. In eval mode the decoder judges and
    does not learn.

    Args:
        structure: share of 1 - SSIM in the distance, the rest is the squared error.
        steps: of the decoder for each of the network.
        head_start: steps before that.
    """

    def __init__(
        self,
        calibration: Calibration,
        channel: Channel,
        weight: float,
        structure: float = 0.0,
        steps: int = 1,
        head_start: int = HEAD_START,
    ) -> None:
        super().__init__()
        self.weight, self.steps = weight, steps
        batch = next(calibration.batches())
        with torch.no_grad():
            release = channel.send(batch.features)
        decoder = SurrogateDecoder(tuple(release.shape[1:]), *batch.images.shape[2:])
        self.distance = Likeness.of(calibration, structure)
        self.surrogate = Surrogate(decoder.to(calibration.device), self.distance)
        for batch in small_batches(calibration, head_start):
            with torch.no_grad():
                release = channel.send(batch.features)
            self.surrogate.learn(release, batch.images)

    def forward(
        self, images: Tensor, features: Tensor, release: Tensor, logits: Tensor, labels: Tensor | None
    ) -> Tensor:
        """The decoder learns, then judges."""
        for _ in range(self.steps if self.training else 0):
            self.surrogate.learn(release, images)
        return -self.weight * self.surrogate.error(release, images).clamp_max(1).mean()


def squared_error(rebuilt: Tensor, images: Tensor) -> Tensor:
    """Of each image, (n,)."""
    return (rebuilt - images).square().flatten(1).mean(1)


def small_batches(calibration: Calibration, steps: int) -> Iterator[CalibrationBatch]:
    """As many batches as steps, pass after pass, each of random photos of one of the calibration's."""
    yield from itertools.islice(_split(calibration), steps)


def _split(calibration: Calibration) -> Iterator[CalibrationBatch]:
    while True:
        for batch in calibration.batches():
            for rows in torch.randperm(len(batch.images), device=batch.images.device).split(BATCH):
                labels = None if batch.labels is None else batch.labels[rows]
                yield CalibrationBatch(batch.images[rows], batch.features[rows], labels)
