"""How often 95 % intervals contain the truth, and how often equals are called different, where the truth is known."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
from rich.table import Table

from splitleak.experiments.judge.rules import LEVEL
from splitleak.experiments.judge.statistics.different import Sample, different
from splitleak.experiments.judge.statistics.interval import Array, Interval, interval
from splitleak.experiments.judge.statistics.matched import Setting, ranking

MEAN, PHOTO_STD, RESIDUAL_STD = 20.0, 3.0, 1.0
"""In decibels: a usual PSNR, how photos differ, and how the scores of one photo differ from seed to seed."""
SHAPES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal": lambda random, count: random.normal(size=count),
    "skewed": lambda random, count: random.exponential(size=count) - 1,
}
"""Effects with mean 0 and standard deviation 1; the skewness is 0 and 2."""
SEEDS = (1, 2, 3, 5)
SEED_SHARES = (0.0, 0.5, 2.0, 8.0, 30.0)
"""The variance of seeds, as a multiple of what residuals alone make of the variance of their means."""
ALIKE = 0.7
"""Share of the variance of photos that all photos of a person have in common."""
EQUALS = 20
"""Families of the same leakage."""
RIGHT = 0.9
"""The share of photos that the cloud is right about."""


def one_each(photos: int) -> npt.NDArray[np.int64]:
    """Every photo is of somebody else."""
    return np.arange(photos)


def few_each(photos: int) -> npt.NDArray[np.int64]:
    """Four photos of everybody."""
    return np.arange(photos) // 4


def zipf(photos: int) -> npt.NDArray[np.int64]:
    """A quarter of the photos of one person, of the others ever fewer, as it is with people in the news."""
    others = photos - photos // 4
    people = others // 5
    shares = 1 / np.arange(1, people + 1)
    sizes = np.maximum(1, np.floor(others * shares / shares.sum())).astype(int)
    groups = np.concatenate([np.zeros(photos // 4, int), np.repeat(np.arange(1, people + 1), sizes)])
    return np.concatenate([groups, people + 1 + np.arange(max(0, photos - len(groups)))])[:photos]


GROUPINGS: dict[str, Callable[[int], npt.NDArray[np.int64]]] = {
    "1 each": one_each,
    "4 each": few_each,
    "one with a quarter": zipf,
}


@dataclass(frozen=True)
class Population:
    """What tables (seeds, photos) are drawn from.

    ``grouping``: one of ``GROUPINGS``. ``seed_share``: one of ``SEED_SHARES``. ``shape``: of the effects of photos,
    which seeds share. ``photo_std``: theirs; 0 in differences of settings, where it cancels.
    """

    grouping: str = "1 each"
    seeds: int = 3
    seed_share: float = 2.0
    photos: int = 300
    shape: str = "normal"
    photo_std: float = PHOTO_STD

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """Who is on each photo."""
        return GROUPINGS[self.grouping](self.photos)

    def mean(self, random: np.random.Generator) -> tuple[Interval, float]:
        """An interval of the mean, and its truth."""
        table, given = self._drawn(random)
        return interval(table, self.groups), MEAN + given

    def paired(self, random: np.random.Generator) -> tuple[Interval, float]:
        """An interval of the difference of two settings under the same seeds, and its truth."""
        photos = replace(self, seeds=1, seed_share=0.0)._drawn(random)[0]
        apart, given = replace(self, photo_std=RESIDUAL_STD)._drawn(random)
        return different(Sample(photos + 0 * apart, self.groups), Sample(photos + apart)).difference, MEAN + given

    def matched(self, random: np.random.Generator) -> tuple[Interval, float]:
        """What the best of the affordable settings loses of utility, in pairs, and its truth."""
        shared = random.uniform(size=(1, int(self.groups.max()) + 1))[:, self.groups]
        alike = random.uniform(size=(self.seeds, self.photos)) < ALIKE
        own = random.uniform(size=(2, self.seeds, self.photos))
        right = np.where(alike, shared, own) < RIGHT
        luck = random.normal(0, self._seed_std * 0.1, (2, self.seeds, 1))
        first, second = (Sample(right[k] + luck[k], self.groups) for k in range(2))
        given = float((luck[1] - luck[0])[0, 0]) if self.seeds == 1 else 0.0
        return different(first, second).difference, given

    def any_behind(self, random: np.random.Generator) -> bool:
        """Whether any of equal families is called clearly behind the best of them, or clearly below no defence."""
        photos = replace(self, seeds=1, seed_share=0.0)._drawn(random)[0]
        share = (
            self.seed_share if self.seeds > 1 else 0.0
        )  # a single training's luck is in no interval: a flag says so
        one = replace(self, seed_share=share, photo_std=RESIDUAL_STD)
        every = [photos + one._drawn(random)[0] for _ in range(EQUALS + 1)]
        utility = np.ones((self.seeds, self.photos))
        reference, *families = (Setting(utility, table, self.groups) for table in every)
        places = ranking(reference, [[setting] for setting in families], 0.03)
        return any(place.behind and place.behind.clear for place in places) or any(
            place.gain and place.gain.difference.high < 0 for place in places
        )

    @property
    def _seed_std(self) -> float:
        return RESIDUAL_STD * float(np.sqrt(self.seed_share / self.photos))

    def _drawn(self, random: np.random.Generator) -> tuple[Array, float]:
        """Values around ``MEAN``, and what of it the interval of a single seed speaks of."""
        effect = SHAPES[self.shape]
        people = effect(random, int(self.groups.max()) + 1)[self.groups]
        own = effect(random, self.photos)
        photos = self.photo_std * (np.sqrt(ALIKE) * people + np.sqrt(1 - ALIKE) * own)
        if self.grouping == "1 each":
            photos = self.photo_std * own
        seeds = random.normal(0, self._seed_std, (self.seeds, 1))
        residuals = random.normal(0, RESIDUAL_STD, (self.seeds, self.photos))
        return MEAN + photos + seeds + residuals, float(seeds[0, 0]) if self.seeds == 1 else 0.0


def coverage(draw: Callable[[np.random.Generator], tuple[Interval, float]], repeats: int) -> float:
    """The share of intervals that contain their truth."""
    random = np.random.default_rng(0)
    drawn = (draw(random) for _ in range(repeats))
    return sum(found.low <= truth <= found.high for found, truth in drawn) / repeats


def alarms(population: Population, repeats: int) -> float:
    """The share of runs in which equals are called different."""
    random = np.random.default_rng(0)
    return sum(population.any_behind(random) for _ in range(repeats)) / repeats


def compare(repeats: int) -> Table:
    """Per cent by groups of photos (down) and by seeds with their variance (across)."""
    across = [(seeds, share) for seeds in SEEDS for share in (SEED_SHARES if seeds > 1 else (0.0,))]
    table = Table("of", "photos of a person", "effects", box=None)
    for seeds, share in across:
        table.add_column(f"{seeds} seeds, x{share:g}" if seeds > 1 else "1 seed", justify="right")
    error = np.sqrt(LEVEL * (1 - LEVEL) / repeats)
    table.title = f"truth within {100 * LEVEL:g} % intervals, % of {repeats:,} tables (± {100 * error:.1f})"
    for name, grouping, shape, share_of in _rows():
        populations = (Population(grouping, seeds, share, shape=shape) for seeds, share in across)
        table.add_row(name, grouping, shape, *(f"{100 * share_of(one, repeats):.1f}" for one in populations))
    return table


def _rows() -> Iterator[tuple[str, str, str, Callable[[Population, int], float]]]:
    statistics = {
        "mean": Population.mean,
        "paired difference": Population.paired,
        "utility lost": Population.matched,
    }
    for name, draw in statistics.items():
        for grouping in GROUPINGS:
            yield name, grouping, "normal", partial(_covered, draw)
    yield "mean", "1 each", "skewed", partial(_covered, Population.mean)
    yield "mean", "4 each", "skewed", partial(_covered, Population.mean)
    yield "paired difference", "4 each", "skewed", partial(_covered, Population.paired)
    for grouping in GROUPINGS:
        yield f"false alarm, {EQUALS} equals", grouping, "normal", alarms


def _covered(
    draw: Callable[[Population, np.random.Generator], tuple[Interval, float]], one: Population, repeats: int
) -> float:
    return coverage(partial(draw, one), repeats)
