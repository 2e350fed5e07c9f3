"""The levels are those of least squared error: known values for the normal distribution, and a slow search."""

import itertools

import pytest
import torch
from scipy import stats
from torch import Tensor

from splitleak.defenses.checks import toy_calibration, toy_channel
from splitleak.defenses.quantisation import VALUES, Quantisation, least_squares_levels
from splitleak.victims.seeding import seeded

MAX_1960 = {1: 0.3634, 2: 0.1188, 3: 0.03744, 4: 0.01154, 5: 0.003495}
"""Least error of evenly spaced levels for the unit normal, by bits (J. Max, Quantizing for Minimum Distortion)."""


def error(values: Tensor, low: Tensor, step: Tensor, levels: int) -> Tensor:
    numbers = ((values - low[:, None]) / step[:, None]).round().clamp(0, levels)
    return (values - low[:, None] - step[:, None] * numbers).square().mean(1)


@pytest.mark.parametrize("bits", MAX_1960)
def test_the_normal_distribution_gets_the_published_least_error(bits: int) -> None:
    values = torch.from_numpy(stats.norm.ppf((torch.arange(20_000).double().numpy() + 0.5) / 20_000))[None]
    levels = (1 << bits) - 1
    reached = float(error(5 + 3 * values, *least_squares_levels(5 + 3 * values, levels), levels)) / 9
    assert reached == pytest.approx(MAX_1960[bits], rel=1e-2)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("kind", ["long tail", "mostly zero", "two values", "constant"])
def test_no_range_of_a_slow_search_is_much_better(kind: str, levels: int) -> None:
    with seeded("levels", kind):
        normal = torch.randn(3, 300).double()
        values = {
            "long tail": normal.exp().square(),
            "mostly zero": normal.exp() * (torch.rand(3, 300) < 0.2),
            "two values": (normal > 1).double() * 7 - 2,
            "constant": torch.full((3, 300), 0.3).double(),
        }[kind]
    low, step = least_squares_levels(values, levels)
    assert bool((step > 0).all())
    shares = torch.linspace(0, 1, 60).double()
    grid = values.quantile(shares, dim=1)
    slow = torch.stack(
        [
            error(values, grid[a], ((grid[b] - grid[a]) / levels).clamp_min(1e-9), levels)
            for a, b in itertools.combinations(range(60), 2)
        ]
    ).amin(0)
    assert bool((error(values, low, step, levels) <= 1.02 * slow + 1e-12).all())


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_range_of_all_values_is_never_better(bits: int) -> None:
    calibration = toy_calibration()
    channel, _ = toy_channel(Quantisation(bits), calibration)
    features = torch.cat([batch.features for batch in calibration.batches()])
    assert features[:, 0].numel() <= VALUES
    values = features.movedim(1, 0).flatten(1).double()
    least, levels = values.amin(1), (1 << bits) - 1
    whole = error(values, least, (values.amax(1) - least) / levels, levels)
    ours = (channel(features) - features).movedim(1, 0).flatten(1).double().square().mean(1)
    assert bool((ours <= whole * (1 + 1e-4)).all())
    if bits <= 2:
        assert float(ours.mean()) < 0.7 * float(whole.mean())
