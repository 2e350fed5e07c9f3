"""Smoothed labels, as torch has them."""

import pytest
import torch
import torch.nn.functional as F

from splitleak.defenses.checks import toy_calibration, toy_channel
from splitleak.defenses.label_smoothing import LabelSmoothing
from splitleak.victims.seeding import seeded


@pytest.mark.parametrize("smoothing", [0.0, 0.2, 0.9])
def test_with_cross_entropy_it_is_cross_entropy_to_smoothed_labels(smoothing: float) -> None:
    calibration = toy_calibration()
    defense = LabelSmoothing(smoothing)
    channel, features = toy_channel(defense, calibration)
    term = defense.objective(calibration, channel)
    with seeded("logits"):
        logits, labels = 3 * torch.randn(20, 5), torch.randint(5, (20,))
    total = F.cross_entropy(logits, labels) + term(features, features, features, logits, labels)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert float(total) == pytest.approx(float(expected), rel=1e-5)


def test_it_changes_training_and_nothing_that_is_sent() -> None:
    defense = LabelSmoothing()
    channel, features = toy_channel(defense, toy_calibration())
    assert torch.equal(channel.send(features), features)
    assert defense.retrains == "network"
    assert defense.inapplicable((8, 2, 2), None) is not None
