"""Utility is scored on as many draws as leakage, where the device draws at random."""

import torch
from torch import Tensor, nn

from splitleak.defenses.base import Channel, Perturbation
from splitleak.defenses.fitting import SplitModel
from splitleak.experiments.stages.protect import DRAWS, decisions
from splitleak.victims.seeding import seeded


class Noise(Channel):
    """Of standard deviation 1."""

    def send(self, features: Tensor) -> Tensor:
        """Noisy features."""
        return features + torch.randn_like(features)


class Shake(Perturbation):
    """On the images."""

    def forward(self, images: Tensor) -> Tensor:
        """Noisy images."""
        return images + torch.randn_like(images)


class Sign(nn.Module):
    """Class 1 of what is above 0."""

    def forward(self, features: Tensor) -> Tensor:
        """(n, 2)."""
        return torch.cat([-features, features], 1)


class Mean(nn.Module):
    """Of a photo, less a half."""

    def forward(self, images: Tensor) -> Tensor:
        """(n, 1)."""
        return images.mean((1, 2, 3))[:, None] - 0.5


IMAGES = torch.linspace(0, 1, 64)[:, None, None, None].expand(64, 3, 1, 1)


def test_a_device_that_draws_nothing_is_asked_once() -> None:
    said = decisions(SplitModel(Mean(), Sign()), IMAGES)
    assert said.tolist() == [[0] * 32 + [1] * 32]


def test_a_device_that_draws_is_asked_three_times_whatever_it_draws() -> None:
    for model in (SplitModel(Mean(), Sign(), Noise()), SplitModel(Mean(), Sign(), perturb=Shake())):
        with seeded("draws"):
            said = decisions(model, IMAGES)
        assert said.shape == (DRAWS, 64) == (3, 64)
        pairs = [(said[one] != said[other]).float().mean() for one, other in ((0, 1), (1, 2), (0, 2))]
        assert min(pairs) > 0.1  # each draw is its own
