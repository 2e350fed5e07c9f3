"""Is an epsilon true: what an adversary who tells two inputs apart by their releases proves about it."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtri
from torch import Tensor

from splitleak.victims.seeding import seeded

CONFIDENCE = 0.999
"""Of the bound: among as many true epsilons as a project ever audits, hardly one may be called false."""
SENDS, VALUES = 4000, 2**25
"""Releases of each of two inputs, and values that all releases of one may have: a second's random numbers."""
CHUNK = 256
STRETCH = 1000.0
"""Inputs are multiplied with this: whatever is clipped then stands at its bound."""
THRESHOLDS = 200
LEAST = 1e-300
"""A share of which the logarithm is still a number."""
FARTHEST = 40.0
"""Standard deviations beyond which a normal distribution has nothing that double precision could tell from 0."""

Numbers = npt.NDArray[np.float64]


def audited_epsilon(send: Callable[[Tensor], Tensor], features: Tensor, delta: float, gaussian: bool) -> float:
    """A lower bound on the epsilon of a channel, which no true claim is below but in one of a thousand audits.

    As LDP-Auditor (Arcolezi, Gambs, 2023, arXiv 2309.01597): two inputs are sent many times; half of the sends say
    how to tell them apart, the other half how well that goes. The inputs are a photo's features and their opposite,
    and then its largest value alone and the opposite: nothing is farther apart where the norm is bounded, and one
    value alone is what Laplace noise hides least. The bound is what this adversary proves; the truth may be more.
    So few sends prove about 5.5 at most, and about 30 of Gaussian noise.

    Args:
        send: features (n, *shape) -> release (n, ...), drawn afresh on each call from torch's global state.
        features: of one photo, (1, *shape).
        delta: the one that is claimed, in [0, 1).
        gaussian: whether the noise is said to be Gaussian, which lets every error count.
    """
    largest = features.abs().flatten(1).argmax(1, keepdim=True)
    alone = torch.zeros_like(features).flatten(1).scatter(1, largest, 1.0).view_as(features)
    inputs = [STRETCH * features, STRETCH * features.abs().amax().clamp_min(1) * alone]
    sends = max(4, min(SENDS, VALUES // features.numel()))
    level = 1 - (1 - CONFIDENCE) / len(inputs)
    return max(epsilon_at_least(*_told_apart(send, one, sends), delta, gaussian, level) for one in inputs)


def _told_apart(send: Callable[[Tensor], Tensor], one: Tensor, sends: int) -> tuple[Numbers, Numbers]:
    """Of the sends of an input and of its opposite how much like the former they are, (sends,) each.

    Noise that is added cancels in two sends with the same draw: the direction in which the inputs differ is known
    exactly, as it is to whoever knows the defence.
    """

    def once(features: Tensor) -> Tensor:
        with seeded("direction"):
            return send(features).double().flatten()

    direction = once(one) - once(-one)

    def many(features: Tensor) -> Numbers:
        counts = [CHUNK] * (sends // CHUNK) + [sends % CHUNK]
        repeated = (features.expand(count, *features.shape[1:]) for count in counts if count)
        scores = [send(some).flatten(1).double() @ direction for some in repeated]
        found: Numbers = torch.cat(scores).cpu().numpy()
        return found

    return many(one), many(-one)


def epsilon_at_least(
    first: Numbers, second: Numbers, delta: float, gaussian: bool = False, level: float = CONFIDENCE
) -> float:
    """The epsilon that is proved by scores of the releases of two inputs, at least 0.

    Private releases fall into any set with P(first) <= e^epsilon P(second) + delta. The set is the scores above a
    threshold, or for the other order those below, whichever proves most on every second score; what it proves on the
    others, with the bounds of Clopper and Pearson (Biometrika 1934), is returned. Of Gaussian noise two such shares
    tell how many standard deviations apart the inputs are at least, and that tells epsilon (Nasr et al., Tight
    Auditing of Differentially Private Machine Learning, USENIX Security 2023).

    Args:
        first, second: independent scores of releases of one input each, (n,).
        delta: that is claimed; above 0 for Gaussian noise.
        gaussian: whether the noise is.
        level: of confidence.
    """

    def proved(one: Numbers, other: Numbers, thresholds: Numbers) -> Numbers:
        low, high = _shares(one, other, thresholds, level)
        found: Numbers = ndtri(low) - ndtri(high) if gaussian else np.log(np.maximum(low - delta, LEAST) / high)
        return found

    best, reached = -math.inf, 0.0
    for one, other in ((first, second), (-second, -first)):
        thresholds = np.quantile(np.concatenate([one[::2], other[::2]]), np.linspace(0, 1, THRESHOLDS))
        fitted = proved(one[::2], other[::2], thresholds)
        if fitted.max() > best:
            best, threshold = fitted.max(), thresholds[[fitted.argmax()]]
            reached = float(proved(one[1::2], other[1::2], threshold)[0])
    return gaussian_epsilon(reached, delta) if gaussian else max(0.0, reached)


def _shares(one: Numbers, other: Numbers, thresholds: Numbers, level: float) -> tuple[Numbers, Numbers]:
    """Of the scores above each threshold the least share of the one and the largest of the other, (thresholds,)."""
    hits, false = ((scores[:, None] > thresholds).sum(0) for scores in (one, other))
    half = (1 - level) / 2  # of the error, for each of the two shares
    low = np.where(hits > 0, stats.beta.ppf(half, np.maximum(hits, 1), len(one) - hits + 1), 0.0)
    high = stats.beta.ppf(1 - half, false + 1, np.maximum(len(other) - false, 1))
    return low, np.where(false < len(other), high, 1.0)


def gaussian_epsilon(apart: float, delta: float) -> float:
    """The epsilon of two inputs that Gaussian noise leaves so many of its standard deviations apart.

    It solves Phi(a / 2 - epsilon / a) - e^epsilon Phi(-a / 2 - epsilon / a) = delta (Balle & Wang, ICML 2018, theorem
    8), written down here once more: an audit does not rest on the code that it audits.

    Args:
        apart: a, the distance over the standard deviation; where it is not above 0, epsilon is 0.
        delta: in (0, 1).
    """

    def excess(epsilon: float) -> float:
        far, near = log_ndtr(apart / 2 - epsilon / apart), log_ndtr(-apart / 2 - epsilon / apart)
        return math.exp(far) - math.exp(min(0.0, epsilon + near)) - delta

    if apart <= 0 or excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, apart**2 / 2 + FARTHEST * apart, xtol=1e-9))
