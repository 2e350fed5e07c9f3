"""Additive Gaussian noise on the features."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from splitleak.defenses.base import Calibration, Channel, Defense, Guarantee
from splitleak.victims.settings import doc


@dataclass(frozen=True)
class GaussianNoise(Defense):
    """Send features + noise, drawn afresh for each image.

    The noise is scaled to the features' root mean square over the train part, so that strengths compare across
    cuts and networks. Nothing bounds the features, so this states no epsilon.
    """

    paper: ClassVar[str] = (
        "He, Zhang, Lee, Attacking and Protecting Data Privacy in Edge-Cloud Collaborative Inference Systems, "
        "IEEE Internet of Things Journal 2020"
    )
    strength: ClassVar[str] = "sigma"
    strengths: ClassVar[tuple[float, ...]] = (0.01, 0.5, 2.0, 32.0)

    sigma: Annotated[
        float, Ge(0), Lt(math.inf), doc("standard deviation in units of the features' root mean square")
    ] = 1.0

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Noise of ``sigma`` times the calibrated root mean square."""
        return _NoiseChannel(self.sigma)


class _NoiseChannel(Channel):
    std: Tensor

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma
        self.register_buffer("std", torch.zeros(()))

    def calibrate(self, calibration: Calibration) -> None:
        self.std.fill_(self.sigma * calibration.root_mean_square())

    def send(self, features: Tensor) -> Tensor:
        return features + self.std * torch.randn_like(features)

    def guarantee(self) -> Guarantee:
        return Guarantee("query", noise_std=float(self.std))
