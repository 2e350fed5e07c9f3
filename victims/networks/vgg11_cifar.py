"""VGG-11 with batch normalisation for 32 px, narrowed to eight maps where it is cut."""

from collections import OrderedDict

from torch import nn

from splitleak.victims.networks.base import Architecture

WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))
"""Of the convolutions of each stage, which ends by halving the grid."""
CUT_AFTER, NARROW = 2, 8
"""The stage behind which it is cut, and how many maps are sent."""
HIDDEN = 512


def make(classes: int, size: int) -> nn.Module:
    """Layers conv11, norm11, relu11, pool1 ...; behind pool2 narrow, sigmoid and, in the cloud, widen.

    ``pool2`` is ResSFL's cut without a bottleneck, (128, 8, 8); ``narrow`` its cut with one, (8, 8, 8); ``sigmoid``
    that of CEM, whose release lies between 0 and 1.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    given = 3
    for stage, widths in enumerate(WIDTHS, 1):
        for position, width in enumerate(widths, 1):
            layers[f"conv{stage}{position}"] = nn.Conv2d(given, width, 3, padding=1)
            layers[f"norm{stage}{position}"] = nn.BatchNorm2d(width)
            layers[f"relu{stage}{position}"] = nn.ReLU()
            given = width
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
        if stage == CUT_AFTER:
            layers["narrow"] = nn.Conv2d(given, NARROW, 3, padding=1)
            layers["sigmoid"] = nn.Sigmoid()
            layers["widen"] = nn.Conv2d(NARROW, given, 3, padding=1)
    layers["flat"] = nn.Flatten()
    for number, width in enumerate((given * (size // 2 ** len(WIDTHS)) ** 2, HIDDEN), 1):
        layers[f"drop{number}"] = nn.Dropout()
        layers[f"fc{number}"] = nn.Linear(width, HIDDEN)
        layers[f"fc{number}act"] = nn.ReLU()
    layers["fc3"] = nn.Linear(HIDDEN, classes)
    return nn.Sequential(layers)


ARCHITECTURE = Architecture(
    summary="VGG-11 with batch normalisation, for CIFAR-10; published cuts: pool2, narrow (ResSFL), sigmoid (CEM)",
    paper=(
        "Li et al., ResSFL: A Resistance Transfer Framework for Defending Model Inversion Attack in Split Federated "
        "Learning, CVPR 2022; Xia et al., Theoretical Insights in Model Inversion Robustness and Conditional Entropy "
        "Maximization for Collaborative Inference Systems, CVPR 2025"
    ),
    make=make,
    least=32,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.247, 0.243, 0.261),
)
