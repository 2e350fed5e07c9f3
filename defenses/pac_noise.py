"""Gaussian noise shaped like the features' own covariance: what a release tells about its photo is bounded."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Lt
from scipy import stats
from torch import Tensor

from splitleak.defenses.base import Calibration, Channel, Defense, Guarantee
from splitleak.victims.settings import doc

VALUES, BASIS = 2**26, 2**23
"""Values of all features that are looked at, and of all directions that are kept: 256 and 32 megabytes."""
CONFIDENCE = 0.999
"""That the mean over all photos is no larger than the limit that is taken from some."""
LEAST = 1e-12
"""Share of the mean variance below which a direction counts as one that holds nothing."""


@dataclass(frozen=True)
class PacNoise(Defense):
    """Send features + noise of variance b_j = sqrt(l_j) * sum_i sqrt(l_i) / (2 v) along each principal direction.

    l_j is the features' variance along it. Of all Gaussian noise this has the least energy for which a release tells
    at most v = ``nats`` about its photo, whoever looks and whatever he knows beforehand, provided that photos are
    distributed like the train part: there is no bound for one unusual photo, and no epsilon. Noise is drawn anew for
    each send, and n sends of one photo tell n v at most.

    No directions need to be true for that. The information is at most the mean of |B^-1/2 (f - c)|^2 / 2, for any
    fixed noise covariance B and centre c (the divergence from N(c, B) of what is sent). So one half of the photos
    gives centre and directions, a quarter the variances along them, and the last quarter that mean: B is scaled so
    that the upper confidence limit of the mean is v. Directions that few photos do not span share what variance is
    left evenly and get noise by the same rule; it is paid for like the others'.
    """

    paper: ClassVar[str] = (
        "Xiao, Devadas, PAC Privacy: Automatic Privacy Measurement and Control of Data Processing, CRYPTO 2023"
    )
    strength: ClassVar[str] = "nats"
    strengths: ClassVar[tuple[float, ...]] = (1e6, 1e3, 10.0, 0.1)

    nats: Annotated[float, Gt(0), Lt(math.inf), doc("that one send tells about its photo at most")] = 8.0
    directions: Annotated[int, Gt(0), doc("principal ones that get noise of their own, at most")] = 256

    def channel(self, shape: tuple[int, ...]) -> Channel:
        """Noise whose covariance is calibrated."""
        return _ShapedNoise(shape, self)


class _ShapedNoise(Channel):
    """``basis``: orthonormal rows (k, d), zero where there were too few photos for so many; ``stds``: of the noise
    along them (k,), ``outside``: along all other directions. ``proved``: whether there were photos to prove it on."""

    basis: Tensor
    stds: Tensor
    outside: Tensor
    proved: Tensor

    def __init__(self, shape: tuple[int, ...], settings: PacNoise) -> None:
        super().__init__()
        self.settings, self.values = settings, math.prod(shape)
        kept = max(1, min(settings.directions, self.values - 1, BASIS // self.values))
        self.register_buffer("basis", torch.zeros(kept, self.values))
        self.register_buffer("stds", torch.zeros(kept))
        self.register_buffer("outside", torch.zeros(()))
        self.register_buffer("proved", torch.zeros((), dtype=torch.bool))

    def calibrate(self, calibration: Calibration) -> None:
        features = self._photos(calibration)
        order = torch.arange(len(features), device=features.device) % 4
        aimed, varied, judged = features[order < 2], features[order == 2], features[order == 3]
        centre = aimed.mean(0)
        basis = principal(aimed - centre, len(self.stds))
        self.basis[: len(basis)] = basis
        along, outside = self._variances((varied if len(varied) else aimed) - centre, len(basis))
        total = float(along.sqrt().sum() + (self.values - len(basis)) * math.sqrt(outside))
        half = total / (2 * self.settings.nats)
        self.stds[: len(basis)] = (along.sqrt() * half).sqrt()
        self.outside.fill_(math.sqrt(math.sqrt(outside) * half))
        told = self.whitened((judged if len(judged) else aimed) - centre).square().sum(1).double() / 2
        scale = math.sqrt(max(0.0, upper_mean(told) / self.settings.nats))
        self.stds.mul_(scale)
        self.outside.mul_(scale)
        self.proved.fill_(len(judged) > 1)

    def _photos(self, calibration: Calibration) -> Tensor:
        """Features of the first photos of the train part, (n, d)."""
        most, taken = max(8, VALUES // self.values), []
        for batch in calibration.batches():
            taken.append(batch.features.flatten(1).float())
            if sum(map(len, taken)) >= most:
                break
        return torch.cat(taken)[:most]

    def _variances(self, deviations: Tensor, directions: int) -> tuple[Tensor, float]:
        """Along each direction, and along each that lies outside."""
        along = (deviations @ self.basis[:directions].T).square().mean(0)
        energy = float(deviations.square().sum(1).mean())
        least = max(LEAST * energy / self.values, torch.finfo(torch.float32).tiny)
        left = (energy - float(along.sum())) / (self.values - directions)
        return along.clamp_min(least), max(left, least)

    def _scaled(self, values: Tensor, along: Tensor, outside: Tensor) -> Tensor:
        """Times a symmetric matrix with these eigenvalues, along the directions and outside them."""
        rows = values.flatten(1)
        within = rows @ self.basis.T
        return (outside * rows + (within * (along - outside)) @ self.basis).view_as(values)

    def send(self, features: Tensor) -> Tensor:
        return features + self._scaled(torch.randn_like(features), self.stds, self.outside)

    def whitened(self, difference: Tensor) -> Tensor:
        used = self.stds > 0
        return self._scaled(difference, torch.where(used, 1 / self.stds, 0.0), 1 / self.outside)

    def guarantee(self) -> Guarantee:
        within = self.stds.double().square().sum()
        outside = (self.values - int((self.stds > 0).sum())) * self.outside.double().square()
        std = math.sqrt(float(within + outside) / self.values)
        return Guarantee("query", noise_std=std, information=self.settings.nats if self.proved else None)


def principal(deviations: Tensor, most: int) -> Tensor:
    """Orthonormal directions of most variance (k, d) of deviations (n, d), k at most ``most`` and n - 1."""
    deviations = deviations.double()
    few = len(deviations) < deviations.shape[1]
    values, vectors = torch.linalg.eigh(deviations @ deviations.T if few else deviations.T @ deviations)
    kept = (values > 1e-6 * values[-1]).nonzero().flatten().flip(0)[:most]
    rows = (vectors[:, kept] / values[kept].sqrt()).T @ deviations if few else vectors[:, kept].T
    # photos that are nearly alike leave rounding in the last ones
    orthonormal: Tensor = torch.linalg.qr(rows.T).Q.T.float()
    return orthonormal


def upper_mean(values: Tensor) -> float:
    """The limit that the mean of the distribution of values (n,) is below, at ``CONFIDENCE`` (Student's t).

    Of one value there is no limit: it is returned.
    """
    if len(values) < 2:
        return float(values.mean())
    margin = float(stats.t.ppf(CONFIDENCE, len(values) - 1)) * float(values.std()) / math.sqrt(len(values))
    return float(values.mean()) + margin
