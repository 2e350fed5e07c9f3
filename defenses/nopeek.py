"""Train the network so that its features depend on the image as little as the task allows."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, Channel, Defense, Retrains
from splitleak.defenses.fitting import trained_effect
from splitleak.victims.settings import doc


@dataclass(frozen=True)
class NoPeek(Defense):
    """Train on cross-entropy + ``alpha`` times the distance correlation of images and features in a batch.

    It lowers how well distances between images predict distances between features. That is a statistic of the
    batch, not a bound on what one release tells.
    """

    name: ClassVar[str] = "nopeek"
    paper: ClassVar[str] = (
        "Vepakomma et al., NoPeek: Information Leakage Reduction to Share Activations in Distributed Deep Learning, "
        "ICDMW 2020"
    )
    strength: ClassVar[str] = "alpha"
    strengths: ClassVar[tuple[float, ...]] = (1e-3, 0.3, 3.0, 30.0)
    retrains: ClassVar[Retrains] = "network"

    alpha: Annotated[float, Ge(0), doc("of the distance correlation; published: 0.05 to 15")] = 1.0

    def objective(self, calibration: Calibration, channel: Channel) -> nn.Module:
        """The distance correlation."""
        return _Dependence(self.alpha)

    def statistic(self, calibration: Calibration) -> float:
        """How much less the distance correlation is after a short training."""
        images = next(calibration.batches()).images
        return trained_effect(
            self, calibration, lambda model: float(distance_correlation(images, model.features(images)))
        )


class _Dependence(nn.Module):
    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(
        self, images: Tensor, features: Tensor, release: Tensor, logits: Tensor, labels: Tensor | None
    ) -> Tensor:
        return self.alpha * distance_correlation(images, release)


def distance_correlation(first: Tensor, second: Tensor) -> Tensor:
    """How much two samples (n, ...) depend on each other: a scalar in [0, 1], 0 where they are independent.

    The square root of sum(A B) / sqrt(sum(A A) sum(B B)), A and B the matrices of Euclidean distances within each
    sample, double centred (Szekely, Rizzo, Bakirov, Measuring and Testing Dependence by Correlation of Distances,
    Annals of Statistics 2007). 0 where a sample does not vary. Of small samples it is biased upwards.
    """
    a, b = (_centred_distances(sample.flatten(1).float()) for sample in (first, second))
    variances = a.square().sum() * b.square().sum()
    tiny = torch.finfo(torch.float32).tiny
    if variances <= tiny:
        return 0 * variances  # keeps its gradient
    ratio: Tensor = (a * b).sum() / variances.sqrt()
    return ratio.clamp_min(1e-12).sqrt()


def _centred_distances(points: Tensor) -> Tensor:
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    return distances - distances.mean(0) - distances.mean(1, keepdim=True) + distances.mean()
