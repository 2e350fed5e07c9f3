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

    def send_like(self, features: Tensor, release: Tensor) -> Tensor:
        """As ``send``; where a device chooses what it sends, that is what it chose in ``release`` (n, ...).

        A search compares values at the places that arrived. If it chose anew for each candidate, most of these
        places would hold a blank at first, which has no gradient.
        """
        return self.send(features)

    def forward(self, images: Tensor) -> Tensor:
        """One send."""
        return self.send(self.features(images))

    @final
    def several(self, images: Tensor, count: int, like: Tensor | None = None) -> list[Tensor]:
        """Several sends of the same images; with ``like`` (n, ...) what was chosen in it is sent each time."""
        features = self.features(images)
        if like is None:
            return [self.send(features) for _ in range(count)]
        return [self.send_like(features, like) for _ in range(count)]


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
