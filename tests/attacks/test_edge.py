"""Several sends of the same images: one pass through the encoder, the same gradients, parts that fit the memory."""

import pytest
import torch
from torch import Tensor, nn

from splitleak.attacks import optimise
from splitleak.attacks.edge import Edge, PlainEdge
from splitleak.attacks.optimise import FeatureLoss, Schedule, Space, at_a_time, search, total_variation
from splitleak.victims.seeding import seeded


class _Encoder(nn.Module):
    """A convolution that notes how many images it is given each time."""

    def __init__(self) -> None:
        super().__init__()
        with seeded("encoder"):
            self.layer = nn.Conv2d(3, 8, 4, stride=4).requires_grad_(False)
        self.given: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.given.append(len(images))
        return torch.tanh(self.layer(images))


class _Noise(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features * (1 + torch.randn_like(features))


class _Blurred(Edge):
    """Draws on the images: nothing of it is the same in each send."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Encoder()

    def features(self, images: Tensor) -> Tensor:
        return images

    def send(self, features: Tensor) -> Tensor:
        sent: Tensor = self.encoder(features + torch.randn_like(features))
        return sent


def _loss(edge: Edge, release: Tensor, draws: int) -> FeatureLoss:
    return FeatureLoss(edge, release, torch.ones_like(release, dtype=torch.bool), torch.ones(8, 4, 4), draws=draws)


def _pixels() -> Space:
    return Space(
        start=lambda release: [torch.full((len(release), 3, 16, 16), 0.5)],
        images=lambda point: point[0],
        penalty=lambda point, images: total_variation(images),
    )


def _release(count: int) -> Tensor:
    with seeded("photos"):
        photos = torch.rand(count, 3, 16, 16)
    return _Encoder()(photos)


def test_a_step_encodes_once_whatever_the_draws() -> None:
    passes = []
    for draws in (1, 8):
        encoder = _Encoder()
        search(_pixels(), _loss(PlainEdge(encoder, _Noise()), _release(1), draws), 0.0, Schedule(10, 0.01))
        passes.append(len(encoder.given))
    assert passes == [10, 10]


def test_a_device_that_draws_on_the_images_encodes_each_draw() -> None:
    edge = _Blurred()
    values = torch.stack(edge.several(torch.zeros(1, 3, 16, 16), 4))
    assert edge.encoder.given == [1] * 4
    assert (values[0] != values[1:]).any()


def test_gradients_are_those_of_whole_sends() -> None:
    release, images = _release(3), torch.rand(3, 3, 16, 16, requires_grad=True)
    encoder, noise = _Encoder(), _Noise()
    with seeded("draws"):
        together = _loss(PlainEdge(encoder, noise), release, 5)(images).sum()
    with seeded("draws"):
        whole = [(noise(encoder(images)) - release).square().flatten(1).mean(1) for _ in range(5)]
    apart = torch.stack(whole).mean(0).sum()
    torch.testing.assert_close(together, apart)
    torch.testing.assert_close(*(torch.autograd.grad(value, images)[0] for value in (together, apart)))


@pytest.mark.parametrize("held", [1, 30_000, 2**31])
def test_a_search_in_parts_finds_the_same(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    release = _release(7)
    expected = search(_pixels(), _loss(PlainEdge(_Encoder()), release, 1), 0.1, Schedule(20, 0.02))
    monkeypatch.setattr(optimise, "HELD", held)
    encoder = _Encoder()
    found = search(_pixels(), _loss(PlainEdge(encoder), release, 1), 0.1, Schedule(20, 0.02))
    torch.testing.assert_close(found, expected)
    searched = encoder.given[2:]  # with one and with two images it is measured what they keep
    assert {1: max(searched) == 1, 30_000: 1 < max(searched) < 7, 2**31: max(searched) == 7}[held]


def test_what_an_image_keeps_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.ones(1000, 1000)  # kept too, but once for all images

    def objective(rows: Tensor) -> Tensor:
        point = torch.ones(len(rows), 1000, requires_grad=True)
        return (point @ weight).square().sum(1)  # the square keeps its 1000 floats

    monkeypatch.setattr(optimise, "HELD", 4000 * 50)
    assert at_a_time(objective, 200) == 50
    assert at_a_time(objective, 20) == 20
    assert at_a_time(objective, 0) == 1
