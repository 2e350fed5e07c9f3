"""Which guarantee a chain may claim, for chains drawn at random, and whether attackers respect it."""

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splitleak.defenses.base import Channel, Defense, Guarantee
from splitleak.defenses.bottleneck import Bottleneck
from splitleak.defenses.chain import Chain
from splitleak.defenses.channel_subset import ChannelSubset
from splitleak.defenses.checks import toy_calibration, toy_channel
from splitleak.defenses.clipped_noise import ClippedNoise
from splitleak.defenses.dropout import Dropout
from splitleak.defenses.gaussian_noise import GaussianNoise
from splitleak.defenses.keyed_mixing import KeyedMixing
from splitleak.defenses.label_smoothing import LabelSmoothing
from splitleak.defenses.laplace_noise import LaplaceNoise
from splitleak.defenses.pac_noise import PacNoise
from splitleak.experiments.judge.metrics.information import fano_rank_1
from splitleak.experiments.stages.probe import audited
from splitleak.victims.seeding import seeded

PARTS: tuple[Defense, ...] = (
    GaussianNoise(1.0),
    LaplaceNoise(0.5),
    Dropout(0.3),
    KeyedMixing(),
    ChannelSubset(0.5, "first"),
    Bottleneck(0.5),
    LabelSmoothing(0.2),
    ClippedNoise(2.0),
    ClippedNoise(6.0, mechanism="laplace"),
    ClippedNoise(math.inf),
    PacNoise(0.5),
    PacNoise(4.0),
)
TRAINED = (Bottleneck, LabelSmoothing)
chains = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map(tuple)


@cache
def guarantee_of(parts: tuple[Defense, ...]) -> Guarantee | None:
    return toy_channel(Chain(parts), toy_calibration(64))[0].guarantee()


@settings(deadline=None, max_examples=60)
@given(parts=chains)
def test_a_chain_claims_what_its_best_part_does_and_nothing_that_training_voids(parts: tuple[Defense, ...]) -> None:
    found = guarantee_of(parts)
    epsilons = [(part.epsilon, part.mechanism) for part in parts if isinstance(part, ClippedNoise)]
    least, mechanism = min(epsilons, default=(math.inf, ""))
    assert (found.epsilon if found else math.inf) == least
    if math.isfinite(least):
        assert found is not None
        assert found.delta == (1e-5 if mechanism == "gaussian" else 0.0)
    network = any(isinstance(part, LabelSmoothing) for part in parts)
    stands = [
        part.nats
        for number, part in enumerate(parts)
        if isinstance(part, PacNoise)
        and not network
        and not any(isinstance(before, TRAINED) for before in parts[:number])
    ]
    assert (found.information if found else None) == min(stands, default=None)
    # noise on what a part was given is none on the features
    assert found is None or found.noise_std is None


@settings(deadline=None, max_examples=40)
@given(parts=chains, after=st.sampled_from(PARTS))
def test_what_comes_after_takes_nothing_away(parts: tuple[Defense, ...], after: Defense) -> None:
    alone, further = guarantee_of(parts), guarantee_of((*parts, after))
    if alone is None:
        return
    assert further is not None
    assert further.epsilon <= alone.epsilon
    if alone.information is not None and not isinstance(after, LabelSmoothing):
        assert further.information is not None
        assert further.information <= alone.information


@pytest.mark.parametrize(
    "parts",
    [
        (ClippedNoise(1.0), Dropout(0.3)),
        (KeyedMixing(), ClippedNoise(1.0)),
        (ChannelSubset(0.5, "first"), ClippedNoise(1.0, mechanism="laplace"), KeyedMixing()),
        (ClippedNoise(4.0), ClippedNoise(1.0)),
    ],
    ids=["dropout after it", "a key before it", "in the middle", "twice"],
)
def test_an_audit_does_not_refute_the_epsilon_of_a_chain(parts: tuple[Defense, ...]) -> None:
    channel, features = toy_channel(Chain(parts), toy_calibration())
    with torch.no_grad(), seeded("audit"):
        proved = audited(channel.send, features, channel.guarantee())
    assert proved is not None
    assert proved <= 1.0


@dataclass(frozen=True)
class Doubling(Defense):
    """Part of a chain that scales what it is given."""

    paper: ClassVar[str] = "a test's"

    def channel(self, shape: tuple[int, ...]) -> Channel:
        return _Doubled()


class _Doubled(Channel):
    def send(self, features: Tensor) -> Tensor:
        return 2 * features


def white(channel: Channel, release: Tensor) -> Tensor:
    found = channel.whitened(release)
    assert found is not None
    return found.flatten(1)


@pytest.mark.parametrize("behind", [False, True])
def test_nobody_is_found_more_often_behind_a_chain_than_its_nats_allow(behind: bool) -> None:
    """Scaling before noise is what its covariance was measured of; behind it nothing is added to what it let by."""
    parts = (PacNoise(1.0), Doubling()) if behind else (Doubling(), PacNoise(1.0))
    calibration = toy_calibration(512)
    channel, _ = toy_channel(Chain(parts), calibration)
    guarantee = channel.guarantee()
    assert guarantee is not None
    assert guarantee.information == 1.0
    people = torch.cat([batch.features for batch in calibration.batches()])[:40]
    shaped = channel.get_submodule("channels.0" if behind else "channels.1")
    assert isinstance(shaped, Channel)
    known = white(shaped, 2 * people)
    right = 0
    with torch.no_grad(), seeded("guesses"):
        for _ in range(60):
            asked = torch.randint(40, (64,))
            seen = white(shaped, channel.send(people[asked]))
            right += int((torch.cdist(seen, known).argmin(1) == asked).sum())
    assert 1 / 40 < right / 3840 <= fano_rank_1(1 / math.log(2), 40)
