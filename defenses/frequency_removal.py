"""The encoder never sees a photo's low frequencies."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, Channel, Defense, Perturbation, Retrains
from splitleak.victims.settings import doc

BLOCK = 8
"""Side of the squares that are transformed, as in JPEG."""
COEFFICIENTS = BLOCK**2
GREY = 0.5
"""What stands in the place of what is removed: a photo without all of its coefficients is grey."""
TO_YUV = ((0.299, 0.587, 0.114), (-0.14713, -0.28886, 0.436), (0.615, -0.51499, -0.10001))
"""ITU-R BT.601, as in PAL."""


@dataclass(frozen=True)
class FrequencyRemoval(Defense):
    """Leave out the ``removed`` lowest of 64 coefficients of each 8x8 block and colour, and train the network so.

    It happens on the image (YUV, discrete cosine transform, back again), before the first layer: the same network can
    be trained on what is left, and an adversary's white box differentiates through it. Coefficients are ordered along
    the zigzag of JPEG. Training lowers cross-entropy + ``weight`` * the mean squared distance of features to their
    class's mean in the batch, in units of the features' variance before training. With ``fsinfo_noise`` behind it in
    a ``chain`` it is InfoDecom.

    What was removed is not gone where it can be told from what was kept: edges say where areas begin, and blocks
    that border on each other have to fit.
    """

    paper: ClassVar[str] = "Deng et al., InfoDecom, AAAI 2026 (arXiv 2511.13365)"
    strength: ClassVar[str] = "removed"
    strengths: ClassVar[tuple[int, ...]] = (0, 1, 10, 32, 64)
    of_classes: ClassVar[bool] = True
    retrains: ClassVar[Retrains] = "network"

    removed: Annotated[int, Ge(0), Le(COEFFICIENTS), doc("lowest of the 64 coefficients; published: 10")] = 10
    weight: Annotated[float, Ge(0), doc("of the distance within a class; published: 10")] = 10.0

    def perturb(self, image_shape: tuple[int, ...]) -> Perturbation:
        """What is left of the image."""
        return _Removing(self.removed)

    def objective(self, calibration: Calibration, channel: Channel) -> nn.Module | None:
        """The distance within classes; None at weight 0."""
        if not self.weight:
            return None
        features = torch.cat([batch.features.flatten(1).float() for batch in calibration.batches()])
        return _Within(self.weight, float((features - features.mean(0)).square().mean()))

    def statistic(self, calibration: Calibration) -> float:
        """The share of the photos' deviation from grey that is removed."""
        images = next(calibration.batches()).images
        left = _Removing(self.removed).to(calibration.device)(images)
        return float((images - left).norm() / (images - GREY).norm())


class _Removing(Perturbation):
    """``low``: onto the coefficients of a block that are removed, (64, 64); ``yuv``: of colours, (3, 3)."""

    low: Tensor
    yuv: Tensor

    def __init__(self, removed: int) -> None:
        super().__init__()
        self.removed = removed
        chosen = zigzag()[:removed]
        basis = cosines()[chosen]
        self.register_buffer("low", basis.T @ basis)
        self.register_buffer("yuv", torch.tensor(TO_YUV))

    def forward(self, images: Tensor) -> Tensor:
        """Sides that are no multiple of 8 are continued by their last pixel."""
        if not self.removed:
            return images
        height, width = images.shape[2:]
        padded = F.pad(images, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate") - GREY
        colours = torch.einsum("uc,nchw->nuhw", self.yuv, padded)
        blocks = F.unfold(colours.flatten(0, 1)[:, None], BLOCK, stride=BLOCK)
        low = F.fold(self.low @ blocks, padded.shape[2:], BLOCK, stride=BLOCK).view_as(padded)
        low = torch.einsum("cu,nuhw->nchw", torch.linalg.inv(self.yuv), low)
        return images - low[:, :, :height, :width]


class _Within(nn.Module):
    def __init__(self, weight: float, unit: float) -> None:
        super().__init__()
        self.weight, self.unit = weight, max(unit, torch.finfo(torch.float32).tiny)

    def forward(self, images: Tensor, features: Tensor, release: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        return self.weight * distance_within(features, labels) / self.unit


def distance_within(features: Tensor, labels: Tensor) -> Tensor:
    """Mean squared distance, per value, of features (n, ...) to the mean of their class in the batch."""
    points = features.flatten(1).float()
    same = (labels[:, None] == labels).to(points.dtype)
    centres = same @ points / same.sum(1, keepdim=True)
    return (points - centres).square().mean()


def cosines() -> Tensor:
    """The orthonormal discrete cosine transform of a block, (64 coefficients, 64 pixels), row by row."""
    places = torch.arange(BLOCK).double()
    one = (math.pi / BLOCK * (places + 0.5) * places[:, None]).cos() * math.sqrt(2 / BLOCK)
    one[0] /= math.sqrt(2)
    return torch.kron(one, one).float()


def zigzag() -> Tensor:
    """Numbers of coefficients from the lowest frequency to the highest, (64,)."""

    def place(number: int) -> tuple[int, int]:
        row, column = divmod(number, BLOCK)
        diagonal = row + column
        return diagonal, row if diagonal % 2 else column

    return torch.tensor(sorted(range(COEFFICIENTS), key=place))
