"""Intervals by the bootstrap."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean with the ends of its 95 % percentile interval."""

    mean: float
    low: float
    high: float


def interval(values: npt.ArrayLike, resamples: int = RESAMPLES) -> Interval:
    """Mean of values (n,) or (seeds, n) and its percentile bootstrap interval (Efron, 1979).

    Images are resampled, and with them whole seeds: the same images are scored in every seed, so an image drawn
    counts in all of them. The resampling itself has a fixed seed: the same values give the same interval.

    Raises:
        ValueError: no values, or values that are not finite.
    """
    table = np.atleast_2d(np.asarray(values, dtype=float))
    if not table.size or not np.isfinite(table).all():
        raise ValueError("an interval needs finite values")
    seed_weights, image_weights = bootstrap_weights(*table.shape, resamples)
    means = ((image_weights @ table.T) * seed_weights).sum(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(table.mean()), float(low), float(high))


@lru_cache(maxsize=8)
def bootstrap_weights(seeds: int, images: int, resamples: int) -> tuple[Weights, Weights]:
    """How often each seed and each image is drawn, (resamples, seeds) and (resamples, images), as shares."""
    random = np.random.default_rng(0)
    image_weights = random.multinomial(images, np.full(images, 1 / images), size=resamples) / images
    seed_weights = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    return seed_weights, image_weights
