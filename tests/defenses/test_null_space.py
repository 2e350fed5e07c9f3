"""What is left out is all that the tail's first layer cannot see, and no more."""

import pytest
import torch
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, CalibrationBatch
from splitleak.defenses.first_layer import first_layer, seen_by
from splitleak.defenses.null_space import NullSpace
from splitleak.victims.seeding import seeded

CPU = torch.device("cpu")
SHAPE = (12, 4, 4)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(12, 12, 3, padding=1, groups=12)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layer(features)


class Branches(nn.Module):
    """Two layers see the same release."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(12, 2, 1), nn.Conv2d(12, 3, 1)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([self.one(features).relu(), self.other(features).tanh()], 1)


def tail_of(layer: nn.Module) -> nn.Module:
    with seeded("weights"):
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
    return nn.Sequential(layer, nn.ReLU(), nn.Flatten()).eval()


def calibration_of(tail: nn.Module, shape: tuple[int, ...] = SHAPE) -> Calibration:
    with seeded("features"):
        batch = CalibrationBatch(torch.zeros(64, 3, 8, 8), torch.randn(64, *shape), None)
    return Calibration(lambda: iter([batch]), nn.Identity(), tail, CPU)


@pytest.mark.parametrize(
    ("layer", "form", "share"),
    [
        (nn.Conv2d(12, 5, 1), "channels", 5 / 12),
        (nn.Conv2d(12, 4, 2, padding=1), "whole", 100 / 192),  # 5x5 outputs of 4, which see all channels
        (nn.Conv2d(12, 12, 3, stride=2, padding=1, groups=12), "places", 4 / 16),
        (nn.AdaptiveAvgPool2d(1), "places", 1 / 16),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 7)), "whole", 7 / 192),
        (Branches(), "channels", 5 / 12),
    ],
    ids=["pointwise", "few outputs", "stride", "pooling", "linear", "branches"],
)
def test_what_a_linear_layer_cannot_see_is_left_out_without_loss(layer: nn.Module, form: str, share: float) -> None:
    tail = tail_of(layer)
    seen = seen_by(tail, SHAPE, CPU)
    assert seen is not None
    assert (seen.layout.form, seen.share) == (form, pytest.approx(share))
    channel = NullSpace().channel(SHAPE)
    calibration = calibration_of(tail)
    channel.calibrate(calibration)
    features = next(calibration.batches()).features
    left = channel.send(features)
    torch.testing.assert_close(tail(left), tail(features), rtol=1e-3, atol=1e-4)
    assert float(left.square().sum() / features.square().sum()) == pytest.approx(share, rel=0.2)
    torch.testing.assert_close(channel.send(left), left, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "layer",
    [nn.ReLU(), Residual(), nn.Conv2d(12, 40, 1), nn.BatchNorm2d(12), nn.LayerNorm(4)],
    ids=["rectified", "residual", "wide", "batch norm", "layer norm"],
)
def test_where_all_is_seen_all_is_sent(layer: nn.Module) -> None:
    calibration = calibration_of(tail_of(layer))
    channel = NullSpace(0.5).channel(SHAPE)
    channel.calibrate(calibration)
    features = next(calibration.batches()).features
    assert torch.equal(channel.send(features), features)


def test_a_layer_that_is_not_linear_is_none() -> None:
    assert first_layer(tail_of(nn.ReLU()), SHAPE, CPU) is None
    assert first_layer(tail_of(Residual()), SHAPE, CPU) is not None  # linear, but it sees everything


def test_tokens_have_channels_too() -> None:
    tail = tail_of(nn.Linear(8, 3))
    seen = seen_by(tail, (5, 8), CPU)
    assert seen is not None
    assert (seen.layout.form, seen.share) == ("channels", pytest.approx(3 / 8))


def test_fewer_directions_are_those_that_are_seen_best() -> None:
    layer = nn.Conv2d(12, 3, 1, bias=False)
    tail = tail_of(layer)
    with torch.no_grad():
        layer.weight.zero_()
        for output, gain in enumerate((1.0, 10.0, 3.0)):
            layer.weight[output, output] = gain
    calibration = calibration_of(tail)
    channel = NullSpace(2 / 3).channel(SHAPE)
    channel.calibrate(calibration)
    features = next(calibration.batches()).features
    left = channel.send(features)
    torch.testing.assert_close(left[:, 1:3], features[:, 1:3], rtol=1e-4, atol=1e-5)
    assert left[:, [0, *range(3, 12)]].abs().max() < 1e-5
    lost = [NullSpace(keep).statistic(calibration) for keep in (1.0, 0.67, 0.34)]
    assert lost[0] < 1e-5
    assert lost[1:] == pytest.approx([(1 / 110) ** 0.5, (10 / 110) ** 0.5], rel=0.1)


def test_no_attacker_reads_what_is_left_out() -> None:
    """Photos that differ only in what the tail does not see are sent alike."""
    tail = tail_of(nn.Conv2d(12, 5, 1))
    channel = NullSpace().channel(SHAPE)
    channel.calibrate(calibration_of(tail))
    with seeded("hidden"):
        any_release = torch.randn(3, *SHAPE)
    hidden = any_release - channel.send(any_release)
    assert channel.send(hidden).abs().max() < 1e-4 * hidden.abs().max()
