"""Intervals by the bootstrap over people and seeds."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from splitleak.experiments.judge.rules import EXPOSED, LEVEL
from splitleak.experiments.judge.statistics.groups import Groups, Sizes, numbered, totals

Array = npt.NDArray[np.float64]

RESAMPLES = 2000
LOOKED_AT = 2 * EXPOSED
"""The share of the photos, those that leak most, among which the exposed ones are in nearly every resample."""
CHUNK = 2_000_000
"""Weights that are held at once: 16 MB."""


class Interval(NamedTuple):
    """A mean with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def interval(values: npt.ArrayLike, groups: npt.ArrayLike | None = None, resamples: int = RESAMPLES) -> Interval:
    """Mean of values (n,) or (seeds, n) and its bootstrap interval, see ``resampled``.

    Args:
        values: of photos, under one seed or several.
        groups: who is on each photo, (n,) numbers from 0 or more; None: each photo is of somebody else.
        resamples: of the bootstrap.

    Raises:
        ValueError: no values, values that are not finite, or photos without a group.
    """
    return intervals([values], [groups], resamples)[0]


def intervals(
    values: Sequence[npt.ArrayLike], groups: Sequence[npt.ArrayLike | None], resamples: int = RESAMPLES
) -> list[Interval]:
    """``interval`` of each of several tables of the same seeds, which is quicker than one after the other."""
    tables = [_table(one) for one in values]
    drawn = resampled(tables, groups, resamples)
    return [around(float(table.mean()), means) for table, means in zip(tables, drawn, strict=True)]


def around(mean: float, resamples: Array) -> Interval:
    """A statistic with the percentiles of its resamples."""
    low, high = np.quantile(resamples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high))


def exposed(values: npt.ArrayLike) -> float:
    """The mean of the tenth of the values (n,) that are highest; of a fraction of a value that fraction counts."""
    ranked = np.sort(np.asarray(values, dtype=float))[::-1]
    weights = np.clip(EXPOSED * len(ranked) - np.arange(len(ranked)), 0, 1)
    return float(weights @ (ranked - ranked.mean()) / weights.sum() + ranked.mean())


def most_exposed(values: npt.ArrayLike, groups: npt.ArrayLike | None = None, resamples: int = RESAMPLES) -> Interval:
    """The mean of the tenth of the photos with the highest values, with its interval, see ``interval``.

    Photos are ordered by their means over the seeds, anew in each resample by the weights that they have there; the
    tenth of few photos holds one of them in part.
    """
    table = _table(values)
    photos = table.mean(0)
    order = photos.argsort()[::-1]
    ranked, owner = photos[order] - photos.mean(), numbered(groups, len(photos))[order]

    count = int(owner.max()) + 1
    sizes = totals(np.ones(len(owner)), owner, count)

    def tail(weights: Array) -> Array:
        """Of weights (k, groups) of the groups, (k,)."""
        whole, first = EXPOSED * (weights @ sizes), min(len(owner), 2 + int(LOOKED_AT * len(owner)))
        each = weights.T[owner[:first]]
        if (each.sum(0) < whole).any():  # a heavy person is among the others
            first, each = len(owner), weights.T[owner]
        before = each.cumsum(0)
        before -= each
        inside = np.minimum(np.maximum(whole - before, 0), each)
        of: Array = (ranked[:first] @ inside) / inside.sum(0)
        return of

    base = float(photos.mean())  # of deviations: equal values stay exactly equal
    mean = exposed(photos)
    drawn = base + np.concatenate([tail(weights) for weights in _group_weights(count, resamples)])
    by_seed = table[:, order[: max(1, round(EXPOSED * len(photos)))]].mean(1)
    moved = _seed_weights(len(table), resamples) @ (by_seed - by_seed.mean())
    return around(mean, mean + _small_sample(numbered(groups, len(photos))) * (drawn - mean) + moved)


def _table(values: npt.ArrayLike) -> Array:
    table = np.atleast_2d(np.asarray(values, dtype=float))
    if not table.size or not np.isfinite(table).all():
        raise ValueError("an interval needs finite values")
    return table


def resampled(
    tables: Sequence[Array], groups: Sequence[npt.ArrayLike | None] | None = None, resamples: int = RESAMPLES
) -> Array:
    """The mean of each table in each resample, (tables, resamples); all tables see the same draws.

    People and seeds are crossed: a photo that is hard is so in every seed, and the photos of one person are hard
    together. People get the weights of the Bayesian bootstrap (Rubin, Annals of Statistics 1981), one for all photos
    of a person, and a mean is the ratio of what is weighted there. Seeds are few, and resampling three of them would
    understate their spread: their mean moves by s / sqrt(seeds) * t instead, with s the standard deviation of their
    means and t Student's with seeds - 1 degrees of freedom. What the seeds' means owe to the photos is in both:
    taking it out of s would make the interval too narrow where few seeds agree by luck. With one seed the interval is
    about that seed. The draws are fixed: the same values, the same answer.

    Args:
        tables: (seeds, m) each, values of photos under the same seeds.
        groups: of each table the group of each of its photos, the same numbers for the same people; None: the m
            photos are of as many people, the same in all tables.
        resamples: how many.

    Raises:
        ValueError: the tables differ in their seeds, or photos have no group.
    """
    if len({len(table) for table in tables}) > 1:
        raise ValueError("tables can be resampled together where they have the same seeds")
    known = groups if groups is not None else [None] * len(tables)
    owners = [numbered(group, table.shape[1]) for table, group in zip(tables, known, strict=True)]
    count = 1 + max(int(owner.max()) for owner in owners)
    seed_weights = _seed_weights(len(tables[0]), resamples)
    moved = [table.mean() + seed_weights @ (table.mean(1) - table.mean()) for table in tables]
    pairs = list(zip(tables, owners, strict=True))
    summed = np.stack([totals(table.mean(0) - table.mean(), owner, count) for table, owner in pairs], axis=1)
    photos = np.stack([totals(np.ones(len(owner)), owner, count) for owner in owners], axis=1)
    both, wider = np.hstack([summed, photos]), np.array([_small_sample(owner) for owner in owners])
    parts = [np.split((weights @ both).T, 2) for weights in _group_weights(count, resamples)]  # the weights are many
    drawn = np.concatenate([moves / counted for moves, counted in parts], axis=1)
    means_drawn: Array = wider[:, None] * drawn + np.stack(moved)
    return means_drawn


def _small_sample(owner: Groups) -> float:
    """By what the bootstrap of these groups is too narrow: variance over n + 1 instead of n - 1, normal tails."""
    if len(owner) == 1:
        return 1.0
    sizes, quantile = Sizes.of(owner), (1 + LEVEL) / 2
    student = float(stdtrit(sizes.freedom, quantile) / ndtri(quantile))
    return student * float(np.sqrt((1 + sizes.shares) / sizes.understated))


def _group_weights(count: int, resamples: int) -> Iterator[Array]:
    """Weights (k, count) of the resamples, k at a time, not yet of sum 1."""
    size = max(1, CHUNK // count)
    for first in range(0, resamples, size):
        yield _exponential(count, first, min(size, resamples - first))


@lru_cache(maxsize=4)
def _exponential(groups: int, first: int, count: int) -> Array:
    drawn = np.random.default_rng([0, first, groups]).standard_exponential((count, groups))
    return np.asfortranarray(drawn)  # a group's weights lie together: ``most_exposed`` gathers them by group


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
