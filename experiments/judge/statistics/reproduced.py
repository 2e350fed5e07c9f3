"""Whether a published mean is one that our measurement may give."""

import math

from splitleak.experiments.judge.statistics.interval import Interval

Z = 1.96
"""Half the width of a 95 % interval of a normal mean, in standard errors."""


def reproducing(ours: Interval, spread: float | None, photos: int | None) -> Interval:
    """Where the mean of ``photos`` others of the kind that we measured would lie, with 95 % confidence.

    Half the width of our interval and the sampling error of the other mean, Z * spread / sqrt(photos), add in
    squares: a mean over ten photos may differ from ours by luck alone.

    Args:
        ours: our mean with its 95 % interval.
        spread: standard deviation of our values over photos; None where it is not known.
        photos: over how many the other mean was taken; None where it is not known, then our interval alone counts.
    """
    luck = Z * spread / math.sqrt(photos) if photos and spread is not None else 0.0
    mean, low, high = ours
    return Interval(mean, mean - math.hypot(mean - low, luck), mean + math.hypot(high - mean, luck))


def is_reproduced(published: float, within: Interval) -> bool:
    """Whether a published mean lies in what ``reproducing`` gave."""
    return within.low <= published <= within.high
