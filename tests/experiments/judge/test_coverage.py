"""The benchmark of the intervals: its truth is the truth, and intervals contain it as often as they say."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from splitleak.experiments.benchmarks import coverage as benchmark
from splitleak.experiments.benchmarks.coverage import GROUPINGS, MEAN, SHAPES, Population, alarms, coverage


@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_tables_are_drawn_around_the_truth(shape: str) -> None:
    random = np.random.default_rng(1)
    drawn = [Population(seeds=5, shape=shape, photos=100).mean(random) for _ in range(300)]
    assert {truth for _, truth in drawn} == {MEAN}
    assert np.mean([found.mean for found, _ in drawn]) == pytest.approx(MEAN, abs=0.1)


def test_what_one_seed_tells_is_about_that_seed() -> None:
    found, truth = Population(seeds=1, seed_share=1e6, photos=500).mean(np.random.default_rng(2))
    assert abs(truth - MEAN) > 10
    assert found.mean == pytest.approx(truth, abs=1)


def test_one_person_has_a_quarter_of_the_photos() -> None:
    sizes = np.bincount(GROUPINGS["one with a quarter"](300))
    assert sizes.sum() == 300
    assert sizes[0] == sizes.max() == 75
    assert (sizes > 0).all()


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize(("seeds", "share"), [(1, 0.0), (2, 2.0), (2, 8.0), (3, 2.0), (3, 8.0)])
def test_intervals_contain_the_truth(grouping: str, seeds: int, share: float) -> None:
    """Two or three seeds whose variance is 2 to 8 times what residuals make: 81 to 86 % where it was taken out."""
    population = Population(grouping, seeds, share, photos=120)
    assert coverage(partial(Population.mean, population), 300) >= 0.92
    assert coverage(partial(Population.paired, population), 300) >= 0.92
    assert coverage(partial(Population.matched, population), 300) >= 0.92


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_mean_of_photos_that_are_alike_is_as_unsure_as_its_seeds(seeds: int) -> None:
    """The seeds' share alone makes these intervals as wide as they must be; less where residuals are taken out."""
    population = Population("1 each", seeds, 2.0, photos=120, photo_std=0.0)
    assert coverage(partial(Population.mean, population), 400) >= 0.93


def test_the_benchmark_sweeps_the_hard_regimes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few seeds that differ by 2 to 30 times what residuals make, in pairs too, and people of unlike many photos."""
    asked: list[tuple[str, Population]] = []

    def covered(draw: partial[Any], repeats: int) -> float:
        asked.append((draw.func.__name__, draw.args[0]))
        return 0.95

    def alarmed(population: Population, repeats: int) -> float:
        asked.append(("alarms", population))
        return 0.05

    monkeypatch.setattr(benchmark, "coverage", covered)
    monkeypatch.setattr(benchmark, "alarms", alarmed)
    table = benchmark.compare(1)
    assert table.row_count * (len(table.columns) - 3) == len(asked)
    for what in ("mean", "paired", "matched", "alarms"):
        for seeds in (2, 3):
            swept = {(one.seed_share, one.grouping) for of, one in asked if of == what and one.seeds == seeds}
            assert {(share, grouping) for share in (2.0, 8.0, 30.0) for grouping in GROUPINGS} <= swept
    assert {one.shape for _, one in asked} == set(SHAPES)
    assert len(set(np.bincount(GROUPINGS["one with a quarter"](300)))) > 2


@pytest.mark.parametrize(("seeds", "share"), [(1, 0.0), (3, 8.0)])
def test_of_twenty_equals_none_is_called_behind(seeds: int, share: float) -> None:
    """The lowest was chosen for being it: compared with it alone, some other was behind in half of the runs."""
    assert alarms(Population("4 each", seeds, share, photos=120), 60) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)
