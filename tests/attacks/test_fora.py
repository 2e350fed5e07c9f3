"""Distributions are compared as a slow oracle does, and a shadow that matches them can be inverted."""

from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splitleak.attacks.checks import share_of_floor
from splitleak.attacks.fora import BANDWIDTHS, Critic, Fora, discrepancy, gradient_penalty
from splitleak.attacks.toy import given_away
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float


def slow_discrepancy(own: Tensor, theirs: Tensor) -> float:
    """Pair by pair in double precision."""
    a, b = (part.double().flatten(1).numpy() for part in (own, theirs))
    both = np.concatenate([a, b])
    pairs = [((p - q) ** 2).sum() for i, p in enumerate(both) for j, q in enumerate(both) if i != j]
    unit = np.mean(pairs)

    def mean(left: np.ndarray, right: np.ndarray, same: bool) -> float:
        values = [
            sum(np.exp(-((p - q) ** 2).sum() / (2 * width * unit)) for width in BANDWIDTHS)
            for i, p in enumerate(left)
            for j, q in enumerate(right)
            if not (same and i == j)
        ]
        return float(np.mean(values))

    return mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)


@settings(max_examples=40, deadline=None)
@given(
    own=st.integers(2, 9),
    theirs=st.integers(2, 9),
    shape=st.sampled_from([(1,), (5,), (3, 2), (4, 3, 2)]),
    offset=st.sampled_from([0.0, 0.5, 100.0]),
    seed=st.integers(0, 1000),
)
def test_discrepancy_is_the_slow_one(own: int, theirs: int, shape: tuple[int, ...], offset: float, seed: int) -> None:
    with seeded("discrepancy", seed):
        first, second = torch.randn(own, *shape), torch.randn(theirs, *shape) + offset
    assert float(discrepancy(first, second)) == pytest.approx(slow_discrepancy(first, second), abs=1e-3)


def test_discrepancy_is_zero_on_average_for_one_distribution() -> None:
    with seeded("null"):
        values = torch.stack([discrepancy(torch.randn(20, 6), torch.randn(20, 6)) for _ in range(400)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / len(values) ** 0.5
    assert float(values.min()) < 0  # unbiased: not squeezed to be positive


def test_discrepancy_grows_with_the_shift_and_the_spread() -> None:
    with seeded("shift"):
        first, second = torch.randn(200, 6), torch.randn(200, 6)
    shifts = [float(discrepancy(first, second + shift)) for shift in (0.0, 0.5, 1.0, 2.0, 8.0)]
    spreads = [float(discrepancy(first, second * spread)) for spread in (1.0, 1.5, 3.0)]
    assert shifts == sorted(shifts)
    assert spreads == sorted(spreads)
    assert shifts[-1] < 2 * len(BANDWIDTHS)


def test_discrepancy_of_constant_features_has_a_gradient() -> None:
    own = torch.ones(4, 3, requires_grad=True)
    discrepancy(own, torch.ones(4, 3)).backward()  # type: ignore[no-untyped-call]
    assert own.grad is not None
    assert own.grad.isfinite().all()


@settings(max_examples=30, deadline=None)
@given(shape=st.sampled_from([(4,), (3, 2), (5, 2, 2)]), scale=st.floats(0.01, 10), seed=st.integers(0, 1000))
def test_gradient_penalty_of_a_linear_critic(shape: tuple[int, ...], scale: float, seed: int) -> None:
    with seeded("penalty", seed):
        direction = (scale * torch.randn(shape)).requires_grad_()
        own, theirs = torch.randn(6, *shape), torch.randn(6, *shape)

        def critic(points: Tensor) -> Tensor:
            return (points * direction).flatten(1).sum(1, keepdim=True)

        penalty = gradient_penalty(critic, own, theirs)
    assert float(penalty.detach()) == pytest.approx((float(direction.detach().norm()) - 1) ** 2, rel=1e-4, abs=1e-5)
    (gradient,) = torch.autograd.grad(penalty, direction)
    expected = 2 * (direction.norm() - 1) * direction / direction.norm()
    torch.testing.assert_close(gradient, expected.detach(), rtol=1e-3, atol=1e-4)


def test_gradient_penalty_is_taken_between_the_samples() -> None:
    seen: list[Tensor] = []

    def critic(points: Tensor) -> Tensor:
        seen.append(points.detach())
        return points.square().sum(1, keepdim=True)

    own, theirs = torch.zeros(50, 2), torch.tensor([[1.0, 3.0]]).expand(50, 2)
    with seeded("between"):
        gradient_penalty(critic, own, theirs)
    torch.testing.assert_close(seen[0][:, 1], 3 * seen[0][:, 0])  # on the line, and all along it
    assert 0 <= float(seen[0][:, 0].min()) < 0.1
    assert 0.9 < float(seen[0][:, 0].max()) <= 1


@pytest.mark.parametrize("shape", [(6, 9, 5), (5, 8), (12,)], ids=["maps", "tokens", "vector"])
def test_critic_learns_to_score_what_was_received_higher(shape: tuple[int, ...]) -> None:
    with seeded("critic"):
        received = 100 + 10 * torch.randn(64, *shape)
        critic = Critic(received, 3e-4, 10.0)
        for _ in range(20):
            critic.learn(received - 10, received)
        gap = critic(received).mean() - critic(received - 10).mean()
    assert critic(received).shape == (64, 1)
    assert float(gap.detach()) > 0.1


def test_recovers_an_encoder_that_the_distribution_gives_away() -> None:
    """From the median start: from an unlucky one it recovers less, whatever it learns."""
    attack = Fora(steps=300, learning_rate=1e-2, width=16, decoder_epochs=8)
    assert median(share_of_floor(attack, start) for start in range(3)) < 0.5


def test_longer_training_brings_the_distributions_nearer() -> None:
    knows, _ = given_away()
    received = knows.intercepted

    def left(steps: int) -> float:
        with seeded("longer"):
            shadow = Fora(steps=steps, learning_rate=3e-3).shadow(knows)
            return float(discrepancy(shadow(to_float(knows.images["auxiliary"])), received))

    assert left(200) < 0.5 * left(50)
