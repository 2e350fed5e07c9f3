"""Additive Laplace noise on the features."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from splitleak.defenses.base import Calibration, Channel, Defense
from splitleak.victims.settings import doc


@dataclass(frozen=True)
class LaplaceNoise(Defense):
    """Send features + Laplace noise, drawn afresh for each image.

    The noise is scaled to the features' root mean square over the train part; its standard deviation is 1.41 times
    its scale. Nothing bounds the features, so this states no epsilon: see ``clipped_noise``.
    """

    paper: ClassVar[str] = (
        "Titcombe et al., Practical Defences Against Model Inversion Attacks for Split Neural Networks, DPML 2021"
    )
    strength: ClassVar[str] = "scale"
    strengths: ClassVar[tuple[float, ...]] = (0.01, 0.5, 2.0, 32.0)

    scale: Annotated[float, Ge(0), Lt(math.inf), doc("b, in units of the features' root mean square")] = 1.0

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Noise of ``scale`` times the calibrated root mean square."""
        return _LaplaceChannel(self.scale)


class _LaplaceChannel(Channel):
    b: Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("b", torch.zeros(()))

    def calibrate(self, calibration: Calibration) -> None:
        self.b.fill_(self.scale * calibration.root_mean_square())

    def send(self, features: Tensor) -> Tensor:
        return features + self.b * laplace_like(features)


def laplace_like(values: Tensor) -> Tensor:
    """Standard Laplace noise of a tensor's shape, density exp(-|x|) / 2."""
    # the difference of two exponentials, neither of which can be infinite
    return torch.empty_like(values).exponential_() - torch.empty_like(values).exponential_()
