"""The seed study's decoders are what was published; ours paints images of any size from any release."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from splitleak.attacks.decoder import Architecture, Decoder
from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.networks import seed
from splitleak.attacks.networks.normalised import normalise, unnormalise
from splitleak.attacks.networks.residual import ResidualDecoder
from splitleak.attacks.networks.seed import transpose_decoder, upsample_decoder
from splitleak.attacks.token_order import TokenOrder
from splitleak.attacks.toy import toy_knowledge
from splitleak.experiments.judge.scores import Truth, score_answers
from splitleak.victims.models import IMAGENET_MEAN, IMAGENET_STD
from splitleak.victims.seeding import seeded

PUBLISHED_WIDTHS = (112, 480, 80, 16, 3)


def published_upsample(channels: int) -> nn.Sequential:
    """Convolution, normalisation, activation, and then bicubic upsampling, after each block but the last."""
    layers: list[nn.Module] = []
    for source, width in pairwise((channels, *PUBLISHED_WIDTHS)):
        layers += [nn.Conv2d(source, width, 1), nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)]
        last = width == PUBLISHED_WIDTHS[-1]
        layers += [nn.ReLU()] if last else [nn.Hardswish(), nn.Upsample(scale_factor=2, mode="bicubic")]
    return nn.Sequential(*layers)


def weighted(network: nn.Module) -> list[nn.Module]:
    return [module for module in network if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d))]


def twins(channels: int, dtype: torch.dtype = torch.float64) -> tuple[nn.Sequential, nn.Sequential]:
    """Ours and the published one with the same weights, in training mode."""
    with seeded("twins", channels):
        ours, theirs = upsample_decoder(channels), published_upsample(channels)
        for own, other in zip(weighted(ours), weighted(theirs), strict=True):
            assert type(own) is type(other)
            nn.init.normal_(own.bias, std=0.3)
            if isinstance(own, nn.BatchNorm2d):
                nn.init.uniform_(own.weight, 0.5, 1.5)
            other.load_state_dict(own.state_dict())
    return ours.to(dtype).train(), theirs.to(dtype).train()


def release(batch: int, channels: int, rows: int, columns: int, draw: int = 0) -> Tensor:
    with seeded("release", batch, channels, rows, columns, draw):
        return torch.randn(batch, channels, rows, columns, dtype=torch.float64)


@settings(max_examples=12, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.sampled_from([3, 17, 40]),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
)
def test_upsample_decoder_equals_the_published_form(batch: int, channels: int, rows: int, columns: int) -> None:
    ours, theirs = twins(channels)
    if batch * rows * columns == 1:
        ours.eval(), theirs.eval()  # a single value per channel has no batch statistics
    x = release(batch, channels, rows, columns)
    own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    output, expected = ours(own), theirs(other)
    assert output.shape == (batch, 3, 16 * rows, 16 * columns)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    goal = release(batch, 3, 16 * rows, 16 * columns, draw=1)
    F.mse_loss(output, goal).backward()
    F.mse_loss(expected, goal).backward()
    torch.testing.assert_close(own.grad, other.grad, atol=1e-5, rtol=1e-5)
    for mine, published in zip(weighted(ours), weighted(theirs), strict=True):
        for parameter, reference in zip(mine.parameters(), published.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, reference.grad, atol=1e-5, rtol=1e-4)


def test_upsample_decoder_trains_as_the_published_form_does() -> None:
    ours, theirs = twins(20)
    optimizers = [torch.optim.Adam(network.parameters(), lr=1e-2, weight_decay=1e-5) for network in (ours, theirs)]
    start = weighted(ours)[0].weight.detach().clone()
    for step in range(5):
        x, goal = release(4, 20, 3, 3, draw=step), release(4, 3, 48, 48, draw=100 + step)
        outputs = []
        for network, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            outputs.append(network(x))
            F.mse_loss(outputs[-1], goal).backward()
            optimizer.step()
        torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
    assert (weighted(ours)[0].weight - start).abs().max() > 0.01
    for mine, published in zip(weighted(ours), weighted(theirs), strict=True):
        for name, buffer in mine.named_buffers():
            torch.testing.assert_close(buffer, published.get_buffer(name), atol=1e-5, rtol=1e-5)
    ours.eval(), theirs.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_upsample_decoder_agrees_in_single_precision_at_c4() -> None:
    ours, theirs = twins(672, torch.float32)
    x = release(2, 672, 4, 4).float()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)


def test_upsample_decoder_has_the_published_size() -> None:
    count = sum(parameter.numel() for parameter in upsample_decoder(672).parameters())
    assert count == sum(parameter.numel() for parameter in published_upsample(672).parameters())
    assert count == pytest.approx(171e3, rel=0.01)


@pytest.mark.parametrize("side", [1, 2, 5, 20])
def test_doubling_is_torchs_bicubic_upsampling(side: int) -> None:
    x = release(2, 3, side, side + 1)
    torch.testing.assert_close(seed.BicubicDouble()(x), F.interpolate(x, scale_factor=2, mode="bicubic"))


# output channels, kernel = stride, of each layer, as the study lists them
LIGHT = [(16, 4), (3, 4)]
MEDIUM = [(112, 1), (80, 2), (80, 2), (16, 1), (16, 4), (3, 1)]
DEEP = [(112, 1), (112, 2), (480, 1), (480, 2), (80, 1), (80, 2), (16, 1), (16, 2), (3, 1)]


@pytest.mark.parametrize(("depth", "published"), [("light", LIGHT), ("medium", MEDIUM), ("deep", DEEP)])
def test_transpose_decoders_are_the_published_lists(depth: str, published: list[tuple[int, int]]) -> None:
    network = transpose_decoder(24, depth)
    blocks = [network[start : start + 3] for start in range(0, len(network), 3)]
    found = [(convolution.out_channels, convolution.kernel_size[0]) for convolution, _, _ in blocks]
    assert found == published
    inputs = [convolution.in_channels for convolution, _, _ in blocks]
    assert inputs == [24, *(width for width, _ in published[:-1])]
    for position, (convolution, normalisation, activation) in enumerate(blocks):
        assert isinstance(convolution, nn.ConvTranspose2d)
        assert convolution.kernel_size == convolution.stride
        assert convolution.padding == (0, 0)
        assert isinstance(normalisation, nn.BatchNorm2d)
        assert (normalisation.eps, normalisation.momentum) == (1e-3, 0.01)
        assert isinstance(activation, nn.ReLU if position == len(blocks) - 1 else nn.Hardswish)


@pytest.mark.parametrize("kind", ["upsample", "light", "medium", "deep"])
@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (2, 3)])
def test_outputs_are_sixteen_times_as_large_and_never_negative(kind: str, rows: int, columns: int) -> None:
    with seeded("decoder", kind):
        network = upsample_decoder(24) if kind == "upsample" else transpose_decoder(24, kind)
    with torch.no_grad():
        output = network(10 * release(3, 24, rows, columns).float())
    assert output.shape == (3, 3, 16 * rows, 16 * columns)
    assert output.min() == 0, "the ReLU at the end cuts off what is darker than the mean"
    assert output.max() > 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9))
def test_unnormalise_undoes_normalise(draw: int, side: int) -> None:
    with seeded("image", draw):
        images = torch.rand(2, 3, side, side)
    torch.testing.assert_close(unnormalise(normalise(images)), images, atol=1e-6, rtol=0)
    for channel in range(3):
        expected = (images[:, channel] - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        torch.testing.assert_close(normalise(images)[:, channel], expected)


def test_unnormalise_stays_in_range() -> None:
    wild = torch.tensor([-50.0, 0.0, 50.0]).reshape(1, 1, 1, 3).expand(1, 3, 1, 3)
    images = unnormalise(wild)
    assert images[..., 0].eq(0).all()
    assert images[0, :, 0, 1].tolist() == pytest.approx(list(IMAGENET_MEAN))
    assert images[..., 2].eq(1).all()


@pytest.mark.parametrize(
    ("shape", "height", "width_px"),
    [
        ((8, 4, 4), 64, 64),
        ((8, 5, 5), 64, 64),
        ((8, 64, 64), 64, 64),
        ((8, 4, 8), 64, 128),
        ((3, 33, 33), 32, 32),
        ((17, 32), 64, 64),
        ((16, 32), 64, 64),
        ((40,), 64, 64),
        ((8, 10, 10), 160, 160),
    ],
)
def test_the_residual_decoder_paints_from_any_release(shape: tuple[int, ...], height: int, width_px: int) -> None:
    with seeded("residual"):
        network = ResidualDecoder(shape, height, width_px, 32)
        sent = (20 * torch.randn(2, *shape)).requires_grad_()
    images = network(sent)
    assert images.shape == (2, 3, height, width_px)
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std() > 0.01
    images.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert sent.grad is not None
    unused = sent.grad.flatten(1).eq(0).all(0).sum()
    # a class token in front of a square of patches is left out, nothing else is
    assert int(unused) == (32 if shape == (17, 32) else 0)


def test_the_residual_decoder_can_paint_black_and_white() -> None:
    """Not so a decoder that ends in ReLU on normalised targets: it cannot rebuild dark pixels."""
    with seeded("black"):
        network = ResidualDecoder((4, 2, 2), 8, 8, 16)
        sent, goal = torch.randn(8, 4, 2, 2), torch.rand(8, 3, 1, 1).round().expand(8, 3, 8, 8)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-2)
        for _ in range(60):
            optimizer.zero_grad()
            images = network(sent)
            F.mse_loss(images, goal).backward()
            optimizer.step()
    assert images.min() < 0.05
    assert images.max() > 0.95


def test_features_of_any_size_are_heard() -> None:
    with seeded("loud and quiet"):
        network = ResidualDecoder((6, 2, 2), 8, 8, 16).eval()
        releases = torch.randn(64, 6, 2, 2)
        scale, offset = 10 ** (6 * torch.rand(6, 2, 2) - 3), 100 * torch.randn(6, 2, 2)
    network.standard.begin_from(releases.split(20))
    expected = network(releases)
    assert network.standard.centre.abs().max() < 1
    network.standard.begin_from((scale * releases + offset).split(20))
    # each value is (x - mean) / std again, but for the floor under features that hardly vary
    loud = (scale * releases).var(0) > 0.1 * (scale * releases).var(0).mean()
    standardised = (scale * releases + offset - network.standard.centre) / network.standard.spread
    plain = (releases - releases.mean(0)) / releases.std(0, correction=0)
    torch.testing.assert_close(standardised[:, loud], plain[:, loud], rtol=0.1, atol=0.05)
    assert standardised.var(0).max() < 1.1
    assert torch.isfinite(network(scale * releases + offset)).all()
    network.standard.begin_from([torch.ones(8, 6, 2, 2)])  # a release that never varies
    assert torch.isfinite(network(torch.ones(1, 6, 2, 2))).all()
    assert expected.shape == (64, 3, 8, 8)


@pytest.mark.parametrize("architecture", ["upsample", "transpose_light", "transpose_medium", "transpose_deep"])
def test_the_judge_knows_the_best_that_a_decoder_with_a_relu_at_its_end_can_do(architecture: Architecture) -> None:
    dark = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    answers = (unnormalise(torch.zeros(2, 3, 32, 32)) * 255).round().to(torch.uint8)
    best = -10 * torch.log10(torch.tensor(IMAGENET_MEAN).square().mean()).item()
    scored = score_answers(Decoder(architecture=architecture), answers, Truth(images=dark))
    assert scored.references["psnr"]["ceiling"] == pytest.approx(best, abs=1e-4)
    assert scored.values["psnr"].mean().item() == pytest.approx(best, abs=0.05), "nothing darker can be answered"
    bright = torch.full_like(dark, 255)
    unlimited = score_answers(Decoder(architecture=architecture), bright, Truth(images=bright)).references["psnr"]
    assert unlimited["ceiling"] > 60
    assert "psnr" not in score_answers(Decoder(), answers, Truth(images=dark)).references


def test_a_place_that_tells_of_more_pixels_than_the_first_grid_has_channels_is_read_too() -> None:
    """Patches of 8 pixels, turned and sent whole: 192 values a place, for a decoder of 16 channels."""

    def error(straight: bool) -> float:
        with seeded("patches"):
            images, turn = torch.rand(64, 3, 32, 32), torch.linalg.qr(torch.randn(192, 192))[0]
            releases = F.conv2d(images - 0.5, turn.view(192, 3, 8, 8), stride=8)
            network = ResidualDecoder((192, 4, 4), 32, 32, width=16, straight=straight)
            network.standard.begin_from([releases])
            optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
            for _ in range(100):
                loss = F.mse_loss(network(releases), images)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return float(loss.detach())

    floor = 1 / 12  # of uniform noise
    assert error(straight=False) > 0.7 * floor
    assert error(straight=True) < 0.2 * floor


def test_tokens_are_read_straight_and_maps_are_not() -> None:
    told = {}
    for attack in (TokenOrder(), Decoder()):
        knows, _ = toy_knowledge(attack)
        assert isinstance(knows, BlackBox)
        network = Decoder(width=16).form(knows).network
        told[len(knows.release_shape)] = isinstance(network, ResidualDecoder) and network.straight is not None
    assert told == {2: True, 3: False}
