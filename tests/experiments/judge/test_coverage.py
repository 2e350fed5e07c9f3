"""The benchmark of the intervals: its truth is the truth, and one seed's intervals contain it."""

from functools import partial

import numpy as np
import pytest

from splitleak.experiments.benchmarks.coverage import LEAST, MEAN, Population, coverage


@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_tables_are_drawn_around_the_truth(shape: str) -> None:
    random = np.random.default_rng(1)
    drawn = [Population(shape, 100, 5, 0.5).mean(random) for _ in range(300)]
    assert {truth for _, truth in drawn} == {MEAN}
    assert np.mean([found.mean for found, _ in drawn]) == pytest.approx(MEAN, abs=0.1)


def test_what_one_seed_tells_is_about_that_seed() -> None:
    found, truth = Population("normal", 500, 1, 100.0).mean(np.random.default_rng(2))
    assert abs(truth - MEAN) > 10
    assert found.mean == pytest.approx(truth, abs=1)


def test_the_matched_truth_lies_between_two_strengths() -> None:
    random = np.random.default_rng(3)
    found = [Population("normal", 2000, 5, 0.0).matched(random)[0].mean for _ in range(8)]
    assert np.mean(found) == pytest.approx(LEAST, abs=0.5)


def test_intervals_of_one_seed_contain_the_truth() -> None:
    assert 0.9 <= coverage(partial(Population.mean, Population("normal", 200, 1, 0.1)), 300) <= 0.99
