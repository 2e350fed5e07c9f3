"""Two measurements of one thing: how far apart they are, and whether that is more than noise."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import stdtrit
from scipy.stats import false_discovery_control

from splitleak.experiments.judge.rules import FALSE_DISCOVERIES, LEVEL
from splitleak.experiments.judge.statistics.interval import Array, Interval

LEAST_LOG_P = float(np.log(1e-100))
"""Below it a p-value is 0."""


class Change(NamedTuple):
    """The second mean less the first with its 95 % interval, and the two-sided p-value of no change."""

    difference: Interval
    p: float


class _Part(NamedTuple):
    """A source of error of a mean: its squared standard error, estimated with so many degrees of freedom."""

    variance: float
    freedom: int


def change(first: npt.ArrayLike, second: npt.ArrayLike, paired: bool) -> Change:
    """Compare the means of values (n,) or (seeds, n).

    Photos and, where there are several, seeds are samples of what could have been taken; with a single seed the
    statement is about that seed. Each adds to the error of the mean, and the squares of the half-widths of their t
    intervals add up (Zou and Donner, Statistics in Medicine, 2008). The p-value is that of the interval that ends
    at zero. One seed in pairs is the paired t-test, without pairs nearly Welch's; with few seeds Welch's degrees of
    freedom would find changes in noise many times too often.

    Args:
        first: (n,) or (seeds, n).
        second: of the same seeds, (n,) or (seeds, n) if ``paired``, otherwise (m,) or (seeds, m).
        paired: of the same photos in the same order: what a photo adds to both cancels. Seeds always are in pairs.

    Raises:
        ValueError: fewer than two photos, which tell nothing about noise, or values that are no pairs.
    """
    before, after = (np.atleast_2d(np.asarray(values, dtype=float)) for values in (first, second))
    if min(before.shape[1], after.shape[1]) < 2:
        raise ValueError("a comparison needs at least two photos")
    if len(before) != len(after) or (paired and before.shape != after.shape):
        raise ValueError(f"values {before.shape} and {after.shape} are no pairs")
    photos = [after.mean(0) - before.mean(0)] if paired else [after.mean(0), before.mean(0)]
    seeds = after.mean(1) - before.mean(1)
    parts = [_part(sample) for sample in (*photos, seeds) if len(sample) > 1]
    difference = float(seeds.mean())
    reach = _half_width(parts, 1 - LEVEL)
    return Change(Interval(difference, difference - reach, difference + reach), _p_value(difference, parts))


def beyond_noise(p_values: Sequence[float]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Adjusted p-values (n,) of as many changes, and which of them are real with few false discoveries.

    At most 5 % of the changes found are none, on average and however many were compared (Benjamini and Hochberg,
    1995; the photos that they share make them depend on each other in a way that it allows for).
    """
    adjusted: Array = false_discovery_control(p_values) if p_values else np.empty(0)
    return adjusted, adjusted <= FALSE_DISCOVERIES


def _part(sample: Array) -> _Part:
    """Of the mean of a sample (k,)."""
    return _Part(float(sample.var(ddof=1)) / len(sample), len(sample) - 1)


def _half_width(parts: Sequence[_Part], p: float) -> float:
    """Of the interval that leaves out ``p``."""
    return float(np.sqrt(sum(part.variance * stdtrit(part.freedom, p / 2) ** 2 for part in parts)))


def _p_value(difference: float, parts: Sequence[_Part]) -> float:
    """What the interval leaves out that reaches from the difference to zero."""

    def beyond(log_p: float) -> float:
        return _half_width(parts, float(np.exp(log_p))) - abs(difference)

    if difference == 0:
        return 1.0
    return 0.0 if beyond(LEAST_LOG_P) < 0 else float(np.exp(brentq(beyond, LEAST_LOG_P, 0.0)))
