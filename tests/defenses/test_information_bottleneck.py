"""The random code and its divergence; whether the encoder trains with it."""

from pathlib import Path

import pytest
import torch
from tiny import HEAD, RIDGE
from torch import nn

from splitleak.defenses.chain import Chain
from splitleak.defenses.checks import toy_calibration, toy_channel
from splitleak.defenses.information_bottleneck import InformationBottleneck
from splitleak.defenses.top_k import TopK
from splitleak.experiments.cells.build import cells_of
from splitleak.experiments.planning.plan import read_plan
from splitleak.victims.seeding import seeded


def test_the_divergence_is_that_of_what_is_sent() -> None:
    calibration = toy_calibration()
    defense = InformationBottleneck(2.0)
    channel, features = toy_channel(defense, calibration)
    nn.init.normal_(channel.get_parameter("logarithm"), std=0.02)
    with seeded("draws"), torch.no_grad():
        draws = torch.stack([channel.send(features) for _ in range(400)])
    sent = torch.distributions.Normal(draws.mean(0), draws.std(0))
    expected = torch.distributions.kl_divergence(sent, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1).mean()
    objective = defense.objective(calibration, channel)
    value = objective(features, features, draws[0], torch.zeros(()), None)
    assert float(value.detach()) == pytest.approx(2 * float(expected), rel=0.02)


def test_the_setting_decides_what_is_trained() -> None:
    assert InformationBottleneck().retrains == "tail"
    whole = InformationBottleneck(trains_encoder=True)
    assert whole.retrains == "network"
    assert InformationBottleneck.from_mapping(whole.to_mapping()).retrains == "network"
    assert Chain((InformationBottleneck(), TopK())).retrains == "tail"
    assert Chain((TopK(), whole)).retrains == "network"


def test_a_plan_trains_the_encoder_or_leaves_it(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(HEAD + '[[defenses]]\nname = "information_bottleneck"\ntrains_encoder = [false, true]\n' + RIDGE)
    trained = {cell.defense.label: cell.protect.own_encoder for cell in cells_of(read_plan(plan))}
    assert trained["information_bottleneck trains_encoder=True"]
    assert not trained["information_bottleneck trains_encoder=False"]
