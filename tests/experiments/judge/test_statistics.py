"""The bootstrap interval covers what it should, and nothing is left to chance."""

import numpy as np
import pytest
from scipy import stats

from splitleak.experiments.judge.statistics.interval import difference, interval, resampled

REPEATS = 300
TRUTH = 20.0


def test_the_interval_covers_the_truth_in_95_of_100_repeats() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(REPEATS):
        low, high = interval(random.normal(TRUTH, 3, size=60), resamples=800)[1:]
        covered += low <= TRUTH <= high
    assert 0.91 <= covered / REPEATS <= 0.98


def test_the_width_is_that_of_the_standard_error() -> None:
    values = np.random.default_rng(2).normal(TRUTH, 3, size=400)
    mean, low, high = interval(values)
    assert mean == pytest.approx(values.mean())
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)


def test_seeds_that_disagree_widen_the_interval() -> None:
    random = np.random.default_rng(3)
    images = random.normal(TRUTH, 1, size=200)
    agreeing = np.stack([images] * 3)
    disagreeing = agreeing + np.array([-2.0, 0, 2])[:, None]
    one, same, other = interval(images), interval(agreeing), interval(disagreeing)
    assert same.mean == pytest.approx(one.mean)
    assert other.mean == pytest.approx(one.mean)
    # seeds that only repeat each other are no further evidence: the images stay as few as they were
    assert same.high - same.low == pytest.approx(one.high - one.low, rel=0.05)
    assert other.high - other.low > 5 * (same.high - same.low)
    # three seeds of standard deviation 2: Student's t with two degrees of freedom
    assert other.high - other.low == pytest.approx(2 * stats.t.ppf(0.975, 2) * 2 / np.sqrt(3), rel=0.15)


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.3), (3, 2.0), (5, 1.0)])
def test_the_interval_covers_the_truth_when_photos_and_seeds_vary(seeds: int, spread: float) -> None:
    random = np.random.default_rng(7)
    covered = 0
    for _ in range(REPEATS):
        table = (
            TRUTH + random.normal(0, 3, 80) + random.normal(0, spread, (seeds, 1)) + random.normal(0, 1, (seeds, 80))
        )
        low, high = interval(table, resamples=800)[1:]
        covered += low <= TRUTH <= high
    assert 0.91 <= covered / REPEATS <= 0.985


def test_tables_of_the_first_photos_share_the_draws() -> None:
    values = np.random.default_rng(8).normal(size=(2, 50))
    whole, same, fewer, alone = resampled([values, values + 1, values[:, :20], values[:, :20] * 2])
    np.testing.assert_allclose(same - whole, 1)
    np.testing.assert_allclose(alone, 2 * fewer)
    with pytest.raises(ValueError, match="same seeds"):
        resampled([values, values[:1]])


def test_a_difference_of_pairs_is_narrower_than_its_parts() -> None:
    random = np.random.default_rng(9)
    first = random.normal(0, 3, (1, 100))
    second = first[:, :60] + 0.5 + random.normal(0, 0.1, (1, 60))
    mean, low, high = difference(second, first)
    assert mean == pytest.approx(0.5, abs=0.05)
    assert low < 0.5 < high
    assert high - low < 0.1


def test_an_image_counts_in_all_seeds_at_once() -> None:
    """Noise of the images does not shrink with seeds, as it would if all values were thrown together."""
    images = np.random.default_rng(4).normal(0, 1, size=100)
    table = np.stack([images] * 10)
    pooled = interval(table.ravel())
    nested = interval(table)
    assert nested.high - nested.low > 2.5 * (pooled.high - pooled.low)


def test_the_same_values_give_the_same_interval_whatever_ran_before() -> None:
    values = np.random.default_rng(5).normal(size=50)
    first = interval(values)
    np.random.default_rng(6).normal(size=50)
    assert interval(values) == first
    assert interval(values.tolist()) == first
    assert interval(values[None]) == first


def test_a_single_value_is_its_own_interval() -> None:
    assert interval([3.5]) == (3.5, 3.5, 3.5)


@pytest.mark.parametrize("values", [[1.0, np.nan], [1.0, np.inf], [[1.0, 2.0], [-np.inf, 2.0]], [], [[]]])
def test_values_that_are_missing_or_not_finite_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values"):
        interval(values)
