"""How often 95 % intervals contain the truth, on tables of scores whose truth is known."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from rich.table import Table

from splitleak.experiments.judge.rules import LEVEL
from splitleak.experiments.judge.statistics.interval import Array, Interval, interval
from splitleak.experiments.judge.statistics.matched import Setting, leakage_at

MEAN, PHOTO_STD, RESIDUAL_STD = 20.0, 3.0, 1.0
"""In decibels: a usual PSNR, how photos differ, and how the scores of one photo differ from seed to seed."""
SHAPES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal": lambda random, count: random.normal(size=count),
    "skewed": lambda random, count: random.exponential(size=count) - 1,
}
"""Photo effects with mean 0 and standard deviation 1; the skewness is 0 and 2."""
PHOTOS, PHOTOS_MATCHED = (64, 200, 500), (200,)
SEEDS = ((1, 0.1), (3, 0.0), (3, 0.1), (3, 0.5), (5, 0.0), (5, 0.1), (5, 0.5))
"""How many, and their standard deviation: agreeing, differing less than a sample of photos does, and more."""

CURVE = ((0.90, 24.0), (0.88, 20.0), (0.86, 16.0), (0.80, 12.0))
"""Utility and leakage without a defence and at three strengths."""
LOST, LEAST = 0.03, 18.0
"""A loss half way between two strengths, and the least leakage there."""
SHARED_LUCK = 0.5
"""How often a photo that is recognised behind one defence is recognised behind another for being easy."""


@dataclass(frozen=True)
class Population:
    """What tables (seeds, photos) are drawn from. ``shape``: of the photo effects, which the seeds share."""

    shape: str
    photos: int
    seeds: int
    seed_std: float

    def mean(self, random: np.random.Generator) -> tuple[Interval, float]:
        """An interval of the mean, and its truth."""
        seeds, photos = self._effects(random)
        return interval(MEAN + seeds + photos + self._residuals(random)), MEAN + self._given(seeds)

    def matched(self, random: np.random.Generator) -> tuple[Interval, float]:
        """An interval of the least leakage at equal utility, and its truth; seeds and photos act on all settings."""
        seeds, photos = self._effects(random)
        easy = random.uniform(size=(1, self.photos))
        settings = []
        for utility, leakage in CURVE:
            shared, own = random.uniform(size=(2, self.seeds, self.photos))
            recognised = np.where(shared < SHARED_LUCK, easy, own) < utility
            settings.append(Setting(recognised.astype(float), leakage + seeds + photos + self._residuals(random)))
        return leakage_at(LOST, settings[0], settings), LEAST + self._given(seeds)

    def _effects(self, random: np.random.Generator) -> tuple[Array, Array]:
        """Of the seeds (seeds, 1) and of the photos (photos,)."""
        return random.normal(0, self.seed_std, (self.seeds, 1)), PHOTO_STD * SHAPES[self.shape](random, self.photos)

    def _given(self, seeds: Array) -> float:
        """A single seed is what the interval speaks of; several stand for all that there might be."""
        return float(seeds[0, 0]) if len(seeds) == 1 else 0.0

    def _residuals(self, random: np.random.Generator) -> Array:
        return random.normal(0, RESIDUAL_STD, (self.seeds, self.photos))


def coverage(draw: Callable[[np.random.Generator], tuple[Interval, float]], repeats: int) -> float:
    """The share of intervals that contain their truth."""
    random = np.random.default_rng(0)
    drawn = (draw(random) for _ in range(repeats))
    return sum(found.low <= truth <= found.high for found, truth in drawn) / repeats


def compare(repeats: int) -> Table:
    """Coverage in percent by photos (down) and seeds (across)."""
    table = Table("interval of", "photo effects", "photos", box=None)
    for seeds, std in SEEDS:
        table.add_column(f"{seeds} seeds, ±{std:g} dB" if seeds > 1 else "1 seed", justify="right")
    error = np.sqrt(LEVEL * (1 - LEVEL) / repeats)
    table.title = f"truth within {100 * LEVEL:g} % intervals, % of {repeats:,} tables (± {100 * error:.1f})"
    statistics = (("mean", Population.mean, PHOTOS), ("leakage at equal utility", Population.matched, PHOTOS_MATCHED))
    for name, draw, counts in statistics:
        for shape, photos in product(SHAPES, counts):
            shares = [coverage(partial(draw, Population(shape, photos, *seeds)), repeats) for seeds in SEEDS]
            table.add_row(name, shape, str(photos), *(f"{100 * share:.1f}" for share in shares))
    return table
