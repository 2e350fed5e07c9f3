"""The noise is the closed form of the encoder's Jacobian, also where that has no full rank."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from splitleak.defenses.base import Channel
from splitleak.defenses.checks import toy_calibration, toy_channel
from splitleak.defenses.fsinfo_noise import ZERO, FsInfoNoise, log_gain
from splitleak.victims.cuts import split
from splitleak.victims.models import make_network
from splitleak.victims.seeding import seeded


def linear(outputs: int, values: Tensor) -> nn.Module:
    """Images (n, 3, 4, 4) -> (n, outputs) with these singular values."""
    with seeded("linear", outputs):
        left, right = (torch.linalg.qr(torch.randn(size, size))[0] for size in (outputs, 48))
    layer = nn.Linear(48, outputs, bias=False)
    with torch.no_grad():
        layer.weight.copy_(left[:, : len(values)] * values @ right[: len(values)])
    return nn.Sequential(nn.Flatten(), layer)


@pytest.mark.parametrize(("outputs", "rank"), [(48, 48), (60, 48), (20, 20), (30, 12)])
def test_it_is_the_mean_logarithm_of_the_singular_values_that_are_not_zero(outputs: int, rank: int) -> None:
    values = torch.logspace(-1, 1, rank)
    images = torch.rand(400, 3, 4, 4)
    with seeded("probes"):
        found = log_gain(linear(outputs, values), images, steps=48)
    assert float(found.mean()) == pytest.approx(float(values.log().mean()), abs=4 * float(found.std()) / 20)


def test_it_is_the_jacobian_of_the_photo_itself() -> None:
    """x^2 has the derivative 2 x; units that are off count as zero, not as minus infinity."""

    class Squared(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.where(images > 0.5, images.square(), 0.3)

    images = torch.full((2, 3, 4, 4), 0.2)
    images[0, 0], images[1, 0] = 0.6, 0.9
    with seeded("probes"):
        found = log_gain(Squared(), images, steps=6)
    assert found.tolist() == pytest.approx([math.log(1.2), math.log(1.8)], abs=1e-5)


def std_of(channel: Channel) -> float:
    guarantee = channel.guarantee()
    assert guarantee is not None
    assert guarantee.noise_std is not None
    return guarantee.noise_std


def test_sigma_is_the_formula_with_one_gain_for_all_photos() -> None:
    calibration = toy_calibration()
    encoder = linear(20, torch.full((20,), 3.0))
    small = replace(next(calibration.batches()), images=torch.rand(16, 3, 4, 4))
    calibration = replace(calibration, encoder=encoder, batches=lambda: iter([small]))
    for information in (-1.0, 2.0):
        channel = FsInfoNoise(information).channel((20,))
        channel.calibrate(calibration)
        assert std_of(channel) == pytest.approx(
            3 / (math.exp(information) * math.sqrt(2 * math.pi * math.e)), rel=1e-4
        )
        noise = channel.send(torch.zeros(5000, 20))
        assert float(noise.std()) == pytest.approx(std_of(channel), rel=0.02)
        assert float(noise[0].std()) < 3 * std_of(channel)


def test_from_no_defence_to_the_floor() -> None:
    calibration = toy_calibration()
    weak, strong = (toy_channel(FsInfoNoise(information), calibration) for information in (12.0, -12.0))
    assert torch.allclose(weak[0].send(weak[1]), weak[1], atol=1e-3 * float(weak[1].std()))
    assert std_of(strong[0]) > 100 * float(strong[1].std())


class Attending(nn.Module):
    """Images (n, 3, 4, 4) -> four tokens of 16 values, which look at one another."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 2, stride=2)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


LAYERS: dict[str, nn.Module] = {
    **{type(layer).__name__: layer for layer in (nn.Hardswish(inplace=True), nn.Hardsigmoid(), nn.GELU(), nn.SiLU())},
    **{type(layer).__name__: layer for layer in (nn.ReLU6(inplace=True), nn.Mish(), nn.Hardtanh(), nn.ELU())},
    "pooled": nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)),
    "normalised": nn.Sequential(nn.BatchNorm2d(3), nn.GroupNorm(3, 3)),
}


@pytest.mark.parametrize("name", [*LAYERS, "attention"])
def test_layers_of_all_kinds_have_the_gain_of_their_jacobian(name: str) -> None:
    with seeded("network", name):
        network = Attending() if name == "attention" else nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), LAYERS[name])
        images = torch.rand(1, 3, 4, 4)
    network.eval().requires_grad_(False)
    matrix = torch.autograd.functional.jacobian(network, images).flatten(1)
    values = torch.linalg.svdvals(matrix.reshape(-1, images.numel()))
    values = values[values > ZERO * values[0]]
    with seeded("probes"):
        found = log_gain(network, images.repeat(300, 1, 1, 1), steps=48)
    assert float(found.mean()) == pytest.approx(float(values.log().mean()), abs=4 * float(found.std()) / 17)


@pytest.mark.parametrize(
    ("model", "cut"),
    [
        ("mobilenet_v3_large", "C4"),
        ("efficientnet_b0", "features.3"),
        ("convnext_tiny", "features.1"),
        ("timm:vit_tiny_patch16_224", "blocks.1"),
    ],
)
def test_networks_that_are_cut_have_a_gain(model: str, cut: str) -> None:
    encoder = split(make_network(model, 2, 32), model, cut, 32).encoder.eval()
    with seeded("probes"):
        found = log_gain(encoder, torch.rand(2, 3, 32, 32), steps=4)
    assert found.isfinite().all()
