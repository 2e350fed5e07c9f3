"""What the device encodes once for several sends: the photo, unless a defence draws on it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from splitleak.defenses.base import Channel, Perturbation
from splitleak.defenses.fitting import SplitModel
from splitleak.experiments.stages.attack import EdgeDevice
from splitleak.victims.seeding import seeded


class _Encoder(nn.Module):
    """Counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        return torch.tanh(images)


class _Noise(Channel):
    def send(self, features: Tensor) -> Tensor:
        return features + torch.randn_like(features)


class _Blur(Perturbation):
    def forward(self, images: Tensor) -> Tensor:
        return images + torch.randn_like(images)


def _device(model: SplitModel, sends: int) -> EdgeDevice:
    stage = SimpleNamespace(load=lambda store: model)
    return EdgeDevice(cast(Any, stage), cast(Any, SimpleNamespace(device=torch.device("cpu"))), sends)


@pytest.mark.parametrize("sends", [1, 3])
@pytest.mark.parametrize(("perturb", "passes"), [(None, 1), (_Blur(), 4)])
def test_the_encoder_runs_as_often_as_its_input_changes(
    perturb: Perturbation | None, passes: int, sends: int
) -> None:
    encoder = _Encoder()
    device = _device(SplitModel(encoder, nn.Flatten(), _Noise(), perturb), sends)
    images = torch.rand(2, 3, 4, 4)
    with seeded("sends"):
        together = device.several(images, 4)
    assert encoder.passes == (1 if perturb is None else passes * sends)
    with seeded("sends"):
        apart = [device(images) for _ in range(4)]
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other)
    assert (together[0] != together[1]).all()


def test_each_send_blurs_the_photo_anew() -> None:
    device = _device(SplitModel(_Encoder(), nn.Flatten(), Channel(), _Blur()), 1)
    first, second = device.several(torch.rand(2, 3, 4, 4), 2)
    assert (first != second).all()
