"""What no attacker can do better than, behind Gaussian noise on what is sent."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from splitleak.experiments.judge.proved import Bounds

PROBES = 8
DIRECTIONS = 256
"""Principal components of the photos along which the Bayesian bound is taken; the others add nothing to it."""


def bounds(
    device: Callable[[Tensor], Tensor], images: Tensor, noise_std: float, photos: Tensor, probes: int = PROBES
) -> Bounds | None:
    """Bounds for a device that sends f(x) plus N(0, noise_std^2) noise; None without noise, which bounds nothing.

    Args:
        device: images -> release, differentiable; the same random draw on each call, so that its derivative is that
            of f. Photos of a batch must not influence one another.
        images: (n, 3, h, w) in [0, 1], at least two: where the information is taken.
        noise_std: of each value of the release.
        photos: (m, 3, h, w) in [0, 1], whose covariance stands for the prior.
        probes: random sign vectors per photo.
    """
    if noise_std <= 0:
        return None
    gradients = torch.stack([_pulled_back(device, images) for _ in range(probes)], 1) / noise_std  # (n, probes, d)
    dimensions = gradients.shape[2]
    leakage = gradients.square().sum(2).mean(1) / dimensions
    directions, variances = principal(photos)
    along = (gradients @ directions).square().mean(1)  # E (u J'v)^2 = |J u|^2, (n, k)
    bayes, bayes_std_error = _jackknife(lambda rows: bayes_error(rows.mean(0), variances, dimensions), along)
    return Bounds(
        dfil=float(leakage.mean()),
        dfil_std_error=float(leakage.std() / math.sqrt(len(leakage))),
        unbiased_error=float(1 / leakage.mean()),  # by Jensen no more than the mean of the photos' own bounds
        bayes_error=bayes,
        bayes_std_error=bayes_std_error,
    )


def _pulled_back(device: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """J'v of each image for fresh random signs v, float64 (n, d): E |J'v|^2 is the squared norm of the Jacobian J."""
    images = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        release = device(images)
        signs = torch.randint_like(release, 2) * 2 - 1
        (gradient,) = torch.autograd.grad((release * signs).sum(), images)
    return gradient.double().flatten(1).cpu()


def principal(photos: Tensor, most: int = DIRECTIONS) -> tuple[Tensor, Tensor]:
    """Directions of most variance, orthonormal float64 (d, k), and the variances along them (k,), all above 0."""
    centred = photos.double().flatten(1).cpu()
    centred = centred - centred.mean(0)
    wide = len(centred) <= centred.shape[1]
    # of the smaller of the two products, which have the same eigenvalues but for zeros: a decomposition of all photos
    # takes ten times as long
    values, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    variances = values.flip(0) / max(1, len(centred) - 1)
    kept = int((variances > 1e-12 * variances[0]).sum().clamp_max(most))
    directions = vectors.flip(1)[:, :kept]
    directions = F.normalize(centred.T @ directions, dim=0) if wide else directions
    return directions, variances[:kept]


def bayes_error(information: Tensor, variances: Tensor, dimensions: int) -> float:
    """van Trees' bound along principal directions: mean squared error per dimension.

    1 / (u'Iu + 1/lambda) bounds the error along u; it is at most u'(I + J)^-1 u, so that the sum is valid without the
    whole matrix. Directions that are left out count 0.

    Args:
        information: mean Fisher information u'Iu along each direction, (k,).
        variances: lambda, of a Gaussian prior along them, (k,).
        dimensions: d, of an image.
    """
    return float((1 / (information + 1 / variances)).sum() / dimensions)


def exact_bayes_error(jacobian: Tensor, noise_std: float, covariance: Tensor) -> float:
    """tr((J'J / noise_std^2 + covariance^-1)^-1) / d: van Trees' bound for a linear device and a Gaussian prior.

    It is the posterior mean's error: there the bound is met.

    Args:
        jacobian: (release, d).
        noise_std: of the release.
        covariance: of the images, (d, d), of full rank.
    """
    information = jacobian.T @ jacobian / noise_std**2
    return float(torch.linalg.inv(information + torch.linalg.inv(covariance)).diagonal().mean())


def _jackknife(statistic: Callable[[Tensor], float], rows: Tensor) -> tuple[float, float]:
    """A statistic of rows (n, ...) and its standard error by leaving out one at a time (Tukey, 1958)."""
    left_out = torch.tensor([statistic(torch.cat([rows[:i], rows[i + 1 :]])) for i in range(len(rows))])
    spread = (left_out - left_out.mean()).square().sum() * (len(rows) - 1) / len(rows)
    return statistic(rows), float(spread.sqrt())
