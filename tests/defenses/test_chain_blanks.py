"""Blanks of any part of a chain are told from features, sends are merged by them, and choices are not made anew."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splitleak.defenses.base import Channel, Defense
from splitleak.defenses.chain import Chain
from splitleak.defenses.channel_subset import ChannelSubset
from splitleak.defenses.checks import toy_calibration, toy_channel
from splitleak.defenses.dropout import Dropout
from splitleak.defenses.gaussian_noise import GaussianNoise
from splitleak.defenses.keyed_mixing import KeyedMixing
from splitleak.defenses.none import NoDefense
from splitleak.defenses.quantisation import Quantisation
from splitleak.defenses.top_k import TopK
from splitleak.victims.seeding import seeded

TELLING: tuple[Defense, ...] = (
    NoDefense(),
    ChannelSubset(0.5, "variance"),
    Dropout(0.4),
    KeyedMixing("permutation"),
    Quantisation(8),
    TopK(0.3),
)
"""Behind these a blank is still told from a feature."""
parts = st.lists(st.sampled_from(TELLING), min_size=1, max_size=4, unique=True).map(tuple)


def chained(of: tuple[Defense, ...]) -> tuple[Any, Tensor]:
    return toy_channel(Chain(of), toy_calibration())


def followed(channel: Any, features: Tensor) -> tuple[Tensor, Tensor]:
    """The release, and which of its entries stem from a feature that every part sent."""
    there = torch.ones_like(features, dtype=torch.bool)
    for part in channel.each:
        sent = part.send(features)
        if isinstance(part, type(toy_channel(ChannelSubset(0.5, "first"), toy_calibration())[0])):
            there = there.index_select(1, part.kept)
        elif hasattr(part, "matrix"):
            there = there[:, part.matrix.argmax(1)]
        elif type(part).arrived is not Channel.arrived:
            there = there & (sent != 0)
        features = sent
    return features, there


@settings(deadline=None, max_examples=40)
@given(of=parts, seed=st.integers(0, 1000))
def test_a_blank_of_any_part_is_marked_and_few_features_are(of: tuple[Defense, ...], seed: int) -> None:
    channel, features = chained(of)
    with seeded("chain", seed):
        release, there = followed(channel, features)
    arrived = channel.arrived(release)
    assert arrived.shape == release.shape
    assert not bool((arrived & ~there).any()), "a blank is taken for a feature"
    assert float((there & ~arrived).float().mean()) < 0.02, "features are taken for blanks"


@settings(deadline=None, max_examples=30)
@given(of=parts, seed=st.integers(0, 1000))
def test_sends_are_merged_over_those_in_which_a_feature_arrived(of: tuple[Defense, ...], seed: int) -> None:
    channel, features = chained(of)
    with seeded("merge", seed):
        sends = torch.stack([channel.send(features) for _ in range(3)], 1)
    merged = channel.merge(sends)
    torch.testing.assert_close(channel.merge(sends[:, :1].expand_as(sends)), sends[:, 0])
    torch.testing.assert_close(channel.merge(sends[:, [2, 0, 1]]), merged)
    arrived = torch.stack([channel.arrived(sends[:, number]) for number in range(3)], 1)
    for number in range(3):
        only = arrived[:, number] & (arrived.sum(1) == 1)
        torch.testing.assert_close(merged[only], sends[:, number][only])


def test_behind_noise_nothing_is_taken_for_a_blank() -> None:
    channel, features = chained((Dropout(0.5), GaussianNoise(0.5)))
    assert bool(channel.arrived(channel.send(features)).all())
    noisy, _ = chained((GaussianNoise(0.5), Dropout(0.5), Quantisation(8)))
    release = noisy.send(features)
    assert 0.4 < float(noisy.arrived(release).float().mean()) < 0.6


def test_many_sends_through_dropout_and_bits_tell_every_feature() -> None:
    channel, features = chained((Dropout(0.5), Quantisation(8)))
    with seeded("many"):
        merged = channel.receive(channel.merge(torch.stack([channel.send(features) for _ in range(20)], 1)))
    plain = toy_channel(Quantisation(8), toy_calibration())[0]
    assert float((merged - features).norm() / features.norm()) < 0.1
    assert float((plain(features) - features).norm() / features.norm()) < 0.1


@pytest.mark.parametrize("of", [(TopK(0.1),), (TopK(0.1), Quantisation(12)), (ChannelSubset(0.5), TopK(0.1))])
def test_a_candidate_sends_what_the_release_holds(of: tuple[Defense, ...]) -> None:
    channel, features = chained(of)
    release = channel.send(features)
    arrived = channel.arrived(release)
    torch.testing.assert_close(channel.send_like(features, release), release)
    with seeded("candidate"):
        grey = (0.01 * torch.randn_like(features)).requires_grad_()
    like, anew = (
        torch.autograd.grad((sent * arrived).sum(), grey, retain_graph=True)[0] != 0
        for sent in (channel.send_like(grey, release), channel.send(grey))
    )
    assert int(like.sum()) >= 0.4 * int(arrived.sum())
    assert int(anew.sum()) < 0.3 * int(arrived.sum())


def test_where_a_release_does_not_tell_the_choice_it_is_made_anew() -> None:
    channel, features = chained((TopK(0.1), GaussianNoise(0.5)))
    release = channel.send(features)
    with seeded("same"):
        sent = channel.send(features)
    with seeded("same"):
        assert torch.equal(channel.send_like(features, release), sent)
