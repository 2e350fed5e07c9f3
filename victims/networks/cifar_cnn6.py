"""Six convolutions in three stages: the network on which model inversion of split inference was first measured."""

from collections import OrderedDict

from torch import nn

from splitleak.victims.networks.base import Architecture

WIDTHS = ((3, 64, 64), (64, 128, 128), (128, 128, 128))
"""Of each stage: what comes in, and what its two convolutions give."""
HIDDEN = 512


def make(classes: int, size: int) -> nn.Module:
    """Layers conv11, ReLU11, conv12, ReLU12, pool1, conv21 ... pool3, then two dense ones, a sigmoid between them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for stage, (given, *widths) in enumerate(WIDTHS, 1):
        for position, width in enumerate(widths, 1):
            layers[f"conv{stage}{position}"] = nn.Conv2d(given, width, 3, padding=1)
            layers[f"ReLU{stage}{position}"] = nn.ReLU()
            given = width
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    layers["flat"] = nn.Flatten()
    layers["fc1"] = nn.Linear(given * (size // 2 ** len(WIDTHS)) ** 2, HIDDEN)
    layers["fc1act"] = nn.Sigmoid()
    layers["fc2"] = nn.Linear(HIDDEN, classes)
    return nn.Sequential(layers)


ARCHITECTURE = Architecture(
    summary="six convolutions in three stages, for CIFAR-10; published cuts: conv11, ReLU22, ReLU32",
    paper="He, Zhang, Lee, Model Inversion Attacks Against Collaborative Inference, ACSAC 2019",
    make=make,
    least=8,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
