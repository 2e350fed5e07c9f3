"""Drop features at random when they are sent."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from splitleak.defenses.base import Channel, Defense
from splitleak.victims.settings import doc


@dataclass(frozen=True)
class Dropout(Defense):
    """Each feature is sent as zero with probability ``rate``, drawn afresh for each send, and never rescaled.

    The tail is fine-tuned behind it. Zeros travel like values, so it saves no bytes. An adversary who knows the
    defence sees which features are missing (an exact zero of the features themselves is taken for missing too)
    and with several sends of one image gets them all.
    """

    paper: ClassVar[str] = (
        "He, Zhang, Lee, Attacking and Protecting Data Privacy in Edge-Cloud Collaborative Inference Systems, "
        "IEEE Internet of Things Journal 2020"
    )
    strength: ClassVar[str] = "rate"
    strengths: ClassVar[tuple[float, ...]] = (0.005, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
    uses_photos: ClassVar[bool] = False

    rate: Annotated[float, Ge(0), Lt(1), doc("probability that a feature is dropped")] = 0.5

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Zeros at random places."""
        return _Dropping(self.rate)


class _Dropping(Channel):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def send(self, features: Tensor) -> Tensor:
        """Random in evaluation too: it is the defence, not a regulariser."""
        return features * (torch.rand_like(features) >= self.rate)

    def send_like(self, features: Tensor, release: Tensor) -> Tensor:
        """The features at the places that arrived."""
        return features * self.arrived(release)

    def arrived(self, release: Tensor) -> Tensor:
        """What is not zero."""
        return release != 0

    def carried(self, arrived: Tensor) -> Tensor:
        """A blank stays one."""
        return arrived
