"""Move each image's features a little, where it hurts a decoder most."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from splitleak.defenses.base import Calibration, Channel, Defense
from splitleak.defenses.surrogate import Surrogate, SurrogateDecoder
from splitleak.victims.settings import doc

PICTURE = 32
"""Side of the picture that the surrogate rebuilds: of a larger one the coarse half matters."""
STEP = 0.5
"""Length of a step of the ascent, as a share of the radius."""


@dataclass(frozen=True)
class AdversarialPerturbation(Defense):
    """Send z + d, with d of a given norm chosen so that a surrogate decoder's picture moves farthest.

    The surrogate is trained on the train part and travels with the edge device. d starts at random and takes
    ``steps`` steps of projected gradient ascent on the squared change of the surrogate's picture. An attacker who
    trains on what is sent has another decoder, and one who searches treats d as noise.
    """

    paper: ClassVar[str] = (
        "Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018, turned against a "
        "decoder: proposed as related work in P. Nagasubramaniam, 2023"
    )
    strength: ClassVar[str] = "radius"
    strengths: ClassVar[tuple[float, ...]] = (0.01, 0.3, 1.0, 2.0)

    radius: Annotated[float, Ge(0), Lt(math.inf), doc("norm of d, in units of the features' own")] = 0.5
    steps: Annotated[int, Gt(0), doc("of ascent for each image")] = 3
    training_steps: Annotated[int, Gt(0), doc("of the surrogate decoder")] = 300

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Perturbs on the edge."""
        return _PerturbingChannel(shape, self)


class _PerturbingChannel(Channel):
    unit: Tensor

    def __init__(self, shape: tuple[int, ...], settings: AdversarialPerturbation) -> None:
        super().__init__()
        self.settings = settings
        self.decoder = SurrogateDecoder(shape, PICTURE, PICTURE)
        self.register_buffer("unit", torch.zeros(()))

    def calibrate(self, calibration: Calibration) -> None:
        self.unit.fill_(calibration.root_mean_square())
        surrogate = Surrogate(self.decoder)
        for batch in calibration.cycle(self.settings.training_steps):
            surrogate.learn(batch.features, F.interpolate(batch.images, (PICTURE, PICTURE), mode="area"))
        self.decoder.requires_grad_(False)

    def send(self, features: Tensor) -> Tensor:
        radius = self.settings.radius * self.unit * features[0].numel() ** 0.5
        shift = _of_norm(torch.randn_like(features), radius)
        with torch.enable_grad():
            fixed = features.detach()
            picture = self.decoder(fixed).detach()
            for _ in range(self.settings.steps):
                shift.requires_grad_(True)
                change = (self.decoder(fixed + shift) - picture).square().sum()
                (gradient,) = torch.autograd.grad(change, shift)
                ascent = _of_norm(gradient, STEP * radius)
                shift = _of_norm(shift.detach() + ascent, radius)
        return features + shift


def _of_norm(values: Tensor, norm: Tensor) -> Tensor:
    """Each image's values scaled to this L2 norm."""
    norms = values.flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    scaled: Tensor = values * (norm / norms).view(-1, *[1] * (values.ndim - 1))
    return scaled
