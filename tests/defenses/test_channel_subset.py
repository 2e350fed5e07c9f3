"""Which channels a subset keeps: none that is dead, none for its unit, and the least leaking by a slow oracle."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from splitleak.defenses.base import Calibration, CalibrationBatch
from splitleak.defenses.channel_subset import ChannelSubset, Selection, least_leaking
from splitleak.defenses.checks import toy_calibration, toy_channel

Array = npt.NDArray[np.float64]
JUDGING: tuple[Selection, ...] = ("variance", "saliency", "leakage")
"""What looks at the channels' values."""


def changed(factor: Tensor, offset: Tensor) -> Calibration:
    """The toy's, each channel multiplied and shifted; its tail undoes both."""
    calibration = toy_calibration()
    factor, offset = factor.view(-1, 1, 1), offset.view(-1, 1, 1)

    class Undone(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            logits: Tensor = calibration.tail((features - offset) / factor.where(factor != 0, 1.0))
            return logits

    def batches() -> list[CalibrationBatch]:
        return [replace(one, features=one.features * factor + offset) for one in calibration.batches()]

    return replace(calibration, batches=lambda: iter(batches()), tail=Undone())


def kept(selection: Selection, share: float, calibration: Calibration) -> list[int]:
    channel, _ = toy_channel(ChannelSubset(share, selection), calibration)
    return [int(number) for number in channel.get_buffer("kept")]


def dead_at(numbers: Sequence[int], offset: float) -> Calibration:
    factor, offsets = torch.ones(96), torch.zeros(96)
    factor[list(numbers)], offsets[list(numbers)] = 0.0, offset
    return changed(factor, offsets)


@pytest.mark.parametrize("offset", [0.0, 0.1, 1e4], ids=["at zero", "at a tenth", "far away"])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("selection", JUDGING)
def test_a_dead_channel_is_never_kept_while_a_live_one_is_given_up(
    selection: Selection, share: float, offset: float
) -> None:
    dead = set(range(0, 96, 12))
    found = kept(selection, share, dead_at(sorted(dead), offset))
    assert not dead & set(found)


@pytest.mark.parametrize("selection", JUDGING)
def test_where_all_that_live_are_kept_the_dead_fill_up(selection: Selection) -> None:
    dead = set(range(0, 96, 2))
    found = kept(selection, 0.75, dead_at(sorted(dead), 0.1))
    assert len(found) == 72
    assert set(range(96)) - dead <= set(found)


@pytest.mark.parametrize("unit", [1e-5, 1e-3, 1e3])
@pytest.mark.parametrize("selection", ["saliency", "leakage"])
def test_a_channels_unit_does_not_matter(selection: Selection, unit: float) -> None:
    factor = torch.ones(96)
    factor[::5] = unit
    assert kept(selection, 0.25, changed(factor, torch.zeros(96))) == kept(selection, 0.25, toy_calibration())


def test_of_equals_the_least_salient_is_given_up() -> None:
    covariance, cross = torch.eye(4, dtype=torch.float64), torch.zeros(4, 2, dtype=torch.float64)
    assert least_leaking(covariance, cross, torch.tensor([0.0, 0.3, 0.0, 0.2]), 2).tolist() == [1, 3]
    dead = torch.zeros(4, 4, dtype=torch.float64)
    assert least_leaking(dead, cross, torch.tensor([0.4, 0.3, 0.1, 0.2]), 2).tolist() == [0, 1]


def slow_least_leaking(covariance: Array, cross: Array, saliency: Array, count: int) -> list[int]:
    """Every elimination from scratch: the rise of the linear inversion's error for the saliency that goes."""
    unit = np.sqrt(np.diag(covariance))
    covariance, cross = covariance / np.outer(unit, unit), cross / unit[:, None]
    kept = list(range(len(covariance)))

    def explained(channels: list[int]) -> float:
        inner = covariance[np.ix_(channels, channels)] + 1e-3 * np.eye(len(channels))
        return float(np.trace(cross[channels].T @ np.linalg.solve(inner, cross[channels])))

    while len(kept) > count:
        lost = [(explained(kept) - explained([one for one in kept if one != gone])) / saliency[gone] for gone in kept]
        kept.pop(int(np.argmax(lost)))
    return kept


@settings(deadline=None, max_examples=25)
@given(size=st.integers(2, 7), seed=st.integers(0, 10_000))
def test_least_leaking_is_the_slow_one(size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    factors, pixels = generator.normal(size=(50, size)), generator.normal(size=(50, 4))
    mixed = factors + generator.normal(size=(4, size)).T.dot(pixels.T).T
    covariance, cross = np.cov(mixed.T, bias=True).reshape(size, size), mixed.T @ pixels / 50
    saliency = generator.uniform(0.1, 1, size)
    count = int(generator.integers(1, size))
    found = least_leaking(*(torch.from_numpy(a) for a in (covariance, cross, saliency)), count)
    assert found.tolist() == slow_least_leaking(covariance, cross, saliency, count)


def test_a_channel_that_is_always_the_same_is_no_channel_worth_its_bytes() -> None:
    covariance, cross = torch.eye(5, dtype=torch.float64), torch.full((5, 2), 0.4, dtype=torch.float64)
    saliency = torch.tensor([0.2, 0.0, 0.7, 0.4, 0.3], dtype=torch.float64)
    covariance[1], covariance[:, 1], cross[1] = 0, 0, 0
    for count in (1, 2, 3, 4):
        assert 1 not in least_leaking(covariance, cross, saliency, count).tolist()


def test_a_subset_is_put_back_in_half_precision_too() -> None:
    channel, features = toy_channel(ChannelSubset(0.5), toy_calibration())
    back = channel(features.bfloat16())
    assert back.dtype == torch.bfloat16
    torch.testing.assert_close(back.float(), channel(features), rtol=1e-2, atol=1e-2)


def test_a_channel_that_shows_the_picture_and_serves_no_task_goes_first() -> None:
    covariance = torch.eye(3, dtype=torch.float64)
    cross = torch.tensor([[0.9], [0.5], [0.5]], dtype=torch.float64)
    assert least_leaking(covariance, cross, torch.tensor([0.1, 1.0, 1.0]), 2).tolist() == [1, 2]
    assert least_leaking(covariance, cross, torch.tensor([100.0, 1.0, 1.0]), 1).tolist() == [0]
