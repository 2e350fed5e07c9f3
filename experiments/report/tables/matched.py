"""The table of defences at equal utility."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from splitleak.experiments.judge.rules import MAY_LOSE
from splitleak.experiments.judge.statistics.interval import Array, Interval, around
from splitleak.experiments.judge.statistics.matched import least_leakage, needed
from splitleak.experiments.judge.statistics.pareto import area
from splitleak.experiments.report.tables import matrix
from splitleak.experiments.report.tables.table import ABSENT, TextTable
from splitleak.experiments.results.group import DefenceRow
from splitleak.experiments.results.metrics import LEAKAGE_METRICS
from splitleak.experiments.results.results import Family, Results

LOST = MAY_LOSE
"""Of the undefended utility: the points at which defences are compared."""
SPAN = 0.1
"""The loss of utility up to which the area under a tradeoff curve is taken."""


IDENTITY = "rank1"

HEADLINE = (LEAKAGE_METRICS[0], LOST[-1])
"""What the rows are ordered by."""


def compared(results: Results) -> tuple[str, ...]:
    """The metrics by which defences are compared: how much of a photo comes back and, if measured, who is on it."""
    reference = results.undefended
    known = reference is not None and reference.strongest(IDENTITY) is not None
    return (*LEAKAGE_METRICS, IDENTITY) if known else LEAKAGE_METRICS


@dataclass(frozen=True)
class MatchedRow:
    """A family of settings. ``leakage``: by metric and what is lost. ``area``: mean PSNR over losses up to ``SPAN``.

    ``behind``: by how much more it leaks than the best family at the largest loss, photos and seeds paired; None for
    the best. ``affordable``: the setting that leaks least among those that lose at most the last of ``LOST``; None
    where all lose more.
    """

    family: Family
    leakage: dict[tuple[str, float], Interval]
    area: Interval | None
    behind: Interval | None
    affordable: DefenceRow | None


def matched_rows(results: Results) -> tuple[MatchedRow, ...]:
    """The families, least leaking at the largest loss first; empty without a task or an undefended reference."""
    reference = results.undefended
    if reference is None or reference.utility is None:
        return ()
    metrics = compared(results)
    drawn = {family.label: _drawn(reference, family, metrics) for family in results.families}
    known = [family for family in results.families if drawn[family.label]]
    unknown = np.full(1, np.inf)
    ranked = sorted(known, key=lambda family: float(drawn[family.label].get(HEADLINE, unknown)[0]))
    best = drawn[ranked[0].label].get(HEADLINE) if ranked else None
    return tuple(
        MatchedRow(
            family,
            {key: _interval(values) for key, values in drawn[family.label].items()},
            _area(reference, family),
            _behind(drawn[family.label].get(HEADLINE), best),
            _affordable(reference, family),
        )
        for family in ranked
    )


def _drawn(reference: DefenceRow, family: Family, metrics: Sequence[str]) -> dict[tuple[str, float], Array]:
    """By metric and what is lost: the least leakage, then its resamples."""
    found = {(metric, lost): _least(reference, family, metric, lost) for metric in metrics for lost in LOST}
    return {key: values for key, values in found.items() if values is not None}


def _interval(drawn: Array) -> Interval:
    return around(float(drawn[0]), drawn[1:])


def _behind(drawn: Array | None, best: Array | None) -> Interval | None:
    if drawn is None or best is None or drawn is best or drawn.shape != best.shape:
        return None
    return _interval(drawn - best)


def _least(reference: DefenceRow, family: Family, metric: str, lost: float) -> Array | None:
    settings = [row.setting(metric) for row in (reference, *family.rows)]
    known = [setting for setting in settings if setting is not None]
    if settings[0] is None or len(known) < 2:
        return None
    first, *curve = known
    numeric = all(isinstance(row.defence.strength_value, int | float) for row in family.rows)
    try:
        if not numeric:  # settings without an order are points, not a curve
            return min(
                (least_leakage(lost, first, [setting]) for setting in curve), key=lambda drawn: float(drawn[0])
            )
        # no defence is the end of the curve at which more leaks
        weakest_last = curve[-1].leakage.mean() > curve[0].leakage.mean()
        return least_leakage(lost, first, [*curve, first] if weakest_last else [first, *curve])
    except ValueError:
        return None  # seeds are missing


def _area(reference: DefenceRow, family: Family) -> Interval | None:
    first, *curve = (row.setting(LEAKAGE_METRICS[0]) for row in (reference, *family.rows))
    known = [setting for setting in curve if setting is not None]
    try:
        return area(first, known, SPAN) if first and known else None
    except ValueError:
        return None  # seeds are missing


def doubtful(results: Results, row: MatchedRow) -> bool:
    """Whether no setting can be compared, or what leaks least of those that can is flagged."""
    strongest = row.affordable.strongest(LEAKAGE_METRICS[0]) if row.affordable else None
    if row.affordable is None or strongest is None:
        return True
    return bool(results.raised(row.affordable.defence, strongest.column))


def _affordable(reference: DefenceRow, family: Family) -> DefenceRow | None:
    least = needed(reference.utility.mean if reference.utility else np.inf, LOST[-1])
    rows = [row for row in family.rows if row.utility and row.utility.mean >= least]
    scored = [
        (strongest.scores[LEAKAGE_METRICS[0]].mean, row) for row in rows if (strongest := row.strongest("psnr"))
    ]
    return min(scored, key=lambda pair: pair[0])[1] if scored else None


def headings(results: Results) -> tuple[str, ...]:
    """Of ``lines``."""
    name = results.utility_name or "utility"
    scores = [
        f"{matrix.heading(metric)}, {100 * lost:g} % {name} lost" for metric in compared(results) for lost in LOST
    ]
    area_name = f"mean {matrix.heading(LEAKAGE_METRICS[0])} over 0 to {100 * SPAN:g} % lost"
    behind = f"above the best at {100 * LOST[-1]:g} %"
    return (
        "defence",
        *scores,
        behind,
        area_name,
        f"setting within {100 * LOST[-1]:g} %",
        *matrix.cost_names(results),
    )


def lines(results: Results, rows: tuple[MatchedRow, ...]) -> tuple[tuple[str, ...], ...]:
    """One per family, as text, under ``headings``."""
    return tuple(
        (
            row.family.label,
            *(
                matrix.bare_range(metric, row.leakage.get((metric, lost)))
                for metric in compared(results)
                for lost in LOST
            ),
            matrix.bare_range(LEAKAGE_METRICS[0], row.behind),
            matrix.bare_range(LEAKAGE_METRICS[0], row.area),
            *_cheapest(row.affordable),
        )
        for row in rows
    )


def _cheapest(row: DefenceRow | None) -> tuple[str, ...]:
    if row is None:
        return ("none", *(ABSENT,) * 3)
    return (row.defence.strength_text or row.defence.label, *matrix.costs(row))


def yardstick(results: Results) -> str:
    """What scores of the strongest attack are to be read against.

    Of identity no floor: what an attack on the releases recognises may be below what one constant picture does.
    """
    floors = {metric: results.floor(metric) for metric in LEAKAGE_METRICS}
    known = [f"{matrix.FORMATS[metric].name} {matrix.number(metric, at.mean)}" for metric, at in floors.items() if at]
    psnr, ssim = (matrix.FORMATS[metric].name for metric in LEAKAGE_METRICS)
    suites = [group for row in results.rows for group in row.groups.values() if group.suite and group.finished]
    if suites and all(group.chosen_for_ssim for group in suites):
        parts = [f"{psnr} is of what the attacker chose for {psnr}, {ssim} of what it chose for {ssim}"]
    else:
        parts = [f"{ssim} is of the reconstruction that was chosen by {psnr}"]
    if known:
        parts.append(f"what ignores the release has {', '.join(known)}, and less than that protects no further")
    if results.chance is not None:
        parts.append(f"chance is {100 * results.chance:.3g} % {results.utility_name}")
    return f"{'; '.join(parts)}."


def table(results: Results) -> TextTable | None:
    """``lines`` under ``headings``; None where there is nothing to compare."""
    rows = matched_rows(results)
    name, points = results.utility_name or "utility", " or ".join(f"{100 * lost:g}" for lost in LOST)
    caption = (
        f"The least leakage on each defence's curve, under its strongest attack, where {points} points of the "
        f"undefended {name} may be lost; {results.sample}; in brackets 95 % bootstrap intervals. The best first; "
        f"each column takes its own best setting. {yardstick(results)}"
    )
    return TextTable("matched_utility", headings(results), lines(results, rows), caption) if rows else None
