"""Train the network so that, under noise, one cannot tell the photos of a class apart."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, Channel, Defense, Retrains, labels_of
from splitleak.defenses.fitting import SplitModel, trained_effect
from splitleak.defenses.gaussian_noise import GaussianNoise
from splitleak.victims.settings import doc

MEMORY = 0.9
"""Share of a centre that stays when a batch moves it."""


@dataclass(frozen=True)
class ConditionalEntropy(Defense):
    """Send features + Gaussian noise, trained on cross-entropy + ``weight`` * a bound on what they tell.

    The features of each class are modelled as a mixture of Gaussians with ``clusters`` centres. What a noisy
    release tells about the image beyond its cluster is, to a bound, the mean over features of
    log((variance within the cluster + noise) / noise) / 2, weighted by the clusters' shares; to lower it is to raise
    the entropy of the image given the release, and with it the least error of any attacker. Centres follow the
    features as these move; variances are those of the batch, so that they have gradients.
    """

    paper: ClassVar[str] = (
        "S. Xia et al., Theoretical Insights in Model Inversion Robustness and Conditional Entropy Maximization for "
        "Collaborative Inference Systems, CVPR 2025"
    )
    strength: ClassVar[str] = "weight"
    strengths: ClassVar[tuple[float, ...]] = (1e-3, 0.1, 0.3, 1.0)
    retrains: ClassVar[Retrains] = "network"

    weight: Annotated[float, Ge(0), doc("of the bound; published: 8 to 16")] = 8.0
    sigma: Annotated[float, Gt(0), Lt(math.inf), doc("of the noise, in the features' root mean square")] = 0.1
    clusters: Annotated[int, Gt(0), doc("of each class")] = 3

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """That of ``gaussian_noise``."""
        return GaussianNoise(self.sigma).channel(shape)

    def objective(self, calibration: Calibration, channel: Channel) -> nn.Module:
        """The bound."""
        return _Information(self, calibration, self.sigma * calibration.root_mean_square())

    def statistic(self, calibration: Calibration) -> float:
        """How much less the bound is after a short training, in nats per feature."""
        batch = next(calibration.batches())
        noise = self.sigma * calibration.root_mean_square()

        def told(model: SplitModel) -> float:
            information = _Information(self, calibration, noise)
            return float(information.told(model.features(batch.images), labels_of(batch, self.name)))

        return trained_effect(self, calibration, told)


class _Information(nn.Module):
    """The bound, with a mixture for each class."""

    def __init__(self, settings: ConditionalEntropy, calibration: Calibration, noise: float) -> None:
        super().__init__()
        self.settings, self.noise = settings, noise
        batches = list(calibration.batches())
        features = torch.cat([batch.features.flatten(1) for batch in batches]).float()
        labels = torch.cat([labels_of(batch, settings.name) for batch in batches])
        self.centres = {
            int(label): _k_means(features[labels == label], settings.clusters) for label in labels.unique()
        }

    def get_extra_state(self) -> dict[int, Tensor]:
        return self.centres

    def set_extra_state(self, state: dict[int, Tensor]) -> None:
        self.centres = state

    def forward(self, images: Tensor, features: Tensor, release: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        return self.settings.weight * self.told(features, labels)

    def told(self, features: Tensor, labels: Tensor) -> Tensor:
        """Nats per feature."""
        points = features.flatten(1).float()
        total = points.new_zeros(())
        counted = 0
        for label, centres in self.centres.items():
            members = points[labels == label]
            if not len(members):
                continue
            nearest = torch.cdist(members.detach(), centres).argmin(1)
            for number in nearest.unique():
                cluster = members[nearest == number]
                centres[number].lerp_(cluster.detach().mean(0), 1 - MEMORY)
                variance = (cluster - centres[number].clone()).square().mean(0)
                total = total + len(cluster) * (1 + variance / self.noise**2).log().mean() / 2
                counted += len(cluster)
        return total / max(counted, 1)


def _k_means(points: Tensor, count: int, rounds: int = 10) -> Tensor:
    """Centres (at most count, d) of Lloyd's algorithm, begun at random points."""
    centres = points[torch.randperm(len(points))[:count]].clone()
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(1)
        for number in nearest.unique():
            centres[number] = points[nearest == number].mean(0)
    return centres
