"""torchvision's networks that say more of a photo than its class, as modules that give one tensor.

Such a network takes photos of one size, normalised before, and gives what the task's loss and decisions start from.
What torchvision puts around it (lists of photos, resizing, dictionaries) is left out, and so is its auxiliary head.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import ssd
from torchvision.models.detection.image_list import ImageList

from splitleak.victims.errors import InvalidInputError

SEGMENTERS = ("deeplabv3_mobilenet_v3_large", "fcn_resnet50")
DETECTORS = ("ssdlite320_mobilenet_v3_large",)


class Segmenter(nn.Module):
    """Normalised photos (n, 3, size, size) -> logits of each pixel, (n, classes, size, size)."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.backbone, self.classifier = network.get_submodule("backbone"), network.get_submodule("classifier")
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """The logits, as torchvision enlarges them; the size is known, so that nothing of it has to cross a cut."""
        coarse = self.classifier(self.backbone(images)["out"])
        return F.interpolate(coarse, (self.size, self.size), mode="bilinear", align_corners=False)


class Pyramid(nn.Module):
    """Maps (n, *shape) of several shapes -> one tensor (n, values): cut behind it, they are one release."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """All values, one map after another."""
        return torch.cat([one.flatten(1) for one in maps], 1)


class Detector(nn.Module):
    """Normalised photos (n, 3, size, size) -> (n, anchors, 4 + 4 + 1 + classes).

    A row says of one default box its edges as shares of the photo's side, by how much to move and scale them, and the
    logits of being nothing and of each class. All maps that the heads look at meet in ``pyramid``.
    """

    anchors: Tensor

    def __init__(self, network: ssd.SSD, size: int) -> None:
        super().__init__()
        self.backbone, self.head = network.backbone, network.head
        blank = torch.zeros(1, 3, size, size)
        with torch.no_grad():
            maps = list(network.eval().backbone(blank).values())
            (anchors,) = network.anchor_generator(ImageList(blank, [(size, size)]), maps)
        self.register_buffer("anchors", anchors / size, persistent=False)
        self.pyramid, self.shapes = Pyramid(), [tuple(one.shape[1:]) for one in maps]

    def forward(self, images: Tensor) -> Tensor:
        """A row for each default box."""
        values = self.pyramid(list(self.backbone(images).values()))
        parts = values.split([math.prod(shape) for shape in self.shapes], 1)
        said = self.head([parts[place].unflatten(1, shape) for place, shape in enumerate(self.shapes)])
        moves = said["bbox_regression"]
        return torch.cat([torch.zeros_like(moves) + self.anchors, moves, said["cls_logits"]], 2)


def dense_network(model: str, classes: int, size: int) -> nn.Module:
    """One of ``SEGMENTERS`` or ``DETECTORS``, untrained, in eval mode.

    Raises:
        InvalidInputError: it cannot take photos of this size.
    """
    segments = model in SEGMENTERS
    options = {"num_classes": classes} if segments else {"num_classes": 1 + classes}  # its class 0 is nothing at all
    network = torchvision.models.get_model(model, weights=None, weights_backbone=None, **options)
    wrap: Callable[[nn.Module, int], nn.Module] = Segmenter if segments else Detector
    try:
        return wrap(network, size).eval()
    except (ValueError, RuntimeError) as error:
        raise InvalidInputError(f"{model} cannot take {size} px images: {str(error).splitlines()[0]}") from None
