"""An epsilon is never called false where it is true, and is where its sensitivity is understated."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from splitleak.defenses.base import Channel, Guarantee
from splitleak.defenses.clipped_noise import ClippedNoise, Mechanism, analytic_gaussian_sigma
from splitleak.experiments.judge.metrics.epsilon import audited_epsilon, epsilon_at_least, gaussian_epsilon
from splitleak.experiments.stages.probe import audited
from splitleak.victims.seeding import seeded

SHAPE = (4, 3, 3)
DELTA = 1e-5


def channel_of(epsilon: float, mechanism: Mechanism, understated: float = 1.0) -> Channel:
    """Calibrated to features of norm 1; the bound on how far two photos are apart is understated so many times."""
    channel = ClippedNoise(epsilon=epsilon, delta=DELTA, mechanism=mechanism).channel(SHAPE)
    scale = 2 / epsilon if mechanism == "laplace" else analytic_gaussian_sigma(epsilon, DELTA, 2.0)
    channel.get_buffer("scale").fill_(scale / understated)
    return channel


def features_of(repeat: int) -> Tensor:
    with seeded("audited photo", repeat):
        return torch.rand(3, *SHAPE)


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0])
def test_a_true_claim_stands_and_one_with_understated_sensitivity_falls(mechanism: Mechanism, epsilon: float) -> None:
    true, false = (channel_of(epsilon, mechanism, understated) for understated in (1.0, 4.0))
    found = []
    for repeat in range(6):
        with torch.no_grad(), seeded("audit", repeat):
            for channel in (true, false):
                at_least = audited(channel.send, features_of(repeat), channel.guarantee())
                assert at_least is not None
                found.append(at_least)
    assert max(found[::2]) <= epsilon
    assert min(found[1::2]) > 1.2 * epsilon
    if epsilon >= 1:
        assert np.mean(found[::2]) > 0.1 * epsilon  # and it is no empty statement


def test_many_true_claims_stand_at_the_confidence_that_is_stated() -> None:
    """At 90 %: Laplace noise on one value, whose ratio is e in half of the line, so that the bound can be reached."""
    random = np.random.default_rng(0)
    false = 0
    for _ in range(300):
        first, second = (random.laplace(mean, 2.0, 400) for mean in (1.0, -1.0))
        false += epsilon_at_least(first, second, 0.0, level=0.9) > 1.0
    assert false <= 300 * 0.1 + 3 * math.sqrt(300 * 0.1 * 0.9)


def test_inputs_that_cannot_be_told_apart_prove_nothing() -> None:
    random = np.random.default_rng(1)
    same = random.standard_normal((2, 1000))
    assert epsilon_at_least(*same, DELTA) == epsilon_at_least(*same, DELTA, gaussian=True) == 0.0


def test_what_is_always_told_apart_proves_what_the_sends_allow() -> None:
    """With no error among 500 sends on either side: each share is known to ln(2 / alpha) / 500."""
    proved = epsilon_at_least(np.ones(1000), -np.ones(1000), 0.0, level=0.95)
    missed = 1 - 0.025 ** (1 / 500)
    assert proved == pytest.approx(math.log((1 - missed) / missed), rel=1e-6)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 200.0])
def test_the_distance_tells_epsilon_as_the_mechanism_has_it(epsilon: float) -> None:
    sigma = analytic_gaussian_sigma(epsilon, DELTA, 1.0)
    assert gaussian_epsilon(1 / sigma, DELTA) == pytest.approx(epsilon, rel=1e-5)
    assert gaussian_epsilon(0.0, DELTA) == gaussian_epsilon(-1.0, DELTA) == 0.0


def test_larger_releases_are_sent_less_often() -> None:
    sent = []

    def send(features: Tensor) -> Tensor:
        sent.append(len(features))
        return features.sign() + torch.randn_like(features)

    audited_epsilon(send, torch.rand(1, 64, 64, 64), DELTA, gaussian=True)
    assert sum(sent) < 4 * 2**25 / 64**3 + 10


def test_only_a_claim_about_a_query_is_audited() -> None:
    send = channel_of(1.0, "gaussian").send
    for guarantee in (None, Guarantee("query", noise_std=1.0), Guarantee("training", 1.0, DELTA)):
        assert audited(send, features_of(0), guarantee) is None
