"""On the linear-Gaussian victim, whose optimum is known, cheap attacks reach it and none goes beyond."""

from typing import Any

import pytest
import torch

from splitleak.attacks.base import Attack
from splitleak.attacks.flow_prior import FlowPrior
from splitleak.attacks.mean_image import MeanImage
from splitleak.attacks.refine import Refine
from splitleak.attacks.ridge import Ridge
from splitleak.attacks.rmle import Rmle
from splitleak.attacks.stack import Stack
from splitleak.experiments.benchmarks.calibration import calibrate
from splitleak.victims.gaussian import GaussianVictim
from splitleak.victims.seeding import seeded


@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_the_closed_form_is_the_posterior_means_error(sigma: float) -> None:
    victim = GaussianVictim(sigma)
    images = victim.images(3000, seed=9)
    with seeded("noise"):
        error = (victim.posterior_mean(victim.edge(images)) - images).square().mean()
    assert float(error) == pytest.approx(victim.least_error, rel=0.02)


def test_more_noise_leaves_less() -> None:
    errors = [GaussianVictim(sigma).least_error for sigma in (0.0, 0.3, 1.0, 100.0)]
    assert errors == sorted(errors)
    prior = float(GaussianVictim().covariance.diagonal().mean())
    assert errors[-1] == pytest.approx(prior, rel=0.01)


def test_features_are_standardised() -> None:
    features = GaussianVictim().encoder(GaussianVictim().images(4000, seed=5))
    torch.testing.assert_close(features.mean((0, 2, 3)), torch.zeros(24), atol=0.05, rtol=0)
    torch.testing.assert_close(features.std((0, 2, 3)), torch.ones(24), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("attack", "least", "most"),
    [
        (MeanImage(), 4.0, 7.0),
        (Ridge(), 0.999, 1.01),
        # its linear maps are the optimum, and what it makes of them must be no worse
        (Stack(trainings=1, width=16, epochs=1), 0.999, 1.02),
        # noise is averaged over draws in each step: two are enough here
        (Rmle(prior="gaussian", learning_rate=0.05, components=256, steps=300, draws=2), 0.999, 1.05),
        # a search with few passes of training: between the floor, which the mean image shows, and the optimum
        pytest.param(
            FlowPrior(width=16, epochs=6, flow_width=16, flow_epochs=6, steps=20, draws=2),
            0.999,
            3.5,
            marks=pytest.mark.slow,
        ),
        pytest.param(Refine(width=16, epochs=6, steps=40, draws=2), 0.999, 2.5, marks=pytest.mark.slow),
    ],
    ids=lambda value: value.name if isinstance(value, Attack) else "",
)
def test_attacks_come_near_the_optimum_and_not_beyond(attack: Attack[Any], least: float, most: float) -> None:
    assert least <= calibrate(attack, GaussianVictim(), targets=128, auxiliary=4000).ratio <= most
