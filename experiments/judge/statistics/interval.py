"""Intervals by the bootstrap over photos and seeds."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from splitleak.experiments.judge.rules import LEVEL

Array = npt.NDArray[np.float64]

RESAMPLES = 2000
CHUNK = 2_000_000
"""Weights that are held at once: 16 MB."""


class Interval(NamedTuple):
    """A mean with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def interval(values: npt.ArrayLike, resamples: int = RESAMPLES) -> Interval:
    """Mean of values (n,) or (seeds, n) and its bootstrap interval, see ``resampled``.

    Raises:
        ValueError: no values, or values that are not finite.
    """
    table = np.atleast_2d(np.asarray(values, dtype=float))
    if not table.size or not np.isfinite(table).all():
        raise ValueError("an interval needs finite values")
    return around(float(table.mean()), resampled([table], resamples)[0])


def around(mean: float, resamples: Array) -> Interval:
    """A statistic with the percentiles of its resamples."""
    low, high = np.quantile(resamples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high))


def resampled(tables: Sequence[Array], resamples: int = RESAMPLES) -> Array:
    """The mean of each table in each resample, (tables, resamples); all tables see the same draws.

    Photos and seeds are crossed: a photo that is hard is so in every seed. Photos get the weights of the Bayesian
    bootstrap (Rubin, Annals of Statistics 1981). Seeds are few, and resampling three of them would understate their
    spread: their mean moves by s / sqrt(seeds) * t instead, with t Student's with seeds - 1 degrees of freedom and s
    the standard deviation of the seeds' effects, which is that of their means less what the photos already account
    for (the residual of a two-way analysis of variance). With one seed the interval is about that seed. The draws are
    fixed: the same values, the same answer.

    Args:
        tables: (seeds, m) each, values of the first m of the same photos under the same seeds.
        resamples: how many.

    Raises:
        ValueError: the tables differ in their seeds.
    """
    seeds = {len(table) for table in tables}
    if len(seeds) > 1:
        raise ValueError("tables can be resampled together where they have the same seeds")
    photos = max(table.shape[1] for table in tables)
    seed_weights = _seed_weights(seeds.pop(), resamples)
    moved = [table.mean() + seed_weights @ (_seed_share(table) * table.mean(1)) for table in tables]
    parts = []
    for weights in _photo_weights(photos, resamples):
        means = []
        for table in tables:
            first, deviation = weights[:, : table.shape[1]], (table - table.mean()).mean(0)
            means.append(
                _small_sample(table.shape[1]) * (first @ deviation) / first.sum(1)
            )  # of deviations: equal values stay exactly equal
        parts.append(np.stack(means))
    means_drawn: Array = np.concatenate(parts, axis=1) + np.stack(moved)
    return means_drawn


def _small_sample(photos: int) -> float:
    """By what the bootstrap of so many photos is too narrow: variance over n + 1 instead of n - 1, normal tails."""
    if photos == 1:
        return 1.0
    quantile = (1 + LEVEL) / 2
    student = float(stats.t.ppf(quantile, photos - 1) / stats.norm.ppf(quantile))
    return student * float(np.sqrt((photos + 1) / (photos - 1)))


def _seed_share(table: Array) -> float:
    """Square root of the share of the variance of seed means that is the seeds' own."""
    seeds, photos = table.shape
    if seeds == 1 or photos == 1:
        return 1.0
    by_seed = table.mean(1, keepdims=True)
    residual = table - by_seed - table.mean(0) + table.mean()
    noise = np.square(residual).sum() / ((seeds - 1) * (photos - 1)) / photos
    # what exceeds the noise by chance is cut off at 0 only from below: taking the noise twice makes up for it
    return float(np.sqrt(max(0.0, 1 - 2 * noise / max(float(by_seed.var(ddof=1)), 1e-300))))


def _photo_weights(photos: int, resamples: int) -> Iterator[Array]:
    """Weights (k, photos) of the resamples, k at a time, not yet of sum 1: those of fewer photos are their first."""
    size = max(1, CHUNK // photos)
    for first in range(0, resamples, size):
        yield _exponential(photos, first, min(size, resamples - first))


@lru_cache(maxsize=4)
def _exponential(photos: int, first: int, count: int) -> Array:
    return np.random.default_rng([0, first, photos]).standard_exponential((count, photos))


@lru_cache(maxsize=4)
def _seed_weights(seeds: int, resamples: int) -> Array:
    """What each seed's mean counts in the move of their mean, (resamples, seeds), each row of sum 0."""
    if seeds == 1:
        return np.zeros((resamples, 1))
    random = np.random.default_rng(1)
    normal = random.standard_normal((resamples, seeds))
    spread = np.sqrt(seeds * random.chisquare(seeds - 1, (resamples, 1)))
    weights: Array = (normal - normal.mean(1, keepdims=True)) / spread
    return weights


def difference(first: Array, second: Array, resamples: int = RESAMPLES) -> Interval:
    """Mean of ``first`` less that of ``second`` over the photos that both have, with its paired interval.

    Args:
        first: (seeds, m).
        second: (seeds, k), of the same photos from the first on.
        resamples: of the bootstrap.
    """
    shared = min(first.shape[1], second.shape[1])
    return interval(first[:, :shared] - second[:, :shared], resamples)
