"""What an adversary without queries can imitate of the device: the defence, but no weights trained with it."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from splitleak.defenses.base import Channel, Perturbation
from splitleak.defenses.bottleneck import Bottleneck
from splitleak.defenses.channel_subset import ChannelSubset
from splitleak.defenses.fitting import SplitModel
from splitleak.defenses.gaussian_noise import GaussianNoise
from splitleak.experiments.stages.attack import EdgeDevice
from splitleak.experiments.stages.victim import NetworkStage
from splitleak.experiments.store.store import Store
from splitleak.victims.seeding import seeded

SHAPE = (8, 2, 2)


class Shift(Perturbation):
    """Makes photos brighter, by a random amount."""

    def forward(self, images: Tensor) -> Tensor:
        """Each by its own."""
        return images + torch.rand(len(images), 1, 1, 1)


class Held:
    """Stands for a stage and for the store that keeps it."""

    device = torch.device("cpu")

    def __init__(self, model: SplitModel) -> None:
        self.model = model

    def load(self, store: object) -> SplitModel:
        """The network."""
        return self.model.eval()


def device(channel: Channel | None = None, perturb: Perturbation | None = None, sends: int = 1) -> EdgeDevice:
    """Whose own encoder must not matter."""
    held = Held(SplitModel(nn.Conv2d(3, 8, 2), nn.Flatten(), channel, perturb))
    return EdgeDevice(cast(NetworkStage, held), cast(Store, held), sends)


def own() -> tuple[nn.Module, Tensor]:
    """An adversary's encoder, and photos."""
    with seeded("own"):
        return nn.Conv2d(3, 8, 4, stride=4).requires_grad_(False), torch.rand(500, 3, 8, 8)


def noise() -> Channel:
    channel: Any = GaussianNoise(1.0).channel(SHAPE)
    channel.std.fill_(2.0)
    return cast(Channel, channel)


@pytest.mark.parametrize("sends", [1, 4])
def test_noise_is_imitated_afresh_at_its_size(sends: int) -> None:
    encoder, images = own()
    edge = device(noise(), sends=sends)
    with seeded("imitated"):
        first, second = (edge.as_received(encoder, images) - encoder(images) for _ in range(2))
    assert float(first.std()) == pytest.approx(2 / sends**0.5, rel=0.05)
    assert float((first - second).std()) == pytest.approx(2 * (2 / sends) ** 0.5, rel=0.05)


def test_noise_on_the_images_comes_before_the_adversarys_encoder() -> None:
    encoder, images = own()
    edge = device(perturb=Shift())
    with seeded("shift"):
        seen = edge.as_received(encoder, images)
    with seeded("shift"):
        assert torch.equal(seen, encoder(Shift()(images)))


def test_what_is_kept_back_is_filled_as_the_cloud_fills_it() -> None:
    encoder, images = own()
    channel: Any = ChannelSubset(keep=0.5).channel(SHAPE)
    seen = device(channel).as_received(encoder, images)
    assert torch.equal(seen, channel.receive(channel.send(encoder(images))))
    assert seen.shape[1:] == SHAPE


def test_layers_trained_on_the_device_are_not_given_away() -> None:
    encoder, images = own()
    seen = device(Bottleneck(keep=0.25).channel(SHAPE)).as_received(encoder, images)
    assert torch.equal(seen, encoder(images))
