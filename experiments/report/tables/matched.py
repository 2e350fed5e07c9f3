"""The table of defences at equal utility."""

from dataclasses import dataclass

from splitleak.experiments.judge.rules import SPAN
from splitleak.experiments.judge.statistics.different import Change
from splitleak.experiments.judge.statistics.interval import Interval
from splitleak.experiments.judge.statistics.pareto import area
from splitleak.experiments.report.tables import matrix
from splitleak.experiments.report.tables.table import ABSENT, TextTable
from splitleak.experiments.results.group import DefenceRow
from splitleak.experiments.results.metrics import LEAKAGE_METRICS
from splitleak.experiments.results.ranked import Family, Ranked
from splitleak.experiments.results.results import Results

IDENTITY = "rank1"
NONE_AFFORDABLE = "none affordable"


def compared(results: Results) -> tuple[str, ...]:
    """The metrics by which defences are compared: how much of a photo comes back and, if measured, who is on it."""
    reference = results.undefended
    known = reference is not None and reference.strongest(IDENTITY) is not None
    return (*LEAKAGE_METRICS, IDENTITY) if known else LEAKAGE_METRICS


@dataclass(frozen=True)
class MatchedRow:
    """A family of settings. ``ranked``: its place in the run's one ranking, which the verdict tells, too.

    ``leakage``: by metric and what may be lost, of its best affordable setting; None where it has none. ``area``:
    mean PSNR over losses up to ``SPAN``.
    """

    ranked: Ranked
    leakage: dict[tuple[str, float], Interval | None]
    area: Interval | None

    @property
    def family(self) -> Family:
        """Its settings."""
        return self.ranked.family

    @property
    def affordable(self) -> DefenceRow | None:
        """The setting that leaks least among those that lose as much as may be lost; None where all lose more."""
        return self.ranked.row


def matched_rows(results: Results) -> tuple[MatchedRow, ...]:
    """The families in the order of the ranking; empty without a task or an undefended reference."""
    at = {
        key: {place.family.label: place.place.leakage for place in places}
        for key, places in results.rankings.items()
        if key[0] in compared(results)
    }
    return tuple(
        MatchedRow(
            place,
            {key: places[place.family.label] for key, places in at.items() if place.family.label in places},
            _area(results.undefended, place.family),
        )
        for place in results.ranking
    )


def _area(reference: DefenceRow | None, family: Family) -> Interval | None:
    metric = LEAKAGE_METRICS[0]
    first, *curve = (row.setting(metric) if row else None for row in (reference, *family.rows))
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


def headings(results: Results) -> tuple[str, ...]:
    """Of ``lines``."""
    name, most = results.utility_name or "utility", points_lost(results.may_lose[-1])
    scores = [
        f"{matrix.heading(metric)}, {points_lost(lost)} of {name} lost"
        for metric in compared(results)
        for lost in results.may_lose
    ]
    return (
        "defence",
        *scores,
        f"above the best at {most}",
        f"mean {matrix.heading(LEAKAGE_METRICS[0])} over 0 to {points_lost(SPAN)} lost",
        f"setting within {most}",
        *matrix.cost_names(results),
    )


def points_lost(share: float) -> str:
    """Such as ``3 points``: differences of two percentages are points."""
    return f"{100 * share:g} point{'' if share == 0.01 else 's'}"


def lines(results: Results, rows: tuple[MatchedRow, ...]) -> tuple[tuple[str, ...], ...]:
    """One per family, as text, under ``headings``."""
    return tuple(
        (
            row.family.label,
            *(
                _affordable(metric, row.leakage.get((metric, lost)))
                for metric in compared(results)
                for lost in results.may_lose
            ),
            above(row.ranked.place.behind),
            matrix.bare_range(LEAKAGE_METRICS[0], row.area),
            *_setting(results, row.affordable),
        )
        for row in rows
    )


def _affordable(metric: str, leakage: Interval | None) -> str:
    return NONE_AFFORDABLE if leakage is None else matrix.bare_range(metric, leakage)


def above(behind: Change | None) -> str:
    """How much more leaks than with the best; where that is no clear difference, which one would have been."""
    metric = LEAKAGE_METRICS[0]
    if behind is None:
        return ABSENT
    text, seen = matrix.bare_range(metric, behind.difference), matrix.form(metric).bare(behind.seen)
    return text if behind.clear else f"{text}, cannot be told apart ({seen} would have been seen)"


def _setting(results: Results, row: DefenceRow | None) -> tuple[str, ...]:
    if row is None:
        return (NONE_AFFORDABLE, *(ABSENT,) * len(matrix.cost_names(results)))
    return (row.defence.strength_text or row.defence.label, *matrix.paid(results, row))


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
    return TextTable("matched_utility", headings(results), lines(results, rows), caption(results)) if rows else None


def caption(results: Results) -> str:
    """What the numbers are."""
    name, most = results.utility_name or "utility", " or ".join(f"{100 * lost:g}" for lost in results.may_lose)
    return (
        f"What each defence's best affordable setting leaks under its strongest attack, where {most} points of the "
        f"undefended {name} may be lost; settings that were measured, and of each column its own best; "
        f"{results.resting}; in brackets 95 % bootstrap intervals. The best first. Above the best: in pairs, with "
        "intervals for all defences together, since the best was chosen for it; in round brackets what "
        f"four of five such runs would have found. {matrix.PAIRED} {yardstick(results)}"
    )
