"""The inverse network is what was published, and with noise queries it needs no photo."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from splitleak.attacks.inverse_network import InverseNetwork
from splitleak.attacks.knowledge import About, BlackBox, Memo
from splitleak.attacks.networks.inverse import InverseNet, block_widths
from splitleak.attacks.toy import toy_knowledge
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float

# input and output channels, kernel, stride, padding, output padding
Layer = tuple[int, int, int, int, int, int]
ONE_DOUBLING = [(128, 64, 3, 2, 1, 1), (64, 3, 3, 1, 1, 0)]
TWO_DOUBLINGS = [(128, 128, 3, 2, 1, 1), (128, 64, 3, 2, 1, 1), (64, 3, 3, 1, 1, 0)]
NO_DOUBLING = [(64, 3, 3, 1, 1, 0)]


def knowledge() -> tuple[BlackBox, nn.Module]:
    knows, encoder = toy_knowledge(InverseNetwork())
    assert isinstance(knows, BlackBox)
    return knows, encoder


def facts(layer: nn.Module) -> Layer:
    assert isinstance(layer, nn.ConvTranspose2d)
    sizes = (layer.kernel_size, layer.stride, layer.padding, layer.output_padding)
    assert all(len(set(size)) == 1 for size in sizes)
    assert layer.groups == 1
    assert layer.dilation == (1, 1)
    return (layer.in_channels, layer.out_channels, *(int(size[0]) for size in sizes))


@pytest.mark.parametrize(
    ("release_shape", "published"),
    [((64, 32, 32), NO_DOUBLING), ((128, 16, 16), ONE_DOUBLING), ((128, 8, 8), TWO_DOUBLINGS)],
    ids=["conv11", "ReLU22", "ReLU32"],
)
def test_layers_are_the_published_ones(release_shape: tuple[int, ...], published: list[Layer]) -> None:
    network = InverseNet(release_shape, 32, 32, "published")
    layers = list(network.layers)
    assert [facts(layer) for layer in layers[::2]] == published
    assert all(layer.bias is not None for layer in layers[::2])
    assert all(type(layer) is nn.ReLU for layer in layers[1::2])
    assert len(layers) == 2 * len(published) - 1, "nothing after the last transposed convolution"


def test_layers_of_the_later_variant() -> None:
    layers = list(InverseNet((128, 8, 8), 32, 32, "batch_norm").layers)
    assert [type(layer) for layer in layers] == [
        *2 * [nn.ConvTranspose2d, nn.BatchNorm2d, nn.LeakyReLU],
        nn.ConvTranspose2d,
    ]
    found = [facts(layer) for layer in layers[::3]]
    assert found == [(128, 128, 4, 2, 1, 0), (128, 64, 4, 2, 1, 0), (64, 3, 3, 1, 1, 0)]
    assert {layer.negative_slope for layer in layers[2::3]} == {0.2}


@pytest.mark.parametrize("channels", [1, 8, 13, 96, 112, 672, 2048])
@pytest.mark.parametrize("doublings", range(8))
def test_widths_never_grow_nor_vanish(channels: int, doublings: int) -> None:
    widths = block_widths(channels, doublings)
    assert len(widths) == doublings
    assert widths == sorted(widths, reverse=True)
    assert all(16 <= width <= 256 for width in widths)
    if doublings > 1:
        assert widths[0] == min(max(channels, 64), 256)


@pytest.mark.parametrize("variant", ["published", "batch_norm"])
@pytest.mark.parametrize(
    ("shape", "height", "width"),
    [
        ((8, 4, 4), 64, 64),
        ((8, 5, 5), 64, 64),
        ((8, 4, 8), 64, 128),
        ((3, 33, 33), 32, 32),
        ((17, 32), 64, 64),
        ((40,), 32, 32),
    ],
)
def test_paints_from_any_release(shape: tuple[int, ...], height: int, width: int, variant: str) -> None:
    with seeded("inverse"):
        network = InverseNet(shape, height, width, variant)
        images = network(5 * torch.randn(2, *shape))
    assert images.shape == (2, 3, height, width)
    assert images.min() < 0 < images.max(), "pixels darker than the mean can be painted"
    images.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_recipe_is_the_published_one() -> None:
    attack = InverseNetwork()
    assert (attack.epochs, attack.batch_size) == (50, 32)
    recipe, steps = attack._recipe(), 7
    optimizer = recipe.optimizer([nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.Adam)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["eps"], group["amsgrad"]) == (1e-3, 1e-3, True)
    schedule, rates = recipe.schedule(optimizer, recipe.epochs * steps), []
    for _ in range(recipe.epochs):
        rates.append(group["lr"])
        for _ in range(steps):
            optimizer.step()
            schedule.step()
    assert rates == pytest.approx([1e-3] * 20 + [5e-4] * 20 + [2.5e-4] * 10)


def recorded(knows: BlackBox) -> list[Tensor]:
    """The images that the edge device will be asked to encode, a list that fills."""
    asked, send = [], knows.send

    def send_and_record(images: Tensor) -> Tensor:
        asked.append(images)
        return send(images)

    knows.send = send_and_record
    return asked


def without_photos(knows: BlackBox) -> None:
    """Leave the number and the shape of the photos; a look at any pixel or stored feature fails."""
    knows.images = {part: photos.to("meta") for part, photos in knows.images.items()}

    def refuse(part: str, rows: Tensor) -> Tensor:
        raise AssertionError("it asked for the release of a photo")

    knows.resend = refuse


def test_photos_on_the_meta_device_cannot_be_used() -> None:
    """The test below would notice."""
    knows, _ = knowledge()
    without_photos(knows)
    with pytest.raises(AssertionError, match="release of a photo"):
        InverseNetwork(epochs=1).fit(knows)
    with pytest.raises(NotImplementedError, match="meta"):
        knows.query(next(knows.image_batches()))


@pytest.mark.parametrize("variant", ["published", "batch_norm"])
def test_noise_queries_need_no_photo(variant: str) -> None:
    knows, _ = knowledge()
    without_photos(knows)
    asked = recorded(knows)
    InverseNetwork(variant=variant, queries="noise", epochs=2).fit(knows)
    assert knows.queries == 2 * (384 + 64)
    images = torch.cat(asked)
    assert (images.shape, images.min() >= 0, images.max() <= 1) == ((896, 3, 32, 32), True, True)
    assert float(images.mean()) == pytest.approx(1 / 2, abs=2e-3)
    assert float(images.var()) == pytest.approx(1 / 12, abs=1e-3)
    first, held_out, second, held_out_again = images.split([384, 64, 384, 64])
    assert torch.equal(held_out, held_out_again), "weights are selected on the same images in each epoch"
    assert len(torch.cat([first, second, held_out]).flatten(1).unique(dim=0)) == 384 + 384 + 64


def test_noise_teaches_to_invert_an_invertible_device() -> None:
    knows, _ = knowledge()
    images, floor = to_float(knows.images["validation"]), to_float(knows.images["auxiliary"]).mean(0)
    without_photos(knows)
    knows.send = nn.PixelUnshuffle(2)
    knows.intercepted = knows.send(images)
    with seeded("noise"):
        rebuilt = InverseNetwork(queries="noise", epochs=4, learning_rate=1e-2).fit(knows)(knows.intercepted)
    assert (rebuilt - images).square().mean() < (floor - images).square().mean() / 3


def test_trained_once_for_the_same_settings() -> None:
    knows, _ = knowledge()
    memos: dict[str, Memo] = {}

    def memory(what: str, module: str, about: About, build: Callable[[], Memo]) -> Memo:
        assert (module, about) == ("splitleak.attacks.inverse_network", "edge")
        if what not in memos:
            memos[what] = build()
        return memos[what]

    knows.memory, asked = memory, recorded(knows)
    settings = {"queries": "noise", "epochs": 1}
    first = InverseNetwork(**settings).fit(knows)(knows.intercepted)
    queried = len(asked)
    assert torch.equal(InverseNetwork(**settings).fit(knows)(knows.intercepted), first)
    assert (len(asked), knows.queries) == (queried, 2 * (384 + 64)), "recalled, but counted again"
    InverseNetwork(variant="batch_norm", **settings).fit(knows)
    assert len(memos) == 2
