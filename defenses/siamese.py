"""Train the network so that photos of one class have nearly the same features."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, Channel, Defense, Retrains, labels_of
from splitleak.defenses.fitting import SplitModel, trained_effect
from splitleak.victims.settings import doc


@dataclass(frozen=True)
class Siamese(Defense):
    """Train on cross-entropy + ``weight`` * mean over the batch's pairs of a contrastive distance.

    A pair of one class costs its squared distance, a pair of two classes what it lacks of ``margin``, squared.
    Distances count in units of the mean distance of two training photos' features. The paper adds a projection to
    few dimensions and noise: a ``chain`` with ``bottleneck`` and ``gaussian_noise``.
    """

    paper: ClassVar[str] = (
        "Osia et al., A Hybrid Deep Learning Architecture for Privacy-Preserving Mobile Analytics, IEEE Internet of "
        "Things Journal 2020"
    )
    strength: ClassVar[str] = "weight"
    strengths: ClassVar[tuple[float, ...]] = (1e-3, 0.1, 1.0, 10.0)
    of_classes: ClassVar[bool] = True
    retrains: ClassVar[Retrains] = "network"

    weight: Annotated[float, Ge(0), doc("of the contrastive term")] = 1.0
    margin: Annotated[float, Gt(0), doc("between classes, in units of the mean distance of two photos")] = 1.0

    def objective(self, calibration: Calibration, channel: Channel) -> nn.Module:
        """The contrastive term."""
        features = next(calibration.batches()).features
        return _Contrast(
            self.weight, self.margin, float(_distances(features).sum() / (len(features) ** 2 - len(features)))
        )

    def statistic(self, calibration: Calibration) -> float:
        """How much less the distance within classes is, as a share of all distances, after a short training."""
        batch = next(calibration.batches())
        labels = labels_of(batch, self.name)

        def share_within(model: SplitModel) -> float:
            distances = _distances(model.features(batch.images))
            return float(distances[labels[:, None] == labels].mean() / distances.mean())

        return trained_effect(self, calibration, share_within)


class _Contrast(nn.Module):
    def __init__(self, weight: float, margin: float, unit: float) -> None:
        super().__init__()
        self.weight, self.margin, self.unit = weight, margin, unit

    def forward(self, images: Tensor, features: Tensor, release: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        distances = _distances(features) / self.unit
        same = labels[:, None] == labels
        costs = torch.where(same, distances.square(), (self.margin - distances).clamp_min(0).square())
        others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        return self.weight * costs[others].mean()


def _distances(features: Tensor) -> Tensor:
    points = features.flatten(1).float()
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
