"""A cut network computes what the whole one does, and only where nothing else has to be sent."""

import re

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize

from splitleak.victims.cuts import ALIASES, Cut, Halves, find_cuts, split, uncut
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import IMAGENET_MEAN, IMAGENET_STD, Network, make_network
from splitleak.victims.seeding import seeded
from splitleak.victims.toy import left_as_found

SIZE = 64
CLASSES = 7
NETWORKS = (
    "mobilenet_v3_large",
    "mobilenet_v2",
    "vgg11_bn",
    "resnet18",
    "squeezenet1_1",
    "efficientnet_b0",
    "densenet121",
    "convnext_tiny",
    "vit_b_32",
)


def lively(network: Network) -> Network:
    """Move what starts at zero or nearly so (biases, layer scales, a transformer's head), and let the batch
    statistics fit the weights: an output that hardly depends on the image would hide errors.
    """
    normalisations = [module for module in network.module.modules() if isinstance(module, nn.BatchNorm2d)]
    with seeded("lively"), torch.no_grad():
        for parameter in network.module.parameters():
            if parameter.abs().max() < 1e-3:
                parameter.normal_(std=0.1)
        if normalisations:
            momenta = [module.momentum for module in normalisations]
            for module in normalisations:
                module.momentum = 1.0
            network.module.train()(torch.randn(8, 3, SIZE, SIZE))
            network.module.eval()
            for module, momentum in zip(normalisations, momenta, strict=True):
                module.momentum = momentum
    return network


def make(model: str) -> Network:
    with seeded(model):
        return lively(make_network(model, CLASSES, SIZE))


def images(count: int = 2, size: int = SIZE) -> Tensor:
    with seeded("images"):
        return torch.rand(count, 3, size, size)


@pytest.fixture(scope="module", params=NETWORKS)
def cut_network(request: pytest.FixtureRequest) -> tuple[str, Network, list[Cut]]:
    network = make(request.param)
    return request.param, network, find_cuts(network, SIZE)


def first_middle_last(cuts: list[Cut]) -> list[Cut]:
    return [cuts[0], cuts[len(cuts) // 2], cuts[-1]]


def check_halves(halves: Halves, expected: Tensor) -> None:
    x = images()
    with torch.no_grad():
        with left_as_found(tensors=(x,)):
            z = halves.encoder(x)
        assert tuple(z.shape[1:]) == halves.cut.shape
        with left_as_found(tensors=(z,)):
            logits = halves.tail(z)
    assert torch.equal(logits, expected), "the halves compute something else than the whole"


def test_halves_compute_exactly_what_the_whole_does(cut_network: tuple[str, Network, list[Cut]]) -> None:
    model, network, cuts = cut_network
    # torchvision's own network, with its in-place operations, and torchvision's own normalisation
    options = {"image_size": SIZE} if model.startswith("vit_") else {}
    whole = torchvision.models.get_model(model, num_classes=CLASSES, **options).eval()
    whole.load_state_dict(network.module.state_dict())
    with torch.no_grad():
        expected = whole(normalize(images(), list(IMAGENET_MEAN), list(IMAGENET_STD)))
    assert expected.shape == (2, CLASSES)
    assert not torch.allclose(expected[0], expected[1], rtol=1e-2), (
        "an output that ignores the image would prove nothing"
    )
    with torch.no_grad():
        assert torch.equal(uncut(network, SIZE)(images()), expected)
    for cut in first_middle_last(cuts):
        halves = split(network, model, cut.name, SIZE)
        assert halves.cut == cut
        check_halves(halves, expected)


def test_edge_share_grows_along_the_network(cut_network: tuple[str, Network, list[Cut]]) -> None:
    _, _, cuts = cut_network
    shares = [cut.edge_share for cut in cuts]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1
    assert len({cut.total_macs for cut in cuts}) == 1
    assert len({cut.node for cut in cuts}) == len(cuts)


def test_timm_networks_are_cut_too() -> None:
    pytest.importorskip("timm")
    model = "timm:mobilenetv1_100"
    network = make(model)
    x = images()
    mean, std = (torch.tensor(values)[:, None, None] for values in (network.mean, network.std))
    with torch.no_grad():
        expected = network.module((x - mean) / std)
    for cut in first_middle_last(find_cuts(network, SIZE)):
        check_halves(split(network, model, cut.name, SIZE), expected)


def test_c4_is_the_seed_studys_cut() -> None:
    network = make("mobilenet_v3_large")
    cut = split(network, "mobilenet_v3_large", "C4", 320).cut
    assert ALIASES["mobilenet_v3_large", "C4"] == "features.13.block.0"
    assert cut.name == "features.13.block.0"
    assert cut.node.startswith("features.13.block.0")
    assert cut.shape == (672, 20, 20)
    assert cut.bytes == 672 * 20 * 20 * 4
    # the 1x1 expansion of the 14th block: convolution, normalisation and activation are behind it
    expansion = network.module.features[:13].append(network.module.features[13].block[0])
    x = images(1, 320)
    with torch.no_grad():
        expected = expansion(normalize(x, list(IMAGENET_MEAN), list(IMAGENET_STD)))
        assert torch.equal(split(network, "mobilenet_v3_large", "C4", 320).encoder(x), expected)


def test_a_node_that_a_skip_jumps_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="skip connection") as caught:
        split(make("resnet18"), "resnet18", "layer1.0.conv1", SIZE)
    nearest = re.search(r"nearest valid cuts are (.*)", str(caught.value))
    assert nearest is not None
    assert nearest[1] == "maxpool and layer1.0.add"


def test_the_valid_cuts_of_a_residual_network_lie_between_its_blocks() -> None:
    names = [cut.name for cut in find_cuts(make("resnet18"), SIZE)]
    for block in ("layer1.0", "layer1.1", "layer2.0", "layer4.0"):
        inside = [name for name in names if name.startswith(f"{block}.")]
        assert set(inside) <= {f"{block}.add"}, "between a block's first convolution and its sum a skip runs"
    assert {"conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool"} <= set(names)
    assert "fc" not in names, "nothing would be left for the cloud"


@pytest.mark.parametrize("cut", ["fc", "layer3.1.bn2"])
def test_refused_cuts_name_cuts_that_work(cut: str) -> None:
    network = make("resnet18")
    with pytest.raises(InvalidInputError) as caught:
        split(network, "resnet18", cut, SIZE)
    for name in str(caught.value).partition("cuts are ")[2].split(" and "):
        assert split(network, "resnet18", name, SIZE).cut.name == name


@pytest.mark.parametrize(
    ("model", "cut", "near"),
    [
        ("mobilenet_v3_large", "C5", "C4"),
        ("mobilenet_v3_large", "feature.13", "features.13"),
        ("resnet18", "layer_2", "layer2"),
    ],
)
def test_an_unknown_cut_offers_near_names(model: str, cut: str, near: str) -> None:
    with pytest.raises(InvalidInputError, match=f"unknown cut of {model}") as caught:
        split(make(model), model, cut, SIZE)
    assert near in re.split(r"did you mean | or |\?", str(caught.value))


def test_an_alias_belongs_to_its_network_only() -> None:
    with pytest.raises(InvalidInputError, match="unknown cut of resnet18: 'C4'"):
        split(make("resnet18"), "resnet18", "C4", SIZE)


def test_an_image_that_is_too_small_is_refused_in_one_line() -> None:
    with pytest.raises(InvalidInputError, match="cannot take 8 px images") as caught:
        find_cuts(make("squeezenet1_1"), 8)
    assert "\n" not in str(caught.value)


def test_multiply_adds_are_the_published_number() -> None:
    with seeded("macs"):
        network = make_network("mobilenet_v3_large", 1000, 224)
    total = find_cuts(network, 224)[0].total_macs
    assert total == pytest.approx(219e6, rel=0.05)  # Howard et al., Searching for MobileNetV3, ICCV 2019


@pytest.mark.parametrize(
    ("model", "cut"), [("mobilenet_v3_large", "C4"), ("squeezenet1_1", "features.5"), ("resnet18", "layer2")]
)
def test_multiply_adds_equal_a_count_by_hooks(model: str, cut: str) -> None:
    halves = split(make(model), model, cut, SIZE)
    counted = {"edge": 0, "cloud": 0}

    def count(half: str) -> nn.Module:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            fan_in = module.weight[0].numel()  # of a convolution: channels per group times the kernel
            counted[half] += output[0].numel() * fan_in

        return hook

    for name, half in (("edge", halves.encoder), ("cloud", halves.tail)):
        for module in half.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(count(name))
    with torch.no_grad():
        z = halves.encoder(images(1))
        assert counted["cloud"] == 0, "an encoder's module is in the tail as well"
        halves.tail(z)
    assert halves.cut.edge_macs == counted["edge"]
    assert halves.cut.total_macs == counted["edge"] + counted["cloud"]


@pytest.mark.parametrize(
    ("model", "cut"), [("mobilenet_v3_large", "C4"), ("resnet18", "layer2"), ("densenet121", "features.pool0")]
)
def test_gradients_flow_through_both_halves_in_training(model: str, cut: str) -> None:
    halves = split(make(model), model, cut, SIZE)
    halves.encoder.train()
    halves.tail.train()
    x = images(4).requires_grad_()
    halves.tail(halves.encoder(x)).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad.flatten(1).abs().max(1).values > 0).all()
    trained = [parameter.grad for half in (halves.encoder, halves.tail) for parameter in half.parameters()]
    assert all(gradient is not None for gradient in trained)


def test_normalisation_is_the_encoders_first_step_and_travels_with_it() -> None:
    halves = split(make("resnet18"), "resnet18", "conv1", SIZE)
    x = images()
    with torch.no_grad():
        expected = halves.encoder.body(normalize(x, list(IMAGENET_MEAN), list(IMAGENET_STD)))
        assert torch.equal(halves.encoder(x), expected)
    assert not any(key in ("mean", "std") for key in halves.encoder.state_dict()), "weights files stay plain"


def test_splitting_leaves_the_network_as_it_was() -> None:
    network = make("resnet18")
    with left_as_found(network.module):
        split(network, "resnet18", "layer2", SIZE)
        find_cuts(network, SIZE)
