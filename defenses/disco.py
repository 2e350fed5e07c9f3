"""Prune each image's own most revealing channels, as learned against a decoder."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Lt
from safetensors.torch import load, save
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, Channel, Defense, channel_axis
from splitleak.defenses.surrogate import AdversarialTerm
from splitleak.victims.settings import doc

HIDDEN = 64


@dataclass(frozen=True)
class Disco(Defense):
    """A small network on the edge scores the channels of each image; those with the lowest scores arrive as zero.

    It is trained with the tail: cross-entropy - ``weight`` times the error of a decoder that trains beside it. The
    choice is hard when sent; for training, its gradient is that of a sigmoid of temperature ``temperature``.
    """

    paper: ClassVar[str] = (
        "A. Singh et al., DISCO: Dynamic and Invariant Sensitive Channel Obfuscation for Deep Neural Networks, "
        "CVPR 2021"
    )
    strength: ClassVar[str] = "rate"
    strengths: ClassVar[tuple[float, ...]] = (0.01, 0.3, 0.6, 0.9)

    rate: Annotated[float, Ge(0), Lt(1), doc("share of each image's channels that is pruned")] = 0.6
    weight: Annotated[float, Ge(0), doc("of the decoder's error, in units of the mean image's")] = 1.0
    temperature: Annotated[float, Gt(0), doc("of the choice's gradient, as published")] = 1 / 30

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """At least one channel is always sent."""
        return _PruningChannel(shape, self)

    def objective(self, calibration: Calibration, channel: Channel) -> nn.Module:
        """The decoder's error."""
        return AdversarialTerm(calibration, channel, self.weight)


class _PruningChannel(Channel):
    unit: Tensor

    def __init__(self, shape: tuple[int, ...], settings: Disco) -> None:
        super().__init__()
        self.axis, self.shape = channel_axis(shape), shape
        channels = shape[self.axis]
        self.temperature = settings.temperature
        self.kept = max(1, round((1 - settings.rate) * channels))
        self.scores = nn.Sequential(nn.Linear(channels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, channels))
        self.register_buffer("unit", torch.ones(()))

    def calibrate(self, calibration: Calibration) -> None:
        self.unit.fill_(calibration.root_mean_square())

    def send(self, features: Tensor) -> Tensor:
        scores = self.scores(self._by_channel(features / self.unit).mean(2))
        least = scores.topk(self.kept, dim=1).values[:, -1:]
        soft = torch.sigmoid((scores - least.detach()) / self.temperature)
        hard = (scores >= least).float()
        # exactly zero where it is pruned
        return features * self._everywhere((hard - soft).detach() + soft)

    def arrived(self, release: Tensor) -> Tensor:
        """Channels with anything in them."""
        return self._everywhere(self._by_channel(release != 0).any(2)).expand_as(release)

    def _by_channel(self, values: Tensor) -> Tensor:
        """(n, *shape) as (n, channels, places)."""
        return values.movedim(self.axis + 1, 1).reshape(len(values), self.shape[self.axis], -1)

    def _everywhere(self, of_channels: Tensor) -> Tensor:
        """(n, channels) in a form that multiplies (n, *shape)."""
        sizes = [1] * len(self.shape)
        sizes[self.axis] = self.shape[self.axis]
        return of_channels.view(len(of_channels), *sizes)

    def pack(self, release: Tensor) -> bytes:
        """The kept channels and their numbers."""
        channels = release.movedim(self.axis, 0)
        kept = self._by_channel(release[None])[0].any(1).nonzero().flatten()
        return save({"channels": kept.to(torch.int16), "values": channels[kept].contiguous()})

    def unpack(self, packed: bytes) -> Tensor:
        parts = load(packed)
        values = parts["values"]
        moved = [self.shape[self.axis], *(size for axis, size in enumerate(self.shape) if axis != self.axis)]
        channels = torch.zeros(moved, dtype=values.dtype)
        channels[parts["channels"].long()] = values
        return channels.movedim(0, self.axis)
