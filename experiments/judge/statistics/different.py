"""Two measurements of one thing, or many: how far apart they are, and whether that is more than noise."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr, stdtrit

from splitleak.experiments.judge.rules import FALSE_DISCOVERIES, LEVEL, POWER
from splitleak.experiments.judge.statistics.groups import Groups, Sizes, numbered, totals
from splitleak.experiments.judge.statistics.interval import RESAMPLES, Array, Interval, resampled

LEAST_LOG_P = float(np.log(1e-100))
"""Below it a p-value is 0."""


class Change(NamedTuple):
    """The second mean less the first with its 95 % interval, and the two-sided p-value of no change.

    ``seen``: the smallest true difference that would have been told from none with a probability of 80 %.
    """

    difference: Interval
    p: float
    seen: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return not self.difference.low <= 0 <= self.difference.high


class Sample(NamedTuple):
    """Values (seeds, n) of one setting, and the groups (n,) of its photos, None where each is its own."""

    values: Array
    groups: npt.ArrayLike | None = None


class _Part(NamedTuple):
    """A source of error of a mean: its squared standard error, estimated with so many degrees of freedom."""

    variance: float
    freedom: float


def different(first: Sample, second: Sample, paired: bool = True) -> Change:
    """Compare the means of two settings: the one rule of what is different.

    People and, where there are several, seeds are samples of what could have been taken; with a single seed the
    statement is about that seed. Each adds to the error of the mean, and the squares of the half-widths of their t
    intervals add up (Zou and Donner, Statistics in Medicine, 2008). The p-value is that of the interval that ends
    at zero. One seed in pairs of independent photos is the paired t-test, without pairs nearly Welch's; with few
    seeds Welch's degrees of freedom would find changes in noise many times too often. Unequal groups of photos have
    the degrees of freedom of ``Sizes``.

    Args:
        first: of m photos.
        second: of the same seeds, of n photos.
        paired: of the same photos in the same order, the first that both have: what a photo adds to both cancels.
            Seeds always are in pairs.

    Raises:
        ValueError: fewer than two photos, which tell nothing about noise, or values that are no pairs.
    """
    before, after = (np.atleast_2d(np.asarray(sample.values, dtype=float)) for sample in (first, second))
    if min(before.shape[1], after.shape[1]) < 2:
        raise ValueError("a comparison needs at least two photos")
    if len(before) != len(after):
        raise ValueError(f"values {before.shape} and {after.shape} are no pairs")
    if paired:
        shared = min(before.shape[1], after.shape[1])
        apart = after[:, :shared] - before[:, :shared]
        seeds, photos = apart.mean(1), [_people(apart, first.groups)]
    else:
        seeds = after.mean(1) - before.mean(1)
        photos = [_people(after, second.groups), _people(before, first.groups)]
    return _change(float(seeds.mean()), [*photos, *_seeds(seeds)])


def beyond_noise(p_values: Sequence[float]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Adjusted p-values (n,) of as many changes, and which of them are real with few false discoveries.

    At most 5 % of the changes found are none, on average and however many were compared (Benjamini and Hochberg,
    1995; proved where they are independent, and found to hold where changes share their photos).
    """
    from scipy.stats import false_discovery_control  # takes long to import, and only a comparison of runs needs it

    adjusted: Array = false_discovery_control(p_values) if p_values else np.empty(0)
    return adjusted, adjusted <= FALSE_DISCOVERIES


def behind(samples: Sequence[Sample], best: int, resamples: int = RESAMPLES) -> tuple[Change, ...]:
    """How far each sample is above the best, whichever was chosen for being lowest: simultaneous intervals.

    The lowest of many equal ones is low by luck, and each looks worse beside it. So ``different`` is asked at a level
    at which all pairs hold together: the largest of their standardised differences stays within it in 95 % of what
    chance does (Tukey's method, by the bootstrap; Westfall and Young, Resampling-Based Multiple Testing, 1993).
    Whichever two of equal samples turn out the best and the worst, they are called different in 5 % of runs at most.
    Of the pairs' few seeds some agree by luck: a pair's seeds vary at least as much as those of all pairs do on
    average, which is known with the degrees of freedom of all. The p-values are those of ``different``.

    Args:
        samples: of the same seeds; the first photos of one set, compared on those that all have.
        best: the position of the one that the others are compared with; itself it is at no distance from.
        resamples: of the bootstrap.

    Raises:
        ValueError: as ``different`` does.
    """
    shared = min(sample.values.shape[1] for sample in samples)
    cut = [Sample(sample.values[:, :shared], sample.groups) for sample in samples]
    alone = [different(cut[best], sample) for sample in cut]
    pooled = _pooled(cut)
    alpha = _together(cut, pooled, resamples)
    found = []
    for plain, sample in zip(alone, cut, strict=True):
        parts = [_people(sample.values - cut[best].values, sample.groups), *_floored(cut[best], sample, pooled)]
        mean, low, _ = plain.difference
        reach = max(mean - low, _half_width(parts, alpha))
        around = Interval(mean, mean - reach, mean + reach)
        found.append(Change(around, plain.p, max(plain.seen, _seen(parts, alpha))))
    return tuple(found)


def _together(samples: Sequence[Sample], pooled: _Part, resamples: int) -> float:
    """What the interval of a pair may leave out so that those of all pairs leave out 5 % together."""
    by_people = [sample.values.mean(0, keepdims=True) for sample in samples]
    drawn = resampled(by_people, [sample.groups for sample in samples], resamples)
    random = np.random.default_rng(2)
    drawn = drawn + np.sqrt(pooled.variance / 2) * random.standard_normal(
        drawn.shape
    )  # of a difference half is each's
    drawn = drawn - drawn.mean(1, keepdims=True)
    largest = np.zeros(resamples)
    for one, other in combinations(drawn, 2):
        apart = one - other
        spread = float(apart.std())
        if spread > 0:
            largest = np.maximum(largest, np.abs(apart) / spread)
    return float(2 * ndtr(-np.quantile(largest, LEVEL))) if largest.any() else 1 - LEVEL


def _pooled(samples: Sequence[Sample]) -> _Part:
    """Of the differences of two samples what seeds add, on average over the pairs; nothing with a single seed."""
    means = np.stack([sample.values.mean(1) for sample in samples])
    count, seeds = means.shape
    if seeds == 1 or count == 1:
        return _Part(0.0, 1.0)
    residual = means - means.mean(1, keepdims=True) - means.mean(0) + means.mean()
    freedom = (count - 1) * (seeds - 1)
    return _Part(2 * float(np.square(residual).sum()) / freedom / seeds, freedom)


def _floored(one: Sample, other: Sample, pooled: _Part) -> list[_Part]:
    """What seeds add to a difference: what they do on average over the pairs, or more."""
    own = _seeds(other.values.mean(1) - one.values.mean(1))
    return [_Part(max(part.variance, pooled.variance), pooled.freedom) for part in own]


def _change(difference: float, parts: Sequence[_Part]) -> Change:
    reach = _half_width(parts, 1 - LEVEL)
    found = Interval(difference, difference - reach, difference + reach)
    return Change(found, _p_value(difference, parts), _seen(parts, 1 - LEVEL))


def _people(table: Array, groups: npt.ArrayLike | None) -> _Part:
    """Of the mean over photos (seeds, n) what people add: from the totals of their photos' deviations."""
    owner: Groups = numbered(groups, table.shape[1])
    deviation, sizes = table.mean(0) - table.mean(), Sizes.of(owner)
    summed = totals(deviation, owner, int(owner.max()) + 1)
    return _Part(float(np.square(summed).sum()) / len(owner) ** 2 / sizes.understated, sizes.freedom)


def _seeds(means: Array) -> list[_Part]:
    """Of the mean over seeds' means (seeds,) what they add; nothing where there is one."""
    count = len(means)
    return [_Part(float(means.var(ddof=1)) / count, count - 1)] if count > 1 else []


def _half_width(parts: Sequence[_Part], p: float) -> float:
    """Of the interval that leaves out ``p``."""
    return float(np.sqrt(sum(part.variance * stdtrit(part.freedom, p / 2) ** 2 for part in parts)))


def _seen(parts: Sequence[_Part], p: float) -> float:
    """The smallest difference that such an interval finds so often: (t of its level + t of the power) errors."""
    quantiles = [stdtrit(part.freedom, 1 - p / 2) + stdtrit(part.freedom, POWER) for part in parts]
    return float(np.sqrt(sum(part.variance * both**2 for part, both in zip(parts, quantiles, strict=True))))


def _p_value(difference: float, parts: Sequence[_Part]) -> float:
    """What the interval leaves out that reaches from the difference to zero."""

    def beyond(log_p: float) -> float:
        return _half_width(parts, float(np.exp(log_p))) - abs(difference)

    if difference == 0:
        return 1.0
    return 0.0 if beyond(LEAST_LOG_P) < 0 else float(np.exp(brentq(beyond, LEAST_LOG_P, 0.0)))
