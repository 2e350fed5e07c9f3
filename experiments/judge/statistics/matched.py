"""Defences compared at equal utility: what is left to the attacker when so much of the task is given up."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from splitleak.experiments.judge.statistics.interval import RESAMPLES, Array, Interval, around, resampled

Value = TypeVar("Value", float, Array)


class Setting(NamedTuple):
    """One point of a tradeoff curve.

    ``utility``: (seeds, n). ``leakage``: (seeds, m), of the first m of the same photos.
    """

    utility: Array
    leakage: Array


ROUNDING = 1e-9
"""A utility that misses what is needed by less, which means of floats do, does not miss it."""


def needed(reference: Value, lost: float) -> Value:
    """The least utility of a setting that loses at most ``lost`` of the reference's."""
    return reference - lost - ROUNDING


def leakage_at(lost: float, reference: Setting, curve: Sequence[Setting], resamples: int = RESAMPLES) -> Interval:
    """The least leakage on a curve that loses at most ``lost`` of the reference's utility, with its 95 % interval.

    Takes what ``least_leakage`` takes, and raises what it raises.
    """
    least = least_leakage(lost, reference, curve, resamples)
    return around(float(least[0]), least[1:])


def least_leakage(lost: float, reference: Setting, curve: Sequence[Setting], resamples: int = RESAMPLES) -> Array:
    """The least leakage on a curve that loses at most ``lost`` of the reference's utility, (1 + resamples,).

    The first is that of the means. The curve joins neighbouring settings by straight lines: a utility that no setting
    has is reached between two. In each bootstrap resample the same photos and seeds are drawn for the reference and
    all settings, so that what they share (an easy photo) cancels; the draws depend on the number of photos and seeds
    only, so that two curves measured on the same ones can be subtracted. Resamples in which nothing keeps
    the utility count as the reference: a defence that cannot be afforded is not used.

    Args:
        lost: a share, 0.01 for one point.
        reference: without a defence.
        curve: in the order of the strength; several if they are to be joined.
        resamples: of the bootstrap.

    Raises:
        ValueError: the settings have not the same seeds and photos.
    """
    every = [reference, *curve]
    if len({setting.utility.shape for setting in every}) > 1 or len({len(setting.leakage) for setting in every}) > 1:
        raise ValueError("settings can be compared where they were measured on the same photos and seeds")
    tables = [values for column in zip(*every, strict=True) for values in column]
    means = np.array([[values.mean()] for values in tables])
    utility, leakage = np.split(np.hstack([means, resampled(tables, resamples)]), 2)
    return _least(utility, leakage, lost)


def _least(utility: Array, leakage: Array, lost: float) -> Array:
    """Of each column of (settings, resamples), whose first row is the reference: the least leakage affordable."""
    least_utility = needed(utility[0], lost)
    found = np.where(utility >= least_utility, leakage, np.inf).min(0)  # the reference always is affordable
    for weak in range(1, len(utility) - 1):
        (u, v), (a, b) = utility[weak : weak + 2], leakage[weak : weak + 2]
        crosses = (u - least_utility) * (v - least_utility) < 0
        share = np.where(crosses, (u - least_utility) / np.where(crosses, u - v, 1), 0)
        found = np.minimum(found, np.where(crosses, a + share * (b - a), np.inf))
    least: Array = found
    return least
