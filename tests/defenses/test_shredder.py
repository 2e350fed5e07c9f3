"""Shredder samples what its two versions sample: a learned order, which is undone, or each element by itself."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from splitleak.attacks.mixture import look_for_mixture, patterns_added
from splitleak.defenses.checks import check_defense, toy_calibration, toy_channel
from splitleak.defenses.shredder import Sampling, Shredder, learned_noise
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.seeding import seeded


def sends(sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Features (n, ...) and 400 draws of the noise on the first photo."""
    channel, features = toy_channel(Shredder(2.0, tensors=4, steps=5, sampling=sampling), toy_calibration())
    with seeded("sends"):
        return features, channel.send(features[:1].expand(400, -1, -1, -1)) - features[0]


def test_elementwise_draws_are_independent() -> None:
    _, noise = sends("elementwise")
    flat = noise.flatten(1)[:, :40]
    correlated = torch.corrcoef(flat.T) - torch.eye(40)
    assert float(correlated.abs().max()) < 0.25  # five standard errors of 400 draws
    _, ordered = sends("ordered")
    assert float((torch.corrcoef(ordered.flatten(1)[:, :40].T) - torch.eye(40)).abs().max()) > 0.9


def test_each_element_has_the_laplace_distribution_of_what_was_learned_there() -> None:
    calibration = toy_calibration()
    settings = Shredder(2.0, tensors=4, steps=5, sampling="elementwise")
    channel, features = toy_channel(settings, calibration)
    with seeded("check"):  # as toy_channel calibrates
        learned = torch.stack(list(learned_noise(settings, (96, 2, 2), calibration)))
    mean, scale = learned.mean(0), learned.std(0, correction=0)
    with seeded("draws"):
        noise = channel.send(features) - features
    values = ((noise - mean) / scale).double().flatten().numpy()
    assert stats.kstest(values, "laplace").pvalue > 1e-3


@pytest.mark.parametrize(("sampling", "patterns"), [("ordered", 8), ("elementwise", 0)])
def test_an_ordered_draw_is_one_of_a_few_patterns(sampling: Sampling, patterns: int) -> None:
    calibration = toy_calibration()
    channel, _ = toy_channel(Shredder(4.0, tensors=8, steps=5, sampling=sampling), calibration)
    features = torch.cat([batch.features for batch in calibration.batches()])
    with seeded("look"):
        assert patterns_added(lambda rows: channel.send(features[rows]), len(features)) == patterns
        assert (look_for_mixture(lambda rows: channel.send(features[rows]), len(features)) is None) == (patterns == 0)


def test_elementwise_keeps_its_contract() -> None:
    assert check_defense(Shredder(sampling="elementwise")) == []


def test_one_tensor_has_no_spread() -> None:
    with pytest.raises(InvalidInputError, match="learn at least 2"):
        Shredder(tensors=1, sampling="elementwise")
