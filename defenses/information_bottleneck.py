"""Send a random variable that tells the task as much and everything else as little as training can make it."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, Channel, Defense, channel_axis, mix_channels
from splitleak.defenses.fitting import SplitModel, trained_effect
from splitleak.victims.settings import doc

START = math.log(0.05**2)
"""Logarithm of the variance that training starts from: hardly any noise."""
SPEED = 100.0
"""How much faster than other weights this and the size of mu move: from there to noise alone is a long way for
weights of size one, and a fine-tuning has few steps."""


@dataclass(frozen=True)
class InformationBottleneck(Defense):
    """The edge sends a draw from N(mu(z), s(z)^2), trained on cross-entropy + ``beta`` times the divergence.

    mu and s are 1x1 convolutions of the standardised features. The divergence of what is sent from N(0, 1), in nats
    per image, bounds how much a release can tell about the photo at all. It is the sum over the features, as
    published: the same ``beta`` weighs more on a larger release.
    """

    paper: ClassVar[str] = (
        "T. Wang, Y. Zhang, R. Jia, Improving Robustness to Model Inversion Attacks via Mutual Information "
        "Regularization, AAAI 2021; Alemi et al., Deep Variational Information Bottleneck, ICLR 2017"
    )
    strength: ClassVar[str] = "beta"
    strengths: ClassVar[tuple[float, ...]] = (1e-11, 1e-8, 1e-6, 1e-4)

    beta: Annotated[float, Ge(0), doc("of the divergence from N(0, 1), in nats per image")] = 1e-3
    trains_encoder: Annotated[bool, doc("and not only what stands behind the cut; the first paper does")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "retrains", "network" if self.trains_encoder else "tail")

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Draws on the edge, scales back in the cloud."""
        return _StochasticChannel(shape)

    def objective(self, calibration: Calibration, channel: Channel) -> nn.Module:
        """The divergence."""
        assert isinstance(channel, _StochasticChannel)
        return _Divergence(channel, self.beta)

    def statistic(self, calibration: Calibration) -> float:
        """How many nats fewer an image is sent with after a short training."""

        def divergence(model: SplitModel) -> float:
            assert isinstance(model.channel, _StochasticChannel)
            return float(model.channel.divergence(next(calibration.batches()).features))

        return trained_effect(self, calibration, divergence)


class _StochasticChannel(Channel):
    mean: Tensor
    spread: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        axis = channel_axis(shape)
        self.axis, channels = axis + 1, shape[axis]
        columns = [channels if place == axis else 1 for place in range(len(shape))]
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("spread", torch.ones(columns))
        self.to_mean = nn.Parameter(torch.eye(channels))
        self.to_logarithm = nn.Parameter(torch.zeros(channels, channels))
        self.logarithm = nn.Parameter(torch.zeros(columns))
        self.size = nn.Parameter(torch.zeros(columns))

    def calibrate(self, calibration: Calibration) -> None:
        total = square = torch.zeros((), dtype=torch.float64, device=calibration.device)
        count = 0
        for batch in calibration.batches():
            values = batch.features.movedim(self.axis, -1).flatten(0, -2).double()
            total, square, count = total + values.sum(0), square + values.square().sum(0), count + len(values)
        mean = total / count
        variance = square / count - mean.square()
        # a channel that hardly varies stays small
        spread = (variance + 1e-3 * variance.mean()).clamp_min(torch.finfo(torch.float32).tiny).sqrt()
        self.mean.copy_(mean.view_as(self.mean))
        self.spread.copy_(spread.view_as(self.spread))

    def _moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        standard = (features - self.mean) / self.spread
        logarithm = START + SPEED * self.logarithm + mix_channels(standard, self.to_logarithm, self.axis)
        mean = (SPEED * self.size).clamp(-12, 6).exp() * mix_channels(standard, self.to_mean, self.axis)
        return mean, logarithm.clamp(-12, 6)

    def divergence(self, features: Tensor) -> Tensor:
        """From N(0, 1), the mean over images, in nats."""
        mean, logarithm = self._moments(features)
        return (mean.square() + logarithm.exp() - 1 - logarithm).flatten(1).sum(1).mean() / 2

    def send(self, features: Tensor) -> Tensor:
        mean, logarithm = self._moments(features)
        return mean + (logarithm / 2).exp() * torch.randn_like(mean)

    def receive(self, release: Tensor) -> Tensor:
        return self.mean + self.spread * release


class _Divergence(nn.Module):
    def __init__(self, channel: _StochasticChannel, beta: float) -> None:
        super().__init__()
        self.channel, self.beta = channel, beta

    def forward(
        self, images: Tensor, features: Tensor, release: Tensor, logits: Tensor, labels: Tensor | None
    ) -> Tensor:
        return self.beta * self.channel.divergence(features)
