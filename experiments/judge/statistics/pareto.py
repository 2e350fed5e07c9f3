"""Settings among which no other is better in both utility and leakage, and the area under a tradeoff curve."""

from collections.abc import Sequence

import numpy as np

from splitleak.experiments.judge.rules import AGREE
from splitleak.experiments.judge.statistics.interval import RESAMPLES, Array, Interval, around, resampled
from splitleak.experiments.judge.statistics.matched import Setting


def pareto(settings: Sequence[Setting], resamples: int = RESAMPLES) -> tuple[list[bool], list[float]]:
    """Of each setting, whether it is a member of the Pareto set, and the share of resamples in which it is.

    A setting is in the set when no other has at least its utility and at most its leakage, one of them strictly
    better. A member is so by the means, and in at least half of the resamples. In each resample all settings see the
    same people and seeds.

    Args:
        settings: utility (seeds, n) and leakage (seeds, m), of the same photos and seeds.
        resamples: of the bootstrap.

    Raises:
        ValueError: the settings have not the same seeds.
    """
    utility, leakage = _drawn(settings, resamples)
    undominated = np.stack([_undominated(utility, leakage, index) for index in range(len(settings))])
    shares = undominated[:, 1:].mean(1)
    return (undominated[:, 0] & (shares >= AGREE)).tolist(), shares.tolist()


def _drawn(settings: Sequence[Setting], resamples: int) -> tuple[Array, Array]:
    """Utility and leakage, (settings, 1 + resamples): the means, then the resamples."""
    samples = [setting.useful for setting in settings] + [setting.leaking for setting in settings]
    tables, groups = zip(*samples, strict=True)
    means = np.array([[values.mean()] for values in tables])
    utility, leakage = np.split(np.hstack([means, resampled(tables, groups, resamples)]), 2)
    return utility, leakage


def _undominated(utility: Array, leakage: Array, index: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    as_good = (utility >= utility[index]) & (leakage <= leakage[index])
    better = (utility > utility[index]) | (leakage < leakage[index])
    undominated: np.ndarray[tuple[int], np.dtype[np.bool_]] = ~(as_good & better).any(0)
    return undominated


def area(reference: Setting, curve: Sequence[Setting], span: float, resamples: int = RESAMPLES) -> Interval:
    """Mean leakage over the losses of utility from 0 to ``span``: the area under the tradeoff curve over its width.

    At each loss the least leakage among settings that lose no more counts, and that of no defence where none does:
    a staircase, which needs no strength between two measured ones. Lower is better.

    Args:
        reference: without a defence.
        curve: the settings of one defence.
        span: a share of utility, 0.1 for ten points.
        resamples: of the bootstrap.

    Raises:
        ValueError: the settings have not the same seeds.
    """
    utility, leakage = _drawn([reference, *curve], resamples)
    lost = np.clip(utility[0] - utility[1:], 0, span)
    order = lost.argsort(0)
    lost, steps = np.take_along_axis(lost, order, 0), np.take_along_axis(leakage[1:], order, 0)
    least = np.minimum.accumulate(np.vstack([leakage[:1], steps]))
    edges = np.vstack([np.zeros_like(lost[:1]), lost, np.full_like(lost[:1], span)])
    areas = (least * np.diff(edges, axis=0)).sum(0) / span
    return around(float(areas[0]), areas[1:])
