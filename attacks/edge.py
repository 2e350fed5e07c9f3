"""The device's half as a white box holds it: what is the same in every send of an image, and what is drawn anew."""

from abc import ABC, abstractmethod
from typing import final

from torch import Tensor, nn


class Edge(nn.Module, ABC):
    """Images (n, 3, h, w) in [0, 1] -> release (n, ...), differentiable, in two steps.

    Whoever wants several sends of the same images computes their features once: nearly all of the time and of the
    memory goes into them. A device that draws at random before its encoder has nothing that stays the same.
    """

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """What is the same in every send of these images: draws nothing."""

    @abstractmethod
    def send(self, features: Tensor) -> Tensor:
        """Features -> release; a random device draws afresh on each call."""

    def forward(self, images: Tensor) -> Tensor:
        """One send."""
        return self.send(self.features(images))

    @final
    def several(self, images: Tensor, count: int) -> list[Tensor]:
        """Several sends of the same images."""
        features = self.features(images)
        return [self.send(features) for _ in range(count)]


@final
class PlainEdge(Edge):
    """An encoder that draws nothing, and what its features go through on each send: by default nothing."""

    def __init__(self, encoder: nn.Module, channel: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder, self.channel = encoder, channel or nn.Identity()

    def features(self, images: Tensor) -> Tensor:
        """Encode."""
        features: Tensor = self.encoder(images)
        return features

    def send(self, features: Tensor) -> Tensor:
        """Through the channel."""
        release: Tensor = self.channel(features)
        return release
