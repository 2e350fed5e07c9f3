"""How much of what leaks without a defence still leaks with it: 0 at the floor, 1 undefended."""

import numpy.typing as npt

from splitleak.experiments.judge.statistics.interval import RESAMPLES, Array, Interval, around, resampled

LEAST_SPAN = 0.5
"""In dB: where an attack hardly beats the floor without a defence, a share of what it gains is a share of noise."""


def relative(
    defended: Array,
    undefended: Array,
    floor: Array,
    groups: npt.ArrayLike | None = None,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """(defended - floor) / (undefended - floor) of the means, with its interval; people and seeds drawn together.

    None where the attack gains less than half a decibel without a defence.

    Args:
        defended: PSNR (seeds, k) of the first k of the same photos; so are the others.
        undefended: of the same attack without a defence.
        floor: of the mean image.
        groups: who is on each photo, (k,); None: each is of somebody else.
        resamples: of the bootstrap.
    """
    shared = min(table.shape[1] for table in (defended, undefended, floor))
    tables = [table[:, :shared] for table in (defended, undefended, floor)]
    with_it, without, known = (float(table.mean()) for table in tables)
    if without - known < LEAST_SPAN:
        return None
    drawn = resampled([tables[0] - tables[2], tables[1] - tables[2]], [groups, groups], resamples)
    return around((with_it - known) / (without - known), drawn[0] / drawn[1])
