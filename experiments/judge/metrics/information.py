"""How many bits: what a release can tell at most, what that leaves to whoever seeks a person, what an attack used."""

import math
from collections.abc import Iterator

import torch
from scipy.optimize import brentq
from torch import Tensor

from splitleak.victims.tensors import BATCH, to_float

COLUMNS = 4096
"""Values of a photo that are taken in double precision at a time."""
ROUNDED = 1 / (12 * 255**2)
"""Mean squared error of an image that is exact but for its rounding to bytes."""


def gaussian_information(aimed: Tensor, measured: Tensor) -> float:
    """Bits that f + N(0, I) tells about a photo at most: 1/2 log2 det(I + S), S the covariance of f; for one release.

    No other distribution with this covariance tells more than a Gaussian (Shannon, 1948), and no determinant is above
    the product of the diagonal in whatever orthonormal directions (Hadamard, 1893). They are the principal ones of
    photos that the variances are not measured on, so that too few photos for so many values err UPWARD: directions
    are then worse aimed, and what lies outside them counts as spread evenly. The plain determinant would err
    downward, by all that the photos do not span, and would be no bound. Only logarithms of measured variances err
    downward, by 1 / (photos - 1) each, which is added. It is an estimate: about its mean it varies with the photos.

    Args:
        aimed: (m, d) f of photos in units of the noise's standard deviation; where the noise is no multiple of I,
            times the inverse root of its covariance; for k independent sends of a photo times sqrt(k). The directions
            come from these.
        measured: (n, d) the same of n >= 2 photos of other people: the variances.

    Raises:
        ValueError: fewer than two photos.
    """
    if min(len(aimed), len(measured)) < 2:
        raise ValueError("a covariance needs two photos")
    dimensions, freedom = aimed.shape[1], len(measured) - 1
    inner = torch.zeros(len(aimed), len(aimed), dtype=torch.float64)
    across = torch.zeros(len(measured), len(aimed), dtype=torch.float64)
    total = 0.0
    for one, other in _centred(aimed, measured):
        inner += one @ one.T  # the dual form: photos are fewer than values
        across += other @ one.T
        total += float(other.square().sum()) / freedom
    values, vectors = torch.linalg.eigh(inner)
    kept = values > 1e-10 * values[-1].clamp_min(1e-300)
    along = across @ vectors[:, kept] / values[kept].sqrt()
    variances = along.square().sum(0) / freedom
    outside = dimensions - len(variances)
    left = max(0.0, total - float(variances.sum()))
    nats = variances.log1p().sum() + ((variances / (1 + variances)).square() / freedom).sum()
    return float(nats + (outside * math.log1p(left / outside) if outside > 0 else 0.0)) / (2 * math.log(2))


def _centred(*features: Tensor) -> Iterator[list[Tensor]]:
    """Some columns of each (n, d) at a time, in double precision, less their means."""
    for columns in torch.arange(features[0].shape[1]).split(COLUMNS):
        first, last = int(columns[0]), int(columns[-1]) + 1
        some = [of[:, first:last].double() for of in features]
        yield [of - of.mean(0) for of in some]


def fano_rank_1(bits: float, people: int) -> float:
    """The largest rank-1 that so many bits about a photo allow among equally likely people, in [1 / people, 1].

    With P the share that is right, log2(people) - bits <= h(1 - P) + (1 - P) log2(people - 1) (Fano, 1961), whoever
    guesses and however. The gallery tells nothing about which of its people is asked for, so it adds no bits; rank-1
    is the macro one, in which people are equally likely.

    Args:
        bits: mutual information of the release and its photo, at least 0; of all sends together.
        people: at least 1.
    """
    if bits >= math.log2(people):
        return 1.0

    def missing(right: float) -> float:
        """Bits that are needed to be right so often, less those that there are."""
        wrong = 1 - right
        doubt = -sum(share * math.log2(share) for share in (right, wrong) if share > 0)
        return math.log2(people) - doubt - wrong * math.log2(people - 1) - bits

    return float(brentq(missing, 1 / people, 1.0, xtol=1e-12)) if bits > 0 else 1 / people


def usable_bits(errors: Tensor, floor: Tensor, values: int) -> Tensor:
    """Bits per photo that an attack made use of: values / 2 * log2(floor / error), at least 0; float64 (n,).

    It is what a Gaussian source of ``values`` independent values with the floor's error needs, at the least, to be
    told with the attack's (Shannon, 1959). Errors of photos are neither Gaussian nor independent from pixel to pixel,
    so this is no bound on the information in a release: it puts attacks on one scale, which grows with the size of
    the images. Photos that are below the floor count 0, so that an attack at the floor has a few bits by luck.
    Errors below the rounding to bytes count as that.

    Args:
        errors: mean squared error of each reconstruction, (n,).
        floor: the same of the answer that ignores the release, (n,).
        values: pixel values of a photo, 3 h w.
    """
    ratio = floor.double().clamp_min(ROUNDED) / errors.double().clamp_min(ROUNDED)
    return (values / 2 * ratio.log2()).clamp_min(0)


def mean_image_errors(known: Tensor, photos: Tensor) -> Tensor:
    """Mean squared error of each photo against the mean of known ones, the best constant answer; float64 (n,).

    Args:
        known: uint8 (m, 3, h, w), the attacker's own.
        photos: uint8 (n, 3, h, w).
    """
    mean = sum((to_float(some).double().sum(0) for some in known.split(BATCH)), torch.zeros(())) / len(known)
    return torch.cat([(to_float(some).double() - mean).square().mean((1, 2, 3)) for some in photos.split(BATCH)])
