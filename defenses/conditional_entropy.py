"""Train the network so that, under noise, one cannot tell the photos of a class apart."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, CalibrationBatch, Channel, Defense, Retrains, labels_of
from splitleak.defenses.fitting import SplitModel, trained_effect
from splitleak.defenses.gaussian_noise import GaussianNoise
from splitleak.victims.settings import doc

MEMORY = 0.9
"""Share of a centre that stays when a batch moves it."""
CLUSTERED = 1000
"""Photos of a class whose clusters are looked for: more would teach nothing, and fill the memory."""


@dataclass(frozen=True)
class ConditionalEntropy(Defense):
    """Send features + Gaussian noise, trained on cross-entropy + ``weight`` * a bound on what they tell.

    The features of each class are modelled as a mixture of Gaussians with ``clusters`` centres. What a noisy
    release tells about the image beyond its cluster is, to a bound, the mean over features of
    log((variance within the cluster + noise) / noise) / 2; to lower it is to raise the entropy of the image given
    the release, and with it the least error of any attacker. What is lowered is, as in the authors' code, twice that
    without what a variance of ``threshold`` tells: clusters weigh by their shares of the class, classes alike.
    Centres follow the features as these move; variances are those of the batch, so that they have gradients. In
    eval mode centres stay.
    """

    paper: ClassVar[str] = (
        "S. Xia et al., Theoretical Insights in Model Inversion Robustness and Conditional Entropy Maximization for "
        "Collaborative Inference Systems, CVPR 2025"
    )
    strength: ClassVar[str] = "weight"
    strengths: ClassVar[tuple[float, ...]] = (1e-3, 0.1, 0.3, 1.0)
    of_classes: ClassVar[bool] = True
    retrains: ClassVar[Retrains] = "network"

    weight: Annotated[float, Ge(0), doc("of the bound; published: 8 to 16")] = 8.0
    sigma: Annotated[float, Gt(0), Lt(math.inf), doc("of the noise, in the features' root mean square")] = 0.1
    clusters: Annotated[int, Gt(0), doc("of each class")] = 3
    threshold: Annotated[
        float, Ge(0), doc("variance within a cluster below which nothing pulls, in the noise's; published: 0.125")
    ] = 0.125

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """That of ``gaussian_noise``."""
        return GaussianNoise(self.sigma).channel(shape)

    def objective(self, calibration: Calibration, channel: Channel) -> nn.Module:
        """The bound."""
        return _Information(self, calibration, self.sigma * calibration.root_mean_square())

    def statistic(self, calibration: Calibration) -> float:
        """How much less of the bound there is after a short training, with clusters of what came out."""
        noise = self.sigma * calibration.root_mean_square()

        def told(model: SplitModel) -> float:
            def batches() -> Iterator[CalibrationBatch]:
                for batch in calibration.batches():
                    yield replace(batch, features=model.features(batch.images))

            information = _Information(self, replace(calibration, batches=batches), noise).eval()
            batch = next(batches())
            return float(information.told(batch.features, labels_of(batch, self.name)))

        return trained_effect(self, calibration, told)


class _Information(nn.Module):
    """The bound, with a mixture for each class."""

    def __init__(self, settings: ConditionalEntropy, calibration: Calibration, noise: float) -> None:
        super().__init__()
        self.settings, self.noise = settings, noise
        members: dict[int, list[Tensor]] = {}
        for batch in calibration.batches():
            points, labels = batch.features.flatten(1).float(), labels_of(batch, settings.name)
            for label in labels.unique().tolist():
                some = members.setdefault(int(label), [])
                some.append(points[labels == label][: CLUSTERED - sum(map(len, some))])
        self.centres = {label: _k_means(torch.cat(members[label]), settings.clusters) for label in sorted(members)}

    def get_extra_state(self) -> dict[int, Tensor]:
        return self.centres

    def set_extra_state(self, state: dict[int, Tensor]) -> None:
        self.centres = state

    def forward(self, images: Tensor, features: Tensor, release: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        return self.settings.weight * self.told(features, labels)

    def told(self, features: Tensor, labels: Tensor) -> Tensor:
        """Of the classes that are there, the mean."""
        points = features.flatten(1).float()
        of_classes = [
            self._of_class(points[labels == label], centres)
            for label, centres in self.centres.items()
            if (labels == label).any()
        ]
        return torch.stack(of_classes).mean() if of_classes else 0 * points.sum()

    def _of_class(self, members: Tensor, centres: Tensor) -> Tensor:
        nearest = torch.cdist(members.detach(), centres).argmin(1)
        total = members.new_zeros(())
        for number in nearest.unique():
            cluster = members[nearest == number]
            if self.training:
                centres[number].lerp_(cluster.detach().mean(0), 1 - MEMORY)
            variance = (cluster - centres[number].clone()).square().mean(0) / self.noise**2
            above = ((1 + variance) / (1 + self.settings.threshold)).log().clamp_min(0)
            total = total + len(cluster) / len(members) * above.mean()
        return total


def _k_means(points: Tensor, count: int, rounds: int = 10) -> Tensor:
    """Centres (at most count, d) of Lloyd's algorithm, begun at random points."""
    centres = points[torch.randperm(len(points))[:count]].clone()
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(1)
        for number in nearest.unique():
            centres[number] = points[nearest == number].mean(0)
    return centres
