"""The bootstrap interval covers what it should, and nothing is left to chance."""

import numpy as np
import pytest
from scipy import stats

from splitleak.experiments.judge.statistics.groups import Sizes, groups_of
from splitleak.experiments.judge.statistics.interval import interval, most_exposed, resampled

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
    assert 0.93 <= covered / REPEATS <= 0.995


def test_tables_of_the_first_photos_share_the_draws() -> None:
    values = np.random.default_rng(8).normal(size=(2, 50))
    whole, same, fewer, alone = resampled([values, values + 1, values[:, :20], values[:, :20] * 2])
    np.testing.assert_allclose(same - whole, 1)
    np.testing.assert_allclose(alone, 2 * fewer)
    with pytest.raises(ValueError, match="same seeds"):
        resampled([values, values[:1]])


def test_the_photos_of_one_person_are_one_person() -> None:
    """Photos that say the same of each person have the interval of the people, however many photos there are."""
    people = np.random.default_rng(9).normal(TRUTH, 3, 40)
    alone, repeated = interval(people), interval(np.repeat(people, 5), np.repeat(np.arange(40), 5))
    assert repeated == pytest.approx(alone)
    independent = interval(np.repeat(people, 5))
    assert repeated.high - repeated.low > 2 * (independent.high - independent.low)


def test_people_are_resampled_whole() -> None:
    """The width is that of the ratio estimator, computed another way, where people have unlike numbers of photos."""
    random = np.random.default_rng(10)
    groups = np.repeat(np.arange(60), random.integers(1, 9, 60))
    values = random.normal(0, 3, 60)[groups] + random.normal(0, 1, len(groups))
    mean, low, high = interval(values, groups)
    assert mean == pytest.approx(values.mean())
    resampled_means = []
    for _ in range(2000):
        drawn = np.concatenate([np.flatnonzero(groups == person) for person in random.integers(0, 60, 60)])
        resampled_means.append(values[drawn].mean())
    slow = np.quantile(resampled_means, [0.025, 0.975])
    assert high - low == pytest.approx(slow[1] - slow[0], rel=0.15)


def test_photos_of_one_person_alone_tell_of_that_person() -> None:
    values = np.random.default_rng(11).normal(size=30)
    assert interval(values, np.zeros(30, int)) == interval(values)


def test_photos_without_a_group_are_refused() -> None:
    with pytest.raises(ValueError, match="have a group"):
        interval(np.ones(3), [0, 1])


def test_groups_share_any_key() -> None:
    assert groups_of() == ()
    assert groups_of(["x", "y", "x", "z"]) == (0, 1, 0, 2)
    assert groups_of([None, None]) == (0, 1)
    # the same content under two names joins all photos of both
    assert groups_of(["a", "b", "b", "c"], [7, 7, 9, 9]) == (0, 0, 0, 0)
    assert groups_of(["a", "b", "c", "d"], [None, 9, None, 9]) == (0, 1, 2, 1)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        groups_of(["a", "b"], [1])


def test_unequal_groups_have_the_freedom_of_their_variance() -> None:
    """Against a simulation: a chi-square of as many degrees has the relative variance 2 / degrees."""
    random = np.random.default_rng(12)
    groups = np.repeat(np.arange(12), [40, 20, 10, 10, 5, 5, 2, 2, 2, 2, 1, 1])
    sizes, squares = Sizes.of(groups), []
    for _ in range(20_000):
        values = random.normal(size=len(groups))
        squares.append(np.square(np.bincount(groups, values - values.mean())).sum())
    assert sizes.freedom == pytest.approx(2 * np.mean(squares) ** 2 / np.var(squares), rel=0.05)
    alike = [
        np.square(np.bincount(groups, values - values.mean())).sum() / len(groups) ** 2 / sizes.shares
        for values in (random.normal(size=12)[groups] for _ in range(20_000))
    ]
    assert sizes.understated == pytest.approx(np.mean(alike), rel=0.03)
    assert Sizes.of(np.arange(9)).freedom == pytest.approx(8)


def test_the_most_exposed_tenth_is_the_mean_of_those_that_leak_most() -> None:
    random = np.random.default_rng(13)
    values = random.normal(TRUTH, 3, 400)
    mean, low, high = most_exposed(values)
    assert mean == pytest.approx(np.sort(values)[-40:].mean())
    assert low < mean < high
    tails = [np.sort(random.choice(values, 400))[-40:].mean() for _ in range(2000)]
    slow = np.quantile(tails, [0.025, 0.975])
    assert high - low == pytest.approx(slow[1] - slow[0], rel=0.2)
    assert most_exposed(np.stack([values, values])) == pytest.approx((mean, low, high))
    assert most_exposed(np.ones((2, 7))) == (1, 1, 1)


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
