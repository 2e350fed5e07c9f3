"""Defences compared at equal utility: what each leaves to the attacker when so much of the task may be given up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy.typing as npt

from splitleak.experiments.judge.statistics.different import Change, Sample, behind, different
from splitleak.experiments.judge.statistics.interval import RESAMPLES, Array, Interval, interval


class Setting(NamedTuple):
    """One setting of a defence.

    ``utility``: (seeds, n). ``leakage``: (seeds, m), by default of the first m of the same photos. ``groups``: who is
    on each of the n photos, (n,); ``leakage_groups``: on each of the m, where they are not the first.
    """

    utility: Array
    leakage: Array
    groups: npt.ArrayLike | None = None
    leakage_groups: npt.ArrayLike | None = None

    @property
    def useful(self) -> Sample:
        """Its utility with the groups of its photos."""
        return Sample(self.utility, self.groups)

    @property
    def leaking(self) -> Sample:
        """Its leakage with the groups of its photos."""
        return Sample(self.leakage, self.groups if self.leakage_groups is None else self.leakage_groups)


ROUNDING = 1e-9
"""A utility that misses what is needed by less, which means of floats do, does not miss it."""


def needed(reference: float, lost: float) -> float:
    """The least utility of a setting that loses at most ``lost`` of the reference's."""
    return reference - lost - ROUNDING


@dataclass(frozen=True)
class Place:
    """A family in a ranking. ``family``: its position among those given; ``setting``: of its setting among its own.

    ``leakage``: of that setting, with its interval. ``lost``: its utility less the reference's, in pairs. ``behind``:
    its leakage less that of the best, simultaneous with all others; None for the best. ``gain``: likewise its
    leakage less the reference's. All None where the family has no setting that is affordable.
    """

    family: int
    setting: int | None = None
    leakage: Interval | None = None
    lost: Change | None = None
    behind: Change | None = None
    gain: Change | None = None


def ranking(
    reference: Setting, families: Sequence[Sequence[Setting]], lost: float, resamples: int = RESAMPLES
) -> tuple[Place, ...]:
    """Families by what their best affordable setting leaks, the least first; those that have none come last.

    Settings are those that were measured: of each family the one that leaks least among those whose mean utility is
    at most ``lost`` below the reference's. What is between two settings nobody has measured.

    Args:
        reference: without a defence.
        families: of each the settings.
        lost: a share, 0.01 for one point.
        resamples: of the bootstrap.

    Raises:
        ValueError: the settings have not the same seeds, or fewer than two photos.
    """
    least = needed(float(reference.utility.mean()), lost)
    chosen: dict[int, int] = {}
    for family, settings in enumerate(families):
        affordable = [k for k, setting in enumerate(settings) if setting.utility.mean() >= least]
        if affordable:
            chosen[family] = min(affordable, key=lambda k: float(settings[k].leakage.mean()))
    order = sorted(chosen, key=lambda family: float(families[family][chosen[family]].leakage.mean()))
    best_first = [families[family][chosen[family]] for family in order]
    samples = [setting.leaking for setting in (*best_first, reference)]
    above = behind(samples, 0, resamples) if order else ()
    below = behind(samples, len(order), resamples) if order else ()
    places = [
        Place(
            family,
            chosen[family],
            interval(*setting.leaking, resamples=resamples),
            different(reference.useful, setting.useful),
            above[rank] if rank else None,
            below[rank],
        )
        for rank, (family, setting) in enumerate(zip(order, best_first, strict=True))
    ]
    return (*places, *(Place(family) for family in range(len(families)) if family not in chosen))
