"""Send a few combinations of the channels that the task was trained to need."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, Channel, Defense, channel_axis, mix_channels
from splitleak.victims.settings import doc


@dataclass(frozen=True)
class Bottleneck(Defense):
    """A 1x1 projection to fewer channels on the edge, another one back in the cloud, both trained on the task.

    They start as the principal components of the channels over the train part, which lose the least energy, and
    are then trained with the tail. Saves bytes; whether it hides anything is what the attacks tell.
    """

    paper: ClassVar[str] = (
        "Eshratifar, Esmaili, Pedram, BottleNet: A Deep Learning Architecture for Intelligent Mobile Cloud Computing "
        "Services, ISLPED 2019"
    )
    strength: ClassVar[str] = "keep"
    strengths: ClassVar[tuple[float, ...]] = (1.0, 0.5, 0.25, 0.1, 0.02)

    keep: Annotated[float, Gt(0), Le(1), doc("channels that are sent, as a share of the features'")] = 0.25

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """At least one channel is always sent."""
        axis = channel_axis(shape)
        return _ProjectingChannel(axis + 1, shape[axis], max(1, round(self.keep * shape[axis])))


class _ProjectingChannel(Channel):
    mean: Tensor

    def __init__(self, axis: int, channels: int, kept: int) -> None:
        super().__init__()
        self.axis = axis
        self.down = nn.Parameter(torch.eye(kept, channels))
        self.up = nn.Parameter(torch.eye(channels, kept))
        self.register_buffer("mean", torch.zeros(channels))

    @torch.no_grad()
    def calibrate(self, calibration: Calibration) -> None:
        channels = self.mean.numel()
        total = torch.zeros(channels, dtype=torch.float64)
        products = torch.zeros(channels, channels, dtype=torch.float64)
        count = 0
        for batch in calibration.batches():
            values = batch.features.movedim(self.axis, -1).flatten(0, -2).double().cpu()
            total, products, count = total + values.sum(0), products + values.T @ values, count + len(values)
        mean = total / count
        _, directions = torch.linalg.eigh(products / count - torch.outer(mean, mean))
        components = directions.flip(1)[:, : len(self.down)]  # eigh sorts from the least
        self.mean.copy_(mean)
        self.down.copy_(components.T)
        self.up.copy_(components)

    def _mean(self, ndim: int) -> Tensor:
        return self.mean.view([-1 if axis == self.axis else 1 for axis in range(ndim)])

    def send(self, features: Tensor) -> Tensor:
        return mix_channels(features - self._mean(features.ndim), self.down, self.axis)

    def receive(self, release: Tensor) -> Tensor:
        return mix_channels(release, self.up, self.axis) + self._mean(release.ndim)
