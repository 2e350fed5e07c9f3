"""Networks of the field's papers: their layers, their published cuts, and what refuses them."""

import pkgutil
from collections.abc import Callable

import pytest
import torch
from torch import nn

from splitleak.experiments.cells import fingerprints
from splitleak.experiments.cells.fingerprints import model_fingerprint
from splitleak.experiments.cli.describe import listing
from splitleak.experiments.planning.names import PLANS
from splitleak.victims import models, networks
from splitleak.victims.cuts import split
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.networks import architectures


@pytest.mark.parametrize(
    ("model", "cut", "shape"),
    [
        ("cifar_cnn6", "conv11", (64, 32, 32)),
        ("cifar_cnn6", "ReLU22", (128, 16, 16)),
        ("cifar_cnn6", "ReLU32", (128, 8, 8)),
        ("vgg11_cifar", "pool2", (128, 8, 8)),
        ("vgg11_cifar", "narrow", (8, 8, 8)),
        ("vgg11_cifar", "sigmoid", (8, 8, 8)),
    ],
)
def test_a_paper_calls_its_cuts_as_the_network_does(model: str, cut: str, shape: tuple[int, ...]) -> None:
    halves = split(models.make_network(model, classes=10, size=32), model, cut, 32)
    assert halves.cut.shape == shape
    assert halves.cut.name == cut
    with torch.no_grad():
        assert halves.tail(halves.encoder(torch.rand(2, 3, 32, 32))).shape == (2, 10)


@pytest.mark.parametrize(
    ("model", "convolutions", "dense"),
    [
        ("cifar_cnn6", [(3, 64), (64, 64), (64, 128), (128, 128), (128, 128), (128, 128)], [2048, 512]),
        (
            "vgg11_cifar",
            [(3, 64), (64, 128), (128, 8), (8, 128), (128, 256), (256, 256), (256, 512), *3 * [(512, 512)]],
            [512, 512, 512],
        ),
    ],
)
def test_layers_have_the_published_widths(model: str, convolutions: list[tuple[int, int]], dense: list[int]) -> None:
    layers = list(models.make_network(model, classes=10, size=32).module.modules())
    found = [(one.in_channels, one.out_channels) for one in layers if isinstance(one, nn.Conv2d)]
    assert found == convolutions
    assert [one.in_features for one in layers if isinstance(one, nn.Linear)] == dense


def test_every_file_of_the_folder_is_listed_and_says_whose_it_is() -> None:
    files = {module.name for module in pkgutil.iter_modules(networks.__path__)} - {"base"}
    assert set(architectures()) == files
    assert models.names()[: len(files)] == sorted(files)
    assert [str(row[0]) for row in listing("victims", PLANS).rows][: len(files)] == sorted(files)
    assert all(of.summary and of.paper for of in architectures().values())


def test_photos_that_are_too_small_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="vgg11_cifar cannot take 16 px images: at least 32"):
        models.make_network("vgg11_cifar", classes=10, size=16)


def test_weights_are_scratch_or_a_file() -> None:
    with pytest.raises(InvalidInputError, match="give 'scratch' or the path of a weights file"):
        models.make_network("cifar_cnn6", classes=10, size=32, weights="IMAGENET1K_V1")


def test_a_change_of_the_code_is_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    plain: Callable[[str, int], str] = model_fingerprint.__wrapped__
    before = plain("cifar_cnn6", 32)
    assert before != plain("vgg11_cifar", 32)
    monkeypatch.setattr(fingerprints, "source_digest", lambda module: f"changed {module}")
    assert plain("cifar_cnn6", 32) != before
