"""The noise is the least that its bound allows, and no attacker learns more than the bound says."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from splitleak.defenses.base import Calibration, CalibrationBatch, Channel
from splitleak.defenses.checks import toy_calibration, toy_channel
from splitleak.defenses.gaussian_noise import GaussianNoise
from splitleak.defenses.pac_noise import PacNoise, upper_mean
from splitleak.experiments.judge.metrics.information import fano_rank_1, gaussian_information
from splitleak.victims.seeding import seeded

VARIANCES = 40.0 * torch.arange(1, 41).double() ** -2
SHAPE = (10, 2, 2)
ROUNDS = 60


def features_of(photos: int, seed: int) -> Tensor:
    """Normally distributed with these variances in directions of their own, about a mean that tells nothing."""
    with seeded("turn"):
        turn, _ = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64))
    with seeded("features", seed):
        drawn = torch.randn(photos, 40, dtype=torch.float64) * VARIANCES.sqrt() @ turn
    return (3 + drawn).float().view(-1, *SHAPE)


def calibration_of(features: Tensor) -> Calibration:
    batch = CalibrationBatch(torch.zeros(len(features), 3, 8, 8), features, None)
    return replace(toy_calibration(), batches=lambda: iter([batch]))


def channel_of(nats: float, photos: int = 4000) -> Channel:
    channel = PacNoise(nats).channel(SHAPE)
    channel.calibrate(calibration_of(features_of(photos, seed=1)))
    return channel


def test_with_many_photos_it_is_the_published_noise() -> None:
    channel = channel_of(2.0, photos=40_000)
    spread = VARIANCES.sqrt() * VARIANCES.sqrt().sum() / 4
    stds = channel.get_buffer("stds").double()
    # 40 values leave 39 directions and the one that is outside
    ours = torch.cat([stds, channel.get_buffer("outside").double()[None]]).square().sort(descending=True).values
    assert torch.allclose(ours, spread, rtol=0.1)
    assert (ours / spread).mean() > 1, "the limit of the mean is above the mean"
    zeros = torch.zeros(20_000, *SHAPE)
    with seeded("noise"):
        noise = channel.send(zeros).flatten(1)
    found = torch.linalg.eigvalsh(torch.cov(noise.T).double()).flip(0)
    assert torch.allclose(found, ours, rtol=0.1)
    guarantee = channel.guarantee()
    assert guarantee is not None
    assert guarantee.noise_std == pytest.approx(float(noise.square().mean().sqrt()), rel=0.01)
    assert math.isinf(guarantee.epsilon)


def test_in_units_of_the_noise_it_is_white() -> None:
    channel = channel_of(0.5)
    with seeded("noise"):
        white = channel.whitened(channel.send(torch.zeros(500, *SHAPE)))
    assert stats.kstest(white.flatten().double().numpy(), "norm").pvalue > 1e-3
    assert torch.allclose(torch.cov(white.flatten(1).T), torch.eye(40), atol=0.35)
    plain, features = toy_channel(GaussianNoise(0.5), toy_calibration())
    assert torch.equal(plain.whitened(features), features / plain.guarantee().noise_std)


@pytest.mark.parametrize(("photos", "directions"), [(32, 256), (64, 256), (200, 256), (4000, 5)])
def test_what_new_photos_tell_is_within_the_bound(photos: int, directions: int) -> None:
    """Also where there are fewer photos than values, or directions of their own for few."""
    claimed = 3.0
    told = []
    for seed in range(5):
        channel = PacNoise(claimed, directions).channel(SHAPE)
        channel.calibrate(calibration_of(features_of(photos, seed=10 + seed)))
        assert channel.guarantee().information == claimed
        white = [channel.whitened(features_of(2000, seed)).flatten(1) for seed in (2, 3)]
        told.append(math.log(2) * gaussian_information(*white))
    assert max(told) <= claimed
    assert min(told) > 0.02 * claimed, "it is no empty statement"


def test_one_isotropic_noise_of_the_same_bound_is_larger() -> None:
    channel = channel_of(1.0)
    energy = channel.guarantee().noise_std ** 2
    assert energy < 0.7 * float(VARIANCES.sum()) / 2


def identified(channel: Channel, people: int, sends: int) -> float:
    """How often the best guess who of equally likely people it is, from the mean of so many sends, is right."""
    faces = features_of(people, seed=4)
    known = channel.whitened(faces).flatten(1)
    right = 0
    with seeded("guesses", people, sends):
        for _ in range(ROUNDS):
            asked = torch.randint(people, (64,))
            seen = torch.stack([channel.send(faces[asked]) for _ in range(sends)]).mean(0)
            right += int((torch.cdist(channel.whitened(seen).flatten(1), known).argmin(1) == asked).sum())
    return right / (64 * ROUNDS)


@pytest.mark.parametrize("nats", [0.05, 0.3, 1.0])
def test_nobody_is_found_more_often_than_the_bound_allows(nats: float) -> None:
    channel = channel_of(nats)
    for people in (8, 40):
        found = identified(channel, people, sends=1)
        assert 1 / people < found <= fano_rank_1(nats / math.log(2), people) + 0.01


def test_sends_add_up() -> None:
    channel = channel_of(0.05)
    together = identified(channel, 40, sends=64)
    assert together > fano_rank_1(0.05 / math.log(2), 40), "so many sends tell more than one may"
    assert together <= fano_rank_1(64 * 0.05 / math.log(2), 40)


def test_too_few_photos_prove_nothing_and_alike_ones_break_nothing() -> None:
    few = PacNoise().channel(SHAPE)
    few.calibrate(calibration_of(features_of(6, seed=1)))
    assert few.guarantee().information is None
    same = PacNoise().channel(SHAPE)
    same.calibrate(calibration_of(torch.ones(40, *SHAPE)))
    assert same.send(torch.ones(2, *SHAPE)).isfinite().all()
    # and the fewer there are, the more noise the claim costs
    energies = [channel_of(1.0, photos).guarantee().noise_std for photos in (16, 100, 4000)]
    assert energies == sorted(energies, reverse=True)


def test_the_limit_of_the_mean_holds_as_often_as_it_says() -> None:
    with seeded("limits"):
        values = torch.distributions.Chi2(torch.tensor(3.0)).sample((3000, 60))
    assert float(torch.tensor([upper_mean(some) < 3 for some in values]).float().mean()) <= 0.01
    assert upper_mean(torch.tensor([2.5])) == 2.5


def test_from_no_defence_to_the_floor() -> None:
    calibration = toy_calibration()
    features = toy_channel(PacNoise(), calibration)[1]
    weak, strong = (toy_channel(PacNoise(nats), calibration)[0] for nats in (1e9, 1e-3))
    assert torch.allclose(weak.send(features), features, atol=1e-2 * float(features.std()))
    with seeded("lost"):
        kept = torch.corrcoef(torch.stack([strong.send(features).flatten(), features.flatten()]))[0, 1]
    assert abs(float(kept)) < 0.1
