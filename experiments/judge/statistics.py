"""Intervals by the bootstrap over photos and seeds."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LEVEL = 0.95
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
    spread; their deviations from the mean get one common weight each, drawn so that for a single table the mean over
    seeds moves by s / sqrt(seeds) * t, with s the seeds' standard deviation and t Student's with seeds - 1 degrees
    of freedom. With one seed the interval is about that seed. The draws are fixed: the same values, the same answer.

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
    parts = []
    for rows, weights in _photo_weights(photos, resamples):
        means = []
        for table in tables:
            drawn, centre = weights[:, : table.shape[1]], table.mean()
            by_seed = drawn @ (table - centre).T / drawn.sum(1, keepdims=True)
            means.append(centre + (by_seed * seed_weights[rows]).sum(1))  # equal values stay exactly equal
        parts.append(np.stack(means))
    return np.concatenate(parts, axis=1)


def _photo_weights(photos: int, resamples: int) -> Iterator[tuple[slice, Array]]:
    """Weights (k, photos) of the resamples, k at a time, not yet of sum 1: those of fewer photos are their first."""
    size = max(1, CHUNK // photos)
    for first in range(0, resamples, size):
        count = min(size, resamples - first)
        yield slice(first, first + count), _exponential(photos, first, count)


@lru_cache(maxsize=4)
def _exponential(photos: int, first: int, count: int) -> Array:
    return np.random.default_rng([0, first, photos]).standard_exponential((count, photos))


@lru_cache(maxsize=4)
def _seed_weights(seeds: int, resamples: int) -> Array:
    """(resamples, seeds), each row of sum 1."""
    if seeds == 1:
        return np.ones((resamples, 1))
    random = np.random.default_rng(1)
    normal = random.standard_normal((resamples, seeds))
    spread = np.sqrt(seeds * random.chisquare(seeds - 1, (resamples, 1)))
    weights: Array = 1 / seeds + (normal - normal.mean(1, keepdims=True)) / spread
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
