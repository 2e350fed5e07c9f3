"""A decoder that stands for the attacker while a defence is made."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, Channel

LEARNING_RATE = 1e-3
WIDEST, NARROWEST = 128, 16
GROUPS = 8
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


class Surrogate(nn.Module):
    """A decoder with its optimizer, which learns step by step beside what it is to be defended against."""

    def __init__(self, decoder: SurrogateDecoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.optimizer = torch.optim.Adam(self.decoder.parameters(), LEARNING_RATE)

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizer's, for checkpoints."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.optimizer.load_state_dict(state)

    def learn(self, release: Tensor, images: Tensor) -> float:
        """One step on the squared error; no gradient reaches the release."""
        self.decoder.requires_grad_(True)
        with torch.enable_grad():
            loss = F.mse_loss(self.decoder(release.detach()), images)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        return float(loss.detach())

    def error(self, release: Tensor, images: Tensor) -> Tensor:
        """Squared error of each image, (n,): gradients reach the release and not the decoder."""
        self.decoder.requires_grad_(False)
        errors: Tensor = (self.decoder(release) - images).square().flatten(1).mean(1)
        return errors


class AdversarialTerm(nn.Module):
    """A term of the training loss: minus how far a decoder is from the photo, while the decoder gets nearer.

    The decoder has a head start on the network as it is: from one that knows nothing yet, there is nothing to hide.
    The error counts in units of the mean image's and at most as one: who decodes worse than that knows nothing, and
    to fool today's decoder further teaches nothing about tomorrow's.
    """

    def __init__(self, calibration: Calibration, channel: Channel, weight: float) -> None:
        super().__init__()
        batch = next(calibration.batches())
        with torch.no_grad():
            release = channel.send(batch.features)
        self.weight = weight
        decoder = SurrogateDecoder(tuple(release.shape[1:]), *batch.images.shape[2:])
        self.surrogate = Surrogate(decoder.to(calibration.device))
        total = square = torch.zeros((), dtype=torch.float64, device=calibration.device)
        count = 0
        for batch in calibration.batches():
            images = batch.images.double()
            total, square, count = total + images.sum(0), square + images.square().sum(0), count + len(images)
        self.floor = float((square / count - (total / count).square()).mean())
        for batch in calibration.cycle(HEAD_START):
            with torch.no_grad():
                release = channel.send(batch.features)
            self.surrogate.learn(release, batch.images)

    def forward(
        self, images: Tensor, features: Tensor, release: Tensor, logits: Tensor, labels: Tensor | None
    ) -> Tensor:
        """The decoder learns one step, then judges."""
        self.surrogate.learn(release, images)
        hidden: Tensor = (self.surrogate.error(release, images) / self.floor).clamp_max(1).mean()
        return -self.weight * hidden
